//! Publishing the states of days: by what finalizes them, and by each commit to a day that is over.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::RwLock;
use silverd_core::days::{DayReason, DayState};
use silverd_core::zone::Zone;
use tracing::debug;

use super::dependents::Dependents;
use super::lock::{CorrectionMark, FolderLock};
use super::published::{Published, Rows, TABLE, days_of, of_days};
use super::row::DayRow;
use crate::runtime::clock;

/// How often a publication is tried again if another process publishes first.
const TRIES_MAX: usize = 20;

/// `gold.day_status`, for those who write tables.
pub struct DayLedger {
    path: RwLock<PathBuf>,
    dependents: RwLock<Dependents>,
    published: tokio::sync::Mutex<Published>,
    /// The rows, for those who do not wait; `None` before they were read.
    shown: RwLock<Option<Arc<Rows>>>,
}

/// The state of a day, to be published.
#[derive(Clone, Debug)]
pub(crate) struct DayUpdate {
    pub(crate) table: String,
    pub(crate) day: i32,
    pub(crate) state: DayState,
    pub(crate) reasons: Vec<DayReason>,
    /// `None`: those that are published stay.
    pub(crate) figures: Option<Figures>,
}

/// How far a table was when a day had its state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Figures {
    pub(crate) complete_until: Option<i64>,
    pub(crate) commit_version: Option<i64>,
    pub(crate) offsets: Option<String>,
    pub(crate) late_events: i64,
}

/// Lets a commit change days: none of them is called final until it is dropped.
pub(crate) struct Hold {
    lock: Option<FolderLock>,
    is_committing: bool,
}

impl Hold {
    fn new(lock: FolderLock) -> Self {
        Self { lock: Some(lock), is_committing: false }
    }

    /// Awaits the commit that changes the days.
    pub(crate) async fn commit<T>(&mut self, commit: impl Future<Output = T>) -> T {
        self.is_committing = true;
        let committed = commit.await;
        self.is_committing = false;
        committed
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // A commit that was cancelled, as by Ctrl-C, may still be written by another thread: the lock is left to the end of the
        // process.
        if self.is_committing && !std::thread::panicking() {
            std::mem::forget(self.lock.take());
        }
    }
}

impl DayLedger {
    pub(crate) fn new(path: PathBuf, dependents: Dependents) -> Self {
        let (path, dependents) = (RwLock::new(path), RwLock::new(dependents));
        Self { path, dependents, published: Default::default(), shown: Default::default() }
    }

    /// Takes over the folder and the Gold tables that pipeline.toml has now.
    pub(crate) fn set(&self, path: PathBuf, dependents: Dependents) {
        (*self.path.write(), *self.dependents.write()) = (path, dependents);
    }

    fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    /// Before a commit of a Silver worker to these days: says of those that are final that they are provisional, durably.
    /// `None` if none of the days is over: such a day is final only if it was finalized by a clock that was ahead, or was
    /// set back.
    pub(crate) async fn hold_past(
        &self,
        table: &str,
        zone: Zone,
        days: &BTreeSet<i32>,
    ) -> anyhow::Result<Option<Hold>> {
        let Some(first) = days.first() else { return Ok(None) };
        if *first >= zone.day_of(clock::now_micros()) && !self.is_any_final(table, *first).await {
            return Ok(None);
        }
        self.hold(table, days).await.map(Some)
    }

    /// Whether a day of a table, from `first` on, is final. Where the published table cannot be read, none is.
    async fn is_any_final(&self, table: &str, first: i32) -> bool {
        let is_final = |row: &DayRow| row.table == table && row.state == DayState::Final;
        let shown = self.shown.read().clone();
        match shown {
            Some(rows) => of_days(&rows, first..=i32::MAX).any(is_final),
            // Just after the start. Only the files of these few days are read.
            None => match days_of(&self.path(), table, first..=i32::MAX).await {
                Ok(rows) => rows.unwrap_or_default().iter().any(is_final),
                Err(failure) => {
                    debug!("read {TABLE}: {failure:#}; no day that is not over is taken to be final");
                    false
                }
            },
        }
    }

    /// Before any other commit that changes these days.
    pub(crate) async fn hold(&self, table: &str, days: &BTreeSet<i32>) -> anyhow::Result<Hold> {
        let path = self.path();
        let held = async {
            let lock = FolderLock::shared(&path).await?;
            let changing = |(table, day): (&str, i32)| DayUpdate {
                table: table.to_owned(),
                day,
                state: DayState::Provisional,
                reasons: vec![DayReason::Changing],
                figures: None,
            };
            let updates: Vec<_> = {
                let dependents = self.dependents.read();
                days.iter().flat_map(|day| dependents.with_day(table, *day)).map(changing).collect()
            };
            self.publish_where(&path, &updates, |row| row.is_some_and(|row| row.state == DayState::Final)).await?;
            anyhow::Ok(Hold::new(lock))
        };
        held.await.with_context(|| {
            format!(
                "say in {TABLE} ({}) that the days of {table} are provisional, before rows of them change. Without that, \
                 nothing is added to a day that is over. If the table cannot be read or written for good, move its folder \
                 away: silverd creates it again",
                path.display()
            )
        })
    }

