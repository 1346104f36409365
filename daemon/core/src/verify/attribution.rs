//! Attribution: which plugin wrote the rows of which offsets, as far as a table's log shows it.
//!
//! | commit                     | the writer of its ranges afterwards                                              |
//! |----------------------------|----------------------------------------------------------------------------------|
//! | progress                   | its plugin                                                                       |
//! | `rebuild` of all days      | its plugin                                                                       |
//! | the same, with progress    | its plugin, from offset 0 on                                                     |
//! | `rebuild` of some days     | its plugin where it was the writer before, otherwise mixed                       |
//! | `undo` of a version        | its plugin at exactly the offsets that the commit names                          |
//! | the same, of many ranges   | as a rebuild of some days                                                        |
//! | the same, without them     | its plugin if there was only one other writer, otherwise mixed where others were |
//! | `replay` of the quarantine | the same as before, but its plugin made the rows of the events that it names     |
//! | the same, of many ranges   | the same as before, but rejects may have become rows by its plugin               |
//! | the same, without them     | the same as before, but rejects may have become rows by its plugin               |

use std::collections::{BTreeMap, BTreeSet};

use super::entry::CorrectionKind;
use crate::offsets::{LogPartition, OffsetRange, Ranges};

/// More ranges of an undo or a replay than that are not distinguished: a deep verification reads Bronze once for each.
const EVENT_RANGES_MAX: usize = 1_000;

/// Who wrote the rows of an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Writer {
    Plugin {
        /// The index in [`Attribution::versions`].
        id: usize,
        replay: Replay,
    },
    /// One of several plugins, or a plugin whose commit is no longer in the log.
    Mixed,
}

/// What a replay of the quarantine did to the events that a plugin rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Replay {
    /// There was none.
    Never,
    /// Some may have become rows, by another plugin.
    Some,
    /// The plugin with this index in [`Attribution::versions`] accepted them.
    By(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    range: OffsetRange,
    writer: Writer,
}

/// A version of a plugin, by its digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginVersion {
    /// Of the plugin's file; empty if the commit does not say.
    pub digest: String,
    /// Of the settings and reference files that it was given. `None` in commits of older versions of silverd.
    pub given: Option<String>,
}

/// What made the rows of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lineage {
    pub plugin: PluginVersion,
    /// The version of the decoder that read the events of a typed input. `None` if the commit names none.
    pub decoder: Option<u32>,
}

/// The writers of a table's offsets.
#[derive(Clone, Debug, Default)]
pub struct Attribution {
    versions: Vec<Lineage>,
    /// In ascending order, without overlap.
    spans: BTreeMap<LogPartition, Vec<Span>>,
}

impl Attribution {
    /// All plugin versions that wrote to the table, each with the decoder that it had.
    pub fn versions(&self) -> &[Lineage] {
        &self.versions
    }

    pub(super) fn id(&mut self, version: &Lineage) -> usize {
        self.versions.iter().position(|known| known == version).unwrap_or_else(|| {
            self.versions.push(version.clone());
            self.versions.len() - 1
        })
    }

    /// Adds new offsets, after the existing ones.
    pub(super) fn extend(&mut self, ranges: &Ranges, writer: Writer) {
        for (log, range) in ranges.iter().filter(|(_, range)| range.start < range.end) {
            let spans = match self.spans.get_mut(log) {
                Some(spans) => spans,
                None => self.spans.entry(log.clone()).or_default(),
            };
            push(spans, Span { range, writer });
        }
    }

    /// Makes a version the writer of these offsets, which start at 0. They need not have had a writer.
    pub(super) fn restart(&mut self, ranges: &Ranges, version: &Lineage) {
        let writer = Writer::plugin(self.id(version));
        for (log, range) in ranges.iter().filter(|(_, range)| !range.is_empty()) {
            self.spans.insert(log.clone(), vec![Span { range, writer }]);
        }
    }

