//! Follows the log of a table: which version changed which day last, and how many rows were added.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::delta::{CommitFiles, TableReader, entry_path};
use crate::gold::{ComputedFrom, computed_from};

/// A table's log, as far as it was followed.
pub(super) struct TableLog {
    path: PathBuf,
    open: Option<Followed>,
}

pub(super) struct Followed {
    reader: TableReader,
    /// The newest version that was read.
    pub(super) version: u64,
    /// The commits after this version were read.
    since: u64,
    /// The log has no commit of this version and before, as far as they were looked for.
    gone: Option<u64>,
    /// Days of which the table has, or had, rows.
    pub(super) days: BTreeSet<i32>,
    /// The newest version after `since` that changed the rows of each day.
    changed: BTreeMap<i32, u64>,
    /// Rows that commits without removed files added to each day, with their versions.
    appended: BTreeMap<i32, Vec<(u64, u64)>>,
    /// What the newest rows of a Gold table were computed from.
    pub(super) computed_from: Option<ComputedFrom>,
}

impl TableLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }

    pub(super) fn followed(&self) -> Option<&Followed> {
        self.open.as_ref()
    }

    /// Reads what is new. A log that is read for the first time is read from the version `from` on, as far as it still has
    /// these commits.
    pub(super) async fn follow(&mut self, from: Option<u64>) -> anyhow::Result<()> {
        let exists = |path: &Path, version| path.join(entry_path(version).to_string()).exists();
        if self.open.as_ref().is_some_and(|open| !exists(&self.path, open.version)) {
            // The table was created again, or its log was cleaned up.
            self.open = None;
        }
        if self.open.is_none() {
            self.open = Followed::open(&self.path, from).await?;
        }
        if let Some(open) = &mut self.open {
            while open.read_next().await? {}
        }
        Ok(())
    }
}

impl Followed {
    async fn open(path: &Path, from: Option<u64>) -> anyhow::Result<Option<Self>> {
        let Some(reader) = TableReader::open(path)? else { return Ok(None) };
        let Some(newest) = reader.version().await? else { return Ok(None) };
        let days = reader.files_at(newest).await?.iter().filter_map(|file| file.day()).collect();
        // An entry that is gone: nothing is known of the commits before the newest version.
        let from = from.unwrap_or(newest).min(newest);
        let has_all = from == newest || reader.files_of_commit(from + 1).await?.is_some();
        let since = if has_all { from } else { newest };
        let mut followed = Self {
            reader,
            version: since,
            since,
            gone: None,
            days,
            changed: BTreeMap::new(),
            appended: BTreeMap::new(),
            computed_from: None,
        };
        followed.find_computed_from().await?;
        Ok(Some(followed))
    }

    /// Looks for what a Gold table was computed from before `version`, from the newest commit to the oldest.
    async fn find_computed_from(&mut self) -> anyhow::Result<()> {
        for version in (0..=self.version).rev() {
            let Some(commit) = self.reader.files_of_commit(version).await? else { return Ok(()) };
            // Only commits of Gold tables say it: the first one of silverd's decides which kind of a table this is.
            let Some(info) = commit.info else { continue };
            let is_of_gold = info.get("sources").is_some();
            let is_maintenance = info.get("maintenance").is_some();
            if is_of_gold {
                self.computed_from = computed_from(info);
            }
            if is_of_gold || !is_maintenance {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads the next version; false if there is none yet.
    async fn read_next(&mut self) -> anyhow::Result<bool> {
        let version = self.version + 1;
        let Some(commit) = self.reader.files_of_commit(version).await? else { return Ok(false) };
        self.take_in(version, commit);
        Ok(true)
    }

    fn take_in(&mut self, version: u64, commit: CommitFiles) {
        let appends_only = commit.removed.is_empty();
        for added in commit.added.iter().filter(|added| added.data_change) {
            let Some(day) = added.file.day() else { continue };
            self.days.insert(day);
            if appends_only {
                self.appended.entry(day).or_default().push((version, added.file.rows().unwrap_or(0)));
            }
        }
        for day in commit.changed_days() {
            self.changed.insert(day, version);
        }
        if let Some(found) = commit.info.and_then(computed_from) {
            self.computed_from = Some(found);
        }
        self.version = version;
    }

    /// Whether a day's rows may have changed after a version: also if the log does not say it any more, or if the table
    /// does not have this version, because it was created again.
    pub(super) fn changed_after(&self, day: i32, version: u64) -> bool {
        if version > self.version {
            return true;
        }
        let is_known = version >= self.since || !self.days.contains(&day);
        !is_known || self.changed.get(&day).is_some_and(|changed| *changed > version)
    }

    /// The rows that were added to a day after a version.
    pub(super) fn rows_after(&self, day: i32, version: u64) -> u64 {
        let appended = self.appended.get(&day).into_iter().flatten();
        appended.filter(|(at, _)| *at > version).map(|(_, rows)| rows).sum()
    }

    /// Forgets the added rows of a day that were counted up to a version.
    fn counted(&mut self, day: i32, version: u64) {
        if let Some(appended) = self.appended.get_mut(&day) {
            appended.retain(|(at, _)| *at > version);
        }
    }
}

impl TableLog {
    /// Reads what is new, if that is not read up to a version.
    pub(super) async fn follow_to(&mut self, version: u64) -> anyhow::Result<()> {
        match self.open.as_ref().is_some_and(|open| open.version < version) {
            true => self.follow(None).await,
            false => Ok(()),
        }
    }

    /// Reads the commits after an older version, too, if the log still has them.
    pub(super) async fn reach_back(&mut self, version: u64) -> anyhow::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.gone.is_some_and(|gone| version < gone) {
            return Ok(());
        }
        while open.since > version {
            let Some(commit) = open.reader.files_of_commit(open.since).await? else {
                open.gone = Some(open.since);
                return Ok(());
            };
            for day in commit.changed_days() {
                open.changed.entry(day).or_insert(open.since);
            }
            open.since -= 1;
        }
        Ok(())
    }

    /// Whether rows were added to a day that are not counted.
    pub(super) fn has_uncounted(&self, day: i32) -> bool {
        self.open.as_ref().is_some_and(|open| open.appended.contains_key(&day))
    }

    /// Forgets the added rows that were counted, or that nobody will count.
    pub(super) fn forget_counted(&mut self, counted: impl Fn(i32) -> Option<u64>) {
        let Some(open) = &mut self.open else { return };
        let days: Vec<i32> = open.appended.keys().copied().collect();
        for day in days {
            open.counted(day, counted(day).unwrap_or(u64::MAX));
        }
        open.appended.retain(|_, appended| !appended.is_empty());
    }
}