    /// Says that a correction of a table is under way, until the mark is dropped.
    pub(crate) async fn mark_correction(&self, table: &str) -> anyhow::Result<CorrectionMark> {
        CorrectionMark::set(&self.path(), table).await
    }

    pub(crate) fn is_corrected(&self, table: &str) -> anyhow::Result<bool> {
        CorrectionMark::is_set(&self.path(), table)
    }

    /// Waits until no commit to a day that is over is under way; `None` if that takes longer than `timeout`.
    pub(crate) async fn lock(&self, timeout: Duration) -> anyhow::Result<Option<FolderLock>> {
        FolderLock::exclusive(&self.path(), timeout).await
    }

    /// Publishes these states in one commit. A day becomes final only with the `lock` held, since before the facts were
    /// read: without it, such updates are left out.
    pub(crate) async fn publish(&self, updates: &[DayUpdate], lock: Option<&FolderLock>) -> anyhow::Result<usize> {
        let may_finalize = lock.is_some();
        let updates: Vec<_> = updates.iter().filter(|update| may_finalize || update.state != DayState::Final).collect();
        self.publish_where(&self.path(), updates, |_| true).await.with_context(|| format!("publish in {TABLE}"))
    }

    /// Publishes those of the updates whose rows, as they are published, are to be changed.
    async fn publish_where<'u>(
        &self,
        path: &Path,
        updates: impl IntoIterator<Item = &'u DayUpdate>,
        is_changed: impl Fn(Option<&DayRow>) -> bool,
    ) -> anyhow::Result<usize> {
        let updates: Vec<&DayUpdate> = updates.into_iter().collect();
        let mut published = self.published.lock().await;
        let mut tries = 0;
        loop {
            published.refresh(path).await?;
            self.show(&published);
            let now = clock::now_micros();
            let changed = |update: &&DayUpdate| {
                let row = published.row(&update.table, update.day);
                is_changed(row).then(|| next_row(row, update, now))
            };
            let changed: Vec<DayRow> = updates.iter().filter_map(changed).collect();
            if changed.is_empty() {
                return Ok(0);
            }
            let count = changed.len();
            match published.commit(path, changed).await {
                Ok(()) => {
                    self.show(&published);
                    return Ok(count);
                }
                Err(failure) => {
                    published.forget();
                    tries += 1;
                    if tries == TRIES_MAX {
                        return Err(failure);
                    }
                    debug!("publish in {TABLE}: {failure:#}; trying again");
                }
            }
        }
    }

    /// The published rows, after those of other processes were taken in.
    pub(crate) async fn newest<T>(
        &self,
        select: impl FnOnce(&mut dyn Iterator<Item = &DayRow>) -> T,
    ) -> anyhow::Result<T> {
        let mut published = self.published.lock().await;
        published.refresh(&self.path()).await?;
        self.show(&published);
        Ok(select(&mut published.rows().values()))
    }

    fn show(&self, published: &Published) {
        *self.shown.write() = Some(published.rows().clone());
    }

    /// The rows of some days, as they were when they were read or published last.
    pub(crate) fn shown(&self, days: RangeInclusive<i32>) -> Vec<DayRow> {
        let rows = self.shown.read().clone().unwrap_or_default();
        of_days(&rows, days).cloned().collect()
    }
}