    /// Changes the writers of the offsets in `ranges`: `new_writer` gives the new writer for the previous one.
    fn reassign(&mut self, ranges: &Ranges, new_writer: impl Fn(Writer) -> Writer) {
        for (log, wanted) in ranges.iter() {
            let Some(spans) = self.spans.get_mut(log) else { continue };
            let mut reassigned = Vec::with_capacity(spans.len() + 2);
            for Span { range, writer: before } in spans.iter().copied() {
                let (start, end) =
                    (wanted.start.clamp(range.start, range.end), wanted.end.clamp(range.start, range.end));
                for (from, to, writer) in
                    [(range.start, start, before), (start, end, new_writer(before)), (end, range.end, before)]
                {
                    if from < to {
                        push(&mut reassigned, Span { range: OffsetRange::new(from, to), writer });
                    }
                }
            }
            *spans = reassigned;
        }
    }

    /// Applies an undo of exactly these events, which are within `bounds`.
    pub(super) fn undo(&mut self, events: &[(LogPartition, OffsetRange)], bounds: &Ranges, version: &Lineage) {
        if events.len() > EVENT_RANGES_MAX {
            return self.correct(CorrectionKind::Rebuild, bounds, version, true);
        }
        let own = Writer::plugin(self.id(version));
        for (log, range) in events {
            self.reassign(&Ranges::from_iter([(log.clone(), *range)]), |_| own);
        }
    }

    /// Applies a replay that accepted exactly these events, which are within `bounds`.
    pub(super) fn replay(&mut self, events: &[(LogPartition, OffsetRange)], bounds: &Ranges, version: &Lineage) {
        if events.len() > EVENT_RANGES_MAX {
            return self.correct(CorrectionKind::Replay, bounds, version, false);
        }
        let by = self.id(version);
        for (log, range) in events {
            self.reassign(&Ranges::from_iter([(log.clone(), *range)]), |writer| match writer {
                Writer::Plugin { id, .. } => Writer::Plugin { id, replay: Replay::By(by) },
                Writer::Mixed => Writer::Mixed,
            });
        }
    }

    /// Applies a correction, by the table above. `some_days` is true if the correction was limited to some days.
    pub(super) fn correct(&mut self, kind: CorrectionKind, ranges: &Ranges, version: &Lineage, some_days: bool) {
        let id = self.id(version);
        let own = Writer::plugin(id);
        let is_own = |writer: &Writer| match writer {
            Writer::Plugin { replay: Replay::By(_), .. } | Writer::Mixed => false,
            Writer::Plugin { id: other, .. } => *other == id,
        };
        match kind {
            CorrectionKind::Rebuild if !some_days => self.reassign(ranges, |_| own),
            CorrectionKind::Undo => {
                let others: BTreeSet<Writer> = self.writers_in(ranges).filter(|writer| !is_own(writer)).collect();
                let only_one = others.len() <= 1 && !others.contains(&Writer::Mixed);
                self.reassign(ranges, |writer| if only_one || is_own(&writer) { own } else { Writer::Mixed });
            }
            CorrectionKind::Replay => self.reassign(ranges, |writer| match writer {
                Writer::Plugin { id, .. } => Writer::Plugin { id, replay: Replay::Some },
                Writer::Mixed => Writer::Mixed,
            }),
            CorrectionKind::Rebuild | CorrectionKind::Unknown => {
                self.reassign(ranges, |writer| if is_own(&writer) { writer } else { Writer::Mixed });
            }
        }
    }

    fn writers_in(&self, ranges: &Ranges) -> impl Iterator<Item = Writer> {
        let overlaps =
            |span: &&Span, wanted: OffsetRange| span.range.start < wanted.end && wanted.start < span.range.end;
        ranges.iter().flat_map(move |(log, wanted)| {
            self.spans.get(log).into_iter().flatten().filter(move |span| overlaps(span, wanted)).map(|span| span.writer)
        })
    }

