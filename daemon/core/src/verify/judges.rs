//! Which plugin judged which offsets last, as far as a table's log can tell.
//!
//! | a commit                        | its ranges are then                                                        |
//! |---------------------------------|----------------------------------------------------------------------------|
//! | progress                        | its plugin's                                                               |
//! | `rebuild` of everything         | its plugin's                                                               |
//! | `rebuild` of some days          | still its plugin's where they were; else mixed                             |
//! | `undo` of a version             | its plugin's, if only one other plugin had a part in them; else mixed there |
//! | `replay` of the quarantine      | whose they were, with rows of its own where those were rejects             |

use std::collections::{BTreeMap, BTreeSet};

use crate::offsets::{LogPartition, OffsetRange, Ranges};

/// Who judged an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Judge {
    Plugin {
        /// Its place among [`Judges::digests`].
        id: usize,
        /// Rejects may have become rows since, by another plugin.
        replayed: bool,
    },
    /// One of several, or one whose commit was cleaned away.
    Mixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    range: OffsetRange,
    judge: Judge,
}

/// The offsets of a table, by who judged them last.
#[derive(Clone, Debug, Default)]
pub struct Judges {
    digests: Vec<String>,
    /// Ascending, without overlap.
    spans: BTreeMap<LogPartition, Vec<Span>>,
}

impl Judges {
    pub fn digests(&self) -> &[String] {
        &self.digests
    }

    pub(super) fn id(&mut self, digest: &str) -> usize {
        self.digests.iter().position(|known| known == digest).unwrap_or_else(|| {
            self.digests.push(digest.to_owned());
            self.digests.len() - 1
        })
    }

    /// New offsets, behind those that are there.
    pub(super) fn advance(&mut self, ranges: &Ranges, judge: Judge) {
        for (log, range) in ranges.iter().filter(|(_, range)| range.start < range.end) {
            let spans = match self.spans.get_mut(log) {
                Some(spans) => spans,
                None => self.spans.entry(log.clone()).or_default(),
            };
            push(spans, Span { range, judge });
        }
    }

    /// Judges what lies in `ranges` anew: `judge` says who has it then, by who had it.
    fn repaint(&mut self, ranges: &Ranges, judge: impl Fn(Judge) -> Judge) {
        for (log, wanted) in ranges.iter() {
            let Some(spans) = self.spans.get_mut(log) else { continue };
            let mut painted = Vec::with_capacity(spans.len() + 2);
            for Span { range, judge: before } in spans.iter().copied() {
                let (start, end) =
                    (wanted.start.clamp(range.start, range.end), wanted.end.clamp(range.start, range.end));
                for (from, to, judge) in
                    [(range.start, start, before), (start, end, judge(before)), (end, range.end, before)]
                {
                    if from < to {
                        push(&mut painted, Span { range: OffsetRange::new(from, to), judge });
                    }
                }
            }
            *spans = painted;
        }
    }

    /// What a correction does, by the table above. `some_days` is true of a rebuild that was bounded by days.
    pub(super) fn correct(&mut self, kind: &str, ranges: &Ranges, digest: &str, some_days: bool) {
        let id = self.id(digest);
        let own = Judge::Plugin { id, replayed: false };
        let is_own = |judge: &Judge| matches!(judge, Judge::Plugin { id: other, .. } if *other == id);
        match kind {
            "rebuild" if !some_days => self.repaint(ranges, |_| own),
            "undo" => {
                let others: BTreeSet<Judge> = self.within(ranges).filter(|judge| !is_own(judge)).collect();
                let one = others.len() <= 1 && !others.contains(&Judge::Mixed);
                self.repaint(ranges, |judge| if one || is_own(&judge) { own } else { Judge::Mixed });
            }
            "replay" => self.repaint(ranges, |judge| match judge {
                Judge::Plugin { id, .. } => Judge::Plugin { id, replayed: true },
                Judge::Mixed => Judge::Mixed,
            }),
            _ => self.repaint(ranges, |judge| if is_own(&judge) { judge } else { Judge::Mixed }),
        }
    }

    fn within(&self, ranges: &Ranges) -> impl Iterator<Item = Judge> {
        let overlaps =
            |span: &&Span, wanted: OffsetRange| span.range.start < wanted.end && wanted.start < span.range.end;
        ranges.iter().flat_map(move |(log, wanted)| {
            self.spans.get(log).into_iter().flatten().filter(move |span| overlaps(span, wanted)).map(|span| span.judge)
        })
    }

