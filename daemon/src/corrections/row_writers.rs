//! Which plugin version wrote the rows of which events, from a table's log. The newest commit that names an event counts.
//!
//! | commit                  | the events whose rows it wrote                                | if it lacks the last key |
//! |-------------------------|---------------------------------------------------------------|--------------------------|
//! | progress                | all in `ranges`                                               |                          |
//! | `rebuild` of everything | all in `ranges`                                               |                          |
//! | `rebuild` of `days`     | in `ranges`, with a row on these days now; those in `moved`   | unknown for the others   |
//! | `undo`, `replay`        | those in `event_ranges`                                       | unknown for all          |
//!
//! A correction replaces all rows of an event or none, so the rows of an event are of one commit. After a rebuild of days,
//! those that have a row on these days are of that rebuild, or of a later commit; `moved` has the events whose rows it put on
//! other days.
//!
//! Earlier versions of silverd did not write `event_ranges` and `moved`, only the first and the last event. It is unknown
//! which version wrote the rows in between: no version is said to have. A rebuild of what a version wrote leaves them alone.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::pin::pin;

use anyhow::bail;
use deltalake_core::logstore::{LogStoreRef, get_actions};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Map, Value, json};
use silverd_core::offsets::{LogPartition, OffsetRange, Ranges};

use super::scope::read_coordinates;
use crate::bronze::read_ranges;
use crate::delta::{DataFile, PluginVersion, list_files_at, silverd_info};
use crate::tables::event_set::EventSet;

/// How many entries of the log are read at the same time.
const CONCURRENT_READS: usize = 8;
/// The ranges that a commit's info names: about 5 MB of the log. The events of a part of a quarantine are always fewer.
const RANGES_MAX: usize = 200_000;

/// The plugin versions that wrote a table's rows.
#[derive(Default)]
pub(super) struct RowWriters {
    /// Every version that the log names, with the events whose rows it wrote.
    pub(super) versions: Vec<(PluginVersion, EventSet)>,
    /// Events whose rows are of one of several versions.
    pub(super) unknown: EventSet,
    /// The events of all commits that were added, which are later than the next one.
    later: EventSet,
}

impl RowWriters {
    /// Reads the commits of these versions of a table.
    pub(super) async fn read(log: &LogStoreRef, versions: RangeInclusive<u64>) -> anyhow::Result<Self> {
        let (mut writers, mut days) = (Self::default(), EventsOfDays::new(log, *versions.end()));
        let entries = stream::iter(versions.rev()).map(|version| read_info(log, version));
        let mut entries = pin!(entries.buffered(CONCURRENT_READS));
        while let Some(info) = entries.try_next().await? {
            let on_days = match rebuilt_days(&info) {
                Some(rebuilt) => days.events_on(rebuilt).await?,
                None => EventSet::default(),
            };
            writers.add_earlier(&info, &on_days);
        }
        Ok(writers)
    }

    /// Adds the commit before those that were added, by its info. `on_days` has the events with rows on the days that it
    /// rebuilt.
    fn add_earlier(&mut self, info: &Value, on_days: &EventSet) {
        let Some(version) = version_of(info) else { return };
        let correction = &info["correction"];
        if correction.is_null() {
            return self.add(version, &EventSet::of_ranges([&read_ranges(&info["ranges"])]));
        }
        let covered = EventSet::of_ranges([&read_ranges(&correction["ranges"])]);
        match (correction["kind"].as_str(), &correction["days"]) {
            (Some("rebuild"), Value::Null) => self.add(version, &covered),
            (Some("rebuild"), _) => {
                self.add(version.clone(), &on_days.and(&covered));
                match read_event_ranges(&correction["moved"]) {
                    Some(moved) => self.add(version, &moved),
                    None => self.add_unknown(&covered),
                }
            }
            (Some("undo" | "replay"), _) => match read_event_ranges(&correction["event_ranges"]) {
                Some(events) => self.add(version, &events),
                None => self.add_unknown(&covered),
            },
            _ => self.add_unknown(&covered),
        }
    }