    /// The writer of an offset; `None` if no commit of the table covers it.
    pub fn writer_of(&self, log: &LogPartition, offset: i64) -> Option<Writer> {
        let spans = self.spans.get(log)?;
        let at = spans.partition_point(|span| span.range.end <= offset);
        spans.get(at).filter(|span| span.range.contains(offset)).map(|span| span.writer)
    }

    /// The parts of a range, with their writers.
    pub fn parts(&self, log: &LogPartition, range: OffsetRange) -> Vec<(OffsetRange, Writer)> {
        let spans = self.spans.get(log).map_or(&[][..], Vec::as_slice);
        let first = spans.partition_point(|span| span.range.end <= range.start);
        let within = spans[first..].iter().take_while(|span| span.range.start < range.end);
        let part = |span: &Span| {
            (OffsetRange::new(span.range.start.max(range.start), span.range.end.min(range.end)), span.writer)
        };
        within.map(part).collect()
    }

    /// All offsets, with their writers.
    pub fn iter(&self) -> impl Iterator<Item = (&LogPartition, OffsetRange, Writer)> {
        self.spans.iter().flat_map(|(log, spans)| spans.iter().map(move |span| (log, span.range, span.writer)))
    }
}

impl Writer {
    /// A plugin whose rejects were not replayed.
    pub(super) fn plugin(id: usize) -> Self {
        Self::Plugin { id, replay: Replay::Never }
    }
}

fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.writer == span.writer && last.range.end == span.range.start => {
            last.range.end = span.range.end
        }
        _ => spans.push(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log() -> LogPartition {
        LogPartition::new("c", "t", 0)
    }

    fn ranges(start: i64, end: i64) -> Ranges {
        Ranges::from_iter([(log(), OffsetRange::new(start, end))])
    }

    fn version(digest: &str) -> Lineage {
        Lineage { plugin: PluginVersion { digest: digest.to_owned(), given: None }, decoder: None }
    }

    /// Offsets 0..30 by plugin a, 30..60 by b, 60..90 by a again.
    fn attribution() -> Attribution {
        let mut attribution = Attribution::default();
        for (start, digest) in [(0, "a"), (10, "a"), (20, "a"), (30, "b"), (60, "a")] {
            let id = attribution.id(&version(digest));
            let end = if start < 30 { start + 10 } else { start + 30 };
            attribution.extend(&ranges(start, end), Writer::plugin(id));
        }
        attribution
    }

    #[track_caller]
    fn check(attribution: &Attribution, expected: &[(i64, i64, &str)]) {
        let found = attribution.iter().map(|(_, range, writer)| {
            let writer = match writer {
                Writer::Plugin { id, replay } => {
                    let digest = |id: usize| &attribution.versions()[id].plugin.digest;
                    match replay {
                        Replay::Never => digest(id).clone(),
                        Replay::Some => format!("{} replayed", digest(id)),
                        Replay::By(by) => format!("{} by {}", digest(id), digest(by)),
                    }
                }
                Writer::Mixed => "mixed".to_owned(),
            };
            (range.start, range.end, writer)
        });
        let expected: Vec<_> =
            expected.iter().map(|(start, end, writer)| (*start, *end, (*writer).to_owned())).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn corrections_follow_the_table() {
        check(&attribution(), &[(0, 30, "a"), (30, 60, "b"), (60, 90, "a")]);
        let after = |kind: CorrectionKind, start: i64, end: i64, digest: &str, some_days: bool| {
            let mut attribution = attribution();
            attribution.correct(kind, &ranges(start, end), &version(digest), some_days);
            attribution
        };
        check(&after(CorrectionKind::Rebuild, 0, 70, "c", false), &[(0, 70, "c"), (70, 90, "a")]);
        check(
            &after(CorrectionKind::Rebuild, 10, 50, "a", true),
            &[(0, 30, "a"), (30, 50, "mixed"), (50, 60, "b"), (60, 90, "a")],
        );
        check(&after(CorrectionKind::Undo, 0, 90, "b", false), &[(0, 90, "b")]);
        check(
            &after(CorrectionKind::Undo, 20, 40, "c", false),
            &[(0, 20, "a"), (20, 40, "mixed"), (40, 60, "b"), (60, 90, "a")],
        );
        check(
            &after(CorrectionKind::Replay, 5, 35, "c", false),
            &[(0, 5, "a"), (5, 30, "a replayed"), (30, 35, "b replayed"), (35, 60, "b"), (60, 90, "a")],
        );
    }

    #[test]
    fn an_undo_changes_the_writers_of_exactly_the_events_that_it_names() {
        let undo = |events: &[(i64, i64)]| {
            let mut attribution = attribution();
            let events: Vec<_> = events.iter().map(|(start, end)| (log(), OffsetRange::new(*start, *end))).collect();
            attribution.undo(&events, &ranges(10, 80), &version("c"));
            attribution
        };
        check(
            &undo(&[(10, 15), (60, 80)]),
            &[(0, 10, "a"), (10, 15, "c"), (15, 30, "a"), (30, 60, "b"), (60, 80, "c"), (80, 90, "a")],
        );
        check(&undo(&[]), &[(0, 30, "a"), (30, 60, "b"), (60, 90, "a")]);
        check(&undo(&[(10, 11); EVENT_RANGES_MAX + 1]), &[(0, 10, "a"), (10, 80, "mixed"), (80, 90, "a")]);
    }

    #[test]
    fn a_replay_made_the_rows_of_exactly_the_events_that_it_names() {
        let replay = |events: &[(i64, i64)]| {
            let mut attribution = attribution();
            let events: Vec<_> = events.iter().map(|(start, end)| (log(), OffsetRange::new(*start, *end))).collect();
            attribution.replay(&events, &ranges(10, 80), &version("c"));
            attribution
        };
        let replayed = replay(&[(10, 11), (29, 31)]);
        let expected = [(0, 10, "a"), (10, 11, "a by c"), (11, 29, "a"), (29, 30, "a by c"), (30, 31, "b by c")];
        check(&replayed, &[&expected[..], &[(31, 60, "b"), (60, 90, "a")]].concat());
        check(&replay(&[]), &[(0, 30, "a"), (30, 60, "b"), (60, 90, "a")]);
        check(
            &replay(&[(10, 11); EVENT_RANGES_MAX + 1]),
            &[(0, 10, "a"), (10, 30, "a replayed"), (30, 60, "b replayed"), (60, 80, "a replayed"), (80, 90, "a")],
        );
        // A later rebuild of all days makes these rows again; one of some days, those of some of them.
        let rebuilt = |some_days: bool| {
            let mut attribution = replayed.clone();
            attribution.correct(CorrectionKind::Rebuild, &ranges(0, 30), &version("a"), some_days);
            attribution
        };
        check(&rebuilt(false), &[(0, 30, "a"), (30, 31, "b by c"), (31, 60, "b"), (60, 90, "a")]);
        let expected = [(0, 10, "a"), (10, 11, "mixed"), (11, 29, "a"), (29, 30, "mixed"), (30, 31, "b by c")];
        check(&rebuilt(true), &[&expected[..], &[(31, 60, "b"), (60, 90, "a")]].concat());
    }

    #[test]
    fn writers_are_found_by_offset() {
        let attribution = attribution();
        let b = Writer::plugin(1);
        assert_eq!(
            [29, 30, 59, 90].map(|offset| attribution.writer_of(&log(), offset) == Some(b)),
            [false, true, true, false]
        );
        let parts: Vec<_> =
            attribution.parts(&log(), OffsetRange::new(25, 70)).into_iter().map(|(range, _)| range).collect();
        assert_eq!(parts, [OffsetRange::new(25, 30), OffsetRange::new(30, 60), OffsetRange::new(60, 70)]);
        assert_eq!(attribution.writer_of(&log(), 90), None);
        assert_eq!(attribution.writer_of(&LogPartition::new("c", "t", 1), 0), None);
    }
}