    /// Who judged an offset; `None` where the table has not come to it.
    pub fn of(&self, log: &LogPartition, offset: i64) -> Option<Judge> {
        let spans = self.spans.get(log)?;
        let at = spans.partition_point(|span| span.range.end <= offset);
        spans.get(at).filter(|span| span.range.contains(offset)).map(|span| span.judge)
    }

    /// The parts of a range, by who judged them.
    pub fn parts(&self, log: &LogPartition, range: OffsetRange) -> Vec<(OffsetRange, Judge)> {
        let spans = self.spans.get(log).map_or(&[][..], Vec::as_slice);
        let first = spans.partition_point(|span| span.range.end <= range.start);
        let within = spans[first..].iter().take_while(|span| span.range.start < range.end);
        let part = |span: &Span| {
            (OffsetRange::new(span.range.start.max(range.start), span.range.end.min(range.end)), span.judge)
        };
        within.map(part).collect()
    }

    /// All offsets, by who judged them.
    pub fn iter(&self) -> impl Iterator<Item = (&LogPartition, OffsetRange, Judge)> {
        self.spans.iter().flat_map(|(log, spans)| spans.iter().map(move |span| (log, span.range, span.judge)))
    }
}

fn push(spans: &mut Vec<Span>, span: Span) {
    match spans.last_mut() {
        Some(last) if last.judge == span.judge && last.range.end == span.range.start => last.range.end = span.range.end,
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

    /// Offsets 0..30 by plugin a, 30..60 by b, 60..90 by a again.
    fn judges() -> Judges {
        let mut judges = Judges::default();
        for (start, digest) in [(0, "a"), (10, "a"), (20, "a"), (30, "b"), (60, "a")] {
            let id = judges.id(digest);
            let end = if start < 30 { start + 10 } else { start + 30 };
            judges.advance(&ranges(start, end), Judge::Plugin { id, replayed: false });
        }
        judges
    }

    #[track_caller]
    fn check(judges: &Judges, expected: &[(i64, i64, &str)]) {
        let told = judges.iter().map(|(_, range, judge)| {
            let judge = match judge {
                Judge::Plugin { id, replayed } => {
                    format!("{}{}", judges.digests()[id], if replayed { " replayed" } else { "" })
                }
                Judge::Mixed => "mixed".to_owned(),
            };
            (range.start, range.end, judge)
        });
        let expected: Vec<_> = expected.iter().map(|(start, end, judge)| (*start, *end, (*judge).to_owned())).collect();
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn corrections_follow_the_table() {
        check(&judges(), &[(0, 30, "a"), (30, 60, "b"), (60, 90, "a")]);
        let after = |kind: &str, start: i64, end: i64, digest: &str, some_days: bool| {
            let mut judges = judges();
            judges.correct(kind, &ranges(start, end), digest, some_days);
            judges
        };
        check(&after("rebuild", 0, 70, "c", false), &[(0, 70, "c"), (70, 90, "a")]);
        check(&after("rebuild", 10, 50, "a", true), &[(0, 30, "a"), (30, 50, "mixed"), (50, 60, "b"), (60, 90, "a")]);
        check(&after("undo", 0, 90, "b", false), &[(0, 90, "b")]);
        check(&after("undo", 20, 40, "c", false), &[(0, 20, "a"), (20, 40, "mixed"), (40, 60, "b"), (60, 90, "a")]);
        check(
            &after("replay", 5, 35, "c", false),
            &[(0, 5, "a"), (5, 30, "a replayed"), (30, 35, "b replayed"), (35, 60, "b"), (60, 90, "a")],
        );
    }

    #[test]
    fn offsets_know_their_judge() {
        let judges = judges();
        let b = Judge::Plugin { id: 1, replayed: false };
        assert_eq!([29, 30, 59, 90].map(|offset| judges.of(&log(), offset) == Some(b)), [false, true, true, false]);
        let parts: Vec<_> =
            judges.parts(&log(), OffsetRange::new(25, 70)).into_iter().map(|(range, _)| range).collect();
        assert_eq!(parts, [OffsetRange::new(25, 30), OffsetRange::new(30, 60), OffsetRange::new(60, 70)]);
        assert_eq!(judges.of(&log(), 90), None);
        assert_eq!(judges.of(&LogPartition::new("c", "t", 1), 0), None);
    }
}