fn next_row(current: Option<&DayRow>, update: &DayUpdate, now: i64) -> DayRow {
    let new = || DayRow::new(&update.table, update.day, update.state, now);
    let mut row = current.cloned().unwrap_or_else(new);
    if row.state != update.state {
        (row.state, row.since) = (update.state, now);
    }
    row.set_reasons(&update.reasons);
    if update.state == DayState::Final {
        row.first_final_at.get_or_insert(now);
    }
    if let Some(figures) = &update.figures {
        row.complete_until = figures.complete_until;
        row.commit_version = figures.commit_version;
        row.offsets = figures.offsets.clone();
        row.late_events = figures.late_events;
    }
    row
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn ledger(path: &Path) -> DayLedger {
        let mut dependents = Dependents::default();
        dependents.add("orders", "gold.daily", 1);
        DayLedger::new(path.to_path_buf(), dependents)
    }

    fn update(table: &str, day: i32, state: DayState) -> DayUpdate {
        DayUpdate { table: table.to_owned(), day, state, reasons: Vec::new(), figures: None }
    }

    async fn states(ledger: &DayLedger) -> Vec<(String, i32, DayState)> {
        let states = ledger.newest(|rows| rows.map(|row| (row.table.clone(), row.day, row.state)).collect());
        states.await.unwrap()
    }

    async fn finalize(ledger: &DayLedger, updates: &[DayUpdate]) {
        let lock = ledger.lock(Duration::ZERO).await.unwrap();
        assert!(lock.is_some());
        ledger.publish(updates, lock.as_ref()).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_held_day_and_those_that_depend_on_it_are_provisional() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day_status");
        let (one, other) = (ledger(&path), ledger(&path));
        let days = [("orders", 5), ("orders", 6), ("gold.daily", 5), ("gold.daily", 6), ("gold.daily", 7)];
        let all: Vec<_> = days.iter().map(|(table, day)| update(table, *day, DayState::Final)).collect();
        finalize(&one, &all).await;
        // Another process holds a day.
        let hold = other.hold("orders", &BTreeSet::from([5])).await.unwrap();
        assert!(one.lock(Duration::ZERO).await.unwrap().is_none());
        let provisional = [("gold.daily", 5), ("orders", 5), ("gold.daily", 6)];
        let expected: Vec<_> = states(&one).await;
        for (table, day, state) in expected {
            assert_eq!(state == DayState::Provisional, provisional.contains(&(table.as_str(), day)), "{table} {day}");
        }
        drop(hold);
        finalize(&one, &all).await;
        assert!(states(&other).await.iter().all(|(_, _, state)| *state == DayState::Final));
    }

    /// Its entry in the log may be written later.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_day_is_held_after_its_commit_was_cancelled() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(&folder.path().join("day_status"));
        let days = BTreeSet::from([5]);
        let mut hold = ledger.hold("orders", &days).await.unwrap();
        assert_eq!(hold.commit(async { 1 }).await, 1);
        drop(hold);
        assert!(ledger.lock(Duration::ZERO).await.unwrap().is_some());
        let mut hold = ledger.hold("orders", &days).await.unwrap();
        let cancelled = tokio::time::timeout(Duration::ZERO, hold.commit(std::future::pending::<()>()));
        assert!(cancelled.await.is_err());
        drop(hold);
        assert!(ledger.lock(Duration::ZERO).await.unwrap().is_none());
    }

    /// A day that is not over by the clock, which was ahead when the day was finalized.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_final_day_is_held_after_the_clock_was_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day_status");
        let day = Zone::default().day_of(clock::now_micros()) + 2;
        finalize(&ledger(&path), &[update("orders", day, DayState::Final)]).await;
        // By a process that has read nothing yet, and by one that has.
        for table in ["views", "orders"] {
            let ledger = ledger(&path);
            for _ in 0..2 {
                let held = ledger.hold_past(table, Zone::default(), &BTreeSet::from([day])).await.unwrap();
                assert_eq!(held.is_some(), table == "orders");
                drop(held);
                finalize(&ledger, &[update("orders", day, DayState::Final)]).await;
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_final_without_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger(&folder.path().join("day_status"));
        let updates = [update("orders", 5, DayState::Final), update("orders", 6, DayState::Provisional)];
        assert_eq!(ledger.publish(&updates, None).await.unwrap(), 1);
        assert_eq!(states(&ledger).await, [("orders".to_owned(), 6, DayState::Provisional)]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn days_that_are_not_final_are_held_without_a_publication() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("day_status");
        let ledger = ledger(&path);
        let days = BTreeSet::from([5]);
        assert!(ledger.hold_past("orders", Zone::default(), &days).await.unwrap().is_some());
        assert!(ledger.hold_past("orders", Zone::default(), &BTreeSet::from([i32::MAX])).await.unwrap().is_none());
        assert!(states(&ledger).await.is_empty() && !crate::delta::is_table(&path));
    }

    #[test]
    fn a_state_lasts_since_it_changed() {
        let first = next_row(None, &update("t", 1, DayState::Final), 10);
        let same = next_row(Some(&first), &update("t", 1, DayState::Final), 20);
        let changed = next_row(Some(&same), &update("t", 1, DayState::Provisional), 30);
        let again = next_row(Some(&changed), &update("t", 1, DayState::Final), 40);
        let shown = [&first, &same, &changed, &again].map(|row| (row.since, row.first_final_at));
        assert_eq!(shown, [(10, Some(10)), (10, Some(10)), (30, Some(10)), (40, Some(10))]);
    }
}