    fn add(&mut self, version: PluginVersion, events: &EventSet) {
        let events = self.take(events);
        match self.versions.iter_mut().find(|(known, _)| *known == version) {
            Some((_, written)) => written.merge(&events),
            None => self.versions.push((version, events)),
        }
    }

    fn add_unknown(&mut self, events: &EventSet) {
        let events = self.take(events);
        self.unknown.merge(&events);
    }

    /// Those of the events that no later commit names.
    fn take(&mut self, events: &EventSet) -> EventSet {
        let events = events.without(&self.later);
        self.later.merge(&events);
        events
    }
}

/// The version that a commit's info names.
fn version_of(info: &Value) -> Option<PluginVersion> {
    let digest = info["plugin"]["digest"].as_str()?.to_owned();
    Some(PluginVersion { digest, given: info["plugin"]["given"].as_str().map(str::to_owned) })
}

/// The days since the epoch that a commit rebuilt; `None` if it is no rebuild of some days.
fn rebuilt_days(info: &Value) -> Option<RangeInclusive<i32>> {
    let days = &info["correction"]["days"];
    let day = |at: usize| i32::try_from(days[at].as_i64()?).ok();
    Some(day(0)?..=day(1)?)
}

/// What silverd wrote into the info of a commit; null if the commit was cleaned up, or is by another writer.
async fn read_info(log: &LogStoreRef, version: u64) -> anyhow::Result<Value> {
    let Some(bytes) = log.read_commit_entry(version).await? else { return Ok(Value::Null) };
    Ok(silverd_info(get_actions(version, &bytes)?).unwrap_or_default())
}

/// The events that have rows on some days, at one version of the table. Each day is read once.
struct EventsOfDays<'l> {
    log: &'l LogStoreRef,
    version: u64,
    files: Option<BTreeMap<i32, Vec<DataFile>>>,
    events: BTreeMap<i32, EventSet>,
}

impl<'l> EventsOfDays<'l> {
    fn new(log: &'l LogStoreRef, version: u64) -> Self {
        Self { log, version, files: None, events: BTreeMap::new() }
    }

    async fn events_on(&mut self, days: RangeInclusive<i32>) -> anyhow::Result<EventSet> {
        let mut found = EventSet::default();
        if days.is_empty() {
            return Ok(found);
        }
        let files = match &mut self.files {
            Some(files) => files,
            None => self.files.insert(files_by_day(self.log, self.version).await?),
        };
        for (day, files) in files.range(days) {
            if !self.events.contains_key(day) {
                let mut events = EventSet::default();
                for file in files {
                    read_coordinates(self.log.object_store(None), file, |rows| events.insert(rows)).await?;
                }
                self.events.insert(*day, events);
            }
            found.merge(&self.events[day]);
        }
        Ok(found)
    }
}

async fn files_by_day(log: &LogStoreRef, version: u64) -> anyhow::Result<BTreeMap<i32, Vec<DataFile>>> {
    let mut files = BTreeMap::<i32, Vec<DataFile>>::new();
    for file in list_files_at(log, version).await? {
        if let Some(day) = file.day() {
            files.entry(day).or_default().push(file);
        }
    }
    Ok(files)
}

/// Exactly these events, for a commit's info: `{"cluster:topic:0": [[0, 10], [12, 13]]}`.
///
/// # Errors
///
/// If these are more ranges than an entry of the log should have.
pub(super) fn event_ranges_json(table: &str, events: &EventSet) -> anyhow::Result<Value> {
    let ranges = events.ranges();
    if ranges.len() > RANGES_MAX {
        bail!(
            "the correction is of {} separate ranges of events, which its commit has to name, and a commit names {RANGES_MAX} \
             at most; nothing was replaced. Rebuild all rows instead: `silverd rebuild {table}`",
            ranges.len()
        );
    }
    let mut json = Map::new();
    for (log, range) in ranges {
        let of_log = json.entry(log.to_string()).or_insert_with(|| json!([]));
        if let Some(of_log) = of_log.as_array_mut() {
            of_log.push(json!([range.start, range.end]));
        }
    }
    Ok(Value::Object(json))
}

/// The reverse of [`event_ranges_json`]; `None` if that is no such value.
fn read_event_ranges(json: &Value) -> Option<EventSet> {
    let mut all = Vec::new();
    for (log, ranges) in json.as_object()? {
        let log: LogPartition = log.parse().ok()?;
        for range in ranges.as_array()? {
            let (start, end) = (range[0].as_i64()?, range[1].as_i64()?);
            if start < 0 || end < start {
                return None;
            }
            all.push(Ranges::from_iter([(log.clone(), OffsetRange::new(start, end))]));
        }
    }
    Some(EventSet::of_ranges(&all))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    /// Events of the only log partition.
    fn events(ranges: &[[i64; 2]]) -> EventSet {
        let log = LogPartition::new("c", "t", 0);
        let range = |[start, end]: &[i64; 2]| Ranges::from_iter([(log.clone(), OffsetRange::new(*start, *end))]);
        EventSet::of_ranges(&ranges.iter().map(range).collect::<Vec<_>>())
    }

    fn progress(version: &str, start: i64, end: i64) -> Value {
        json!({ "ranges": { "c:t:0": [start, end] }, "plugin": { "digest": version } })
    }

    /// A correction of the events from 0 to 100, or of some of them.
    fn correction(version: &str, kind: &str, keys: Value) -> Value {
        let mut info = json!({ "correction": { "kind": kind, "ranges": { "c:t:0": [0, 100] } } });
        info["plugin"] = json!({ "digest": version });
        for (key, value) in keys.as_object().unwrap() {
            info["correction"][key] = value.clone();
        }
        info
    }

    fn named(version: &str, kind: &str, ranges: &[[i64; 2]]) -> Value {
        correction(version, kind, json!({ "event_ranges": { "c:t:0": ranges } }))
    }

    fn text(events: &EventSet) -> String {
        events.ranges().iter().map(|(_, range)| range.to_string()).collect::<Vec<_>>().join(" ")
    }

    /// The versions and their events after these commits, oldest first. Each event has one row, on the day of its tens.
    #[track_caller]
    fn check(commits: &[Value], expected: &[(&str, &str)]) {
        let mut writers = RowWriters::default();
        for info in commits.iter().rev() {
            let on_days = match rebuilt_days(info) {
                Some(days) => {
                    events(&days.map(|day| [i64::from(day) * 10, i64::from(day) * 10 + 10]).collect::<Vec<_>>())
                }
                None => EventSet::default(),
            };
            writers.add_earlier(info, &on_days);
        }
        let mut found: Vec<_> =
            writers.versions.iter().map(|(version, events)| (version.digest.clone(), text(events))).collect();
        found.push(("unknown".to_owned(), text(&writers.unknown)));
        found.retain(|(_, events)| !events.is_empty());
        found.sort();
        let expected: Vec<_> =
            expected.iter().map(|(version, events)| ((*version).to_owned(), (*events).to_owned())).collect();
        assert_eq!(found, expected);
    }

    /// Three versions, one after the other.
    fn three() -> Vec<Value> {
        vec![progress("v1", 0, 40), progress("v2", 40, 60), progress("v1", 60, 80), progress("v3", 80, 100)]
    }

    #[test]
    fn the_newest_commit_that_names_an_event_wrote_its_rows() {
        check(&three(), &[("v1", "0..40 60..80"), ("v2", "40..60"), ("v3", "80..100")]);
        let with = |corrections: &[Value]| [three(), corrections.to_vec()].concat();
        // Not the events between the first and the last one.
        let undo_v1 = named("v3", "undo", &[[0, 40], [60, 80]]);
        check(&with(std::slice::from_ref(&undo_v1)), &[("v2", "40..60"), ("v3", "0..40 60..100")]);
        let undo_v3 = named("v4", "undo", &[[0, 40], [60, 100]]);
        check(&with(&[undo_v1.clone(), undo_v3]), &[("v2", "40..60"), ("v4", "0..40 60..100")]);
        check(
            &with(&[named("v3", "replay", &[[5, 6], [45, 46]])]),
            &[("v1", "0..5 6..40 60..80"), ("v2", "40..45 46..60"), ("v3", "5..6 45..46 80..100")],
        );
        let all = correction("v5", "rebuild", json!({}));
        check(&with(&[undo_v1, all.clone()]), &[("v5", "0..100")]);
        check(&with(&[all.clone(), progress("v3", 100, 120)]), &[("v3", "100..120"), ("v5", "0..100")]);
        check(&with(&[all, named("v2", "undo", &[[7, 9]])]), &[("v2", "7..9"), ("v5", "0..7 9..100")]);
    }

    #[test]
    fn a_rebuild_of_days_wrote_the_rows_of_these_days() {
        let with = |corrections: &[Value]| [three(), corrections.to_vec()].concat();
        let days = |version: &str, first: i32, last: i32| {
            correction(version, "rebuild", json!({ "days": [first, last], "moved": {} }))
        };
        check(
            &with(&[days("v4", 3, 4)]),
            &[("v1", "0..30 60..80"), ("v2", "50..60"), ("v3", "80..100"), ("v4", "30..50")],
        );
        check(
            &with(&[days("v4", 3, 4), named("v5", "undo", &[[30, 35]]), days("v6", 4, 9)]),
            &[("v1", "0..30"), ("v4", "35..40"), ("v5", "30..35"), ("v6", "40..100")],
        );
        // Some of its rows came to other days.
        let moved = correction("v4", "rebuild", json!({ "days": [3, 3], "moved": { "c:t:0": [[71, 72]] } }));
        check(
            &with(&[moved]),
            &[("v1", "0..30 60..71 72..80"), ("v2", "40..60"), ("v3", "80..100"), ("v4", "30..40 71..72")],
        );
        // Beyond the offsets that it covers.
        check(&[progress("v1", 100, 120), days("v4", 10, 11)], &[("v1", "100..120")]);
    }

    #[test]
    fn what_earlier_versions_of_silverd_left_open_is_unknown() {
        let with = |corrections: &[Value]| [three(), corrections.to_vec()].concat();
        for kind in ["undo", "replay", "of-the-future"] {
            check(&with(&[correction("v4", kind, json!({}))]), &[("unknown", "0..100")]);
        }
        let days = correction("v4", "rebuild", json!({ "days": [3, 4] }));
        check(&with(std::slice::from_ref(&days)), &[("unknown", "0..30 50..100"), ("v4", "30..50")]);
        let all = correction("v5", "rebuild", json!({}));
        check(&with(&[days, all]), &[("v5", "0..100")]);
    }

    #[test]
    fn ranges_of_events_are_read_as_they_were_written() {
        let set = events(&[[0, 10], [12, 13], [1 << 40, (1 << 40) + 5]]);
        let json = event_ranges_json("hits", &set).unwrap();
        assert_eq!(json, json!({ "c:t:0": [[0, 10], [12, 13], [1_i64 << 40, (1_i64 << 40) + 5]] }));
        assert_eq!(text(&read_event_ranges(&json).unwrap()), text(&set));
        assert_eq!(read_event_ranges(&json!({})).unwrap().len(), 0);
        for wrong in [json!(null), json!({ "c": [[0, 1]] }), json!({ "c:t:0": [0, 1] }), json!({ "c:t:0": [[2, 1]] })] {
            assert!(read_event_ranges(&wrong).is_none(), "{wrong}");
        }
        let scattered: Vec<_> = (0..=RANGES_MAX as i64).map(|at| [at * 2, at * 2 + 1]).collect();
        let error = event_ranges_json("hits", &events(&scattered)).unwrap_err().to_string();
        assert!(error.contains("200001 separate ranges") && error.contains("`silverd rebuild hits`"), "{error}");
    }
}
