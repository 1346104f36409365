//! The events that go to no table: counted by reason, with the newest one as a sample, and lines about them in the log.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrow::array::Array;
use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::unrouted::{UnroutedEvents, UnroutedReason};
use tracing::{info, warn};

/// Unrouted events are logged once in this time at most.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Characters of an event that a sample shows.
const SAMPLE_CHARS_MAX: usize = 200;

/// The unrouted events since the start, shared with whoever shows them.
#[derive(Default)]
pub(crate) struct Unrouted {
    counts: [AtomicU64; UnroutedReason::ALL.len()],
    recent: Mutex<Recent>,
}

/// One unrouted event.
#[derive(Clone, Debug)]
pub(crate) struct UnroutedSample {
    /// The beginning of its value, without control characters.
    pub(crate) text: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// When silverd read it from Kafka.
    pub(crate) ingested_at_ms: i64,
}

#[derive(Default)]
struct Recent {
    newest: Option<UnroutedSample>,
    window: Window,
}

/// The counts since a time, by which it is decided what is logged.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    events: u64,
    unrouted: u64,
    logged_at: Option<Instant>,
}

/// What is logged.
#[derive(Debug, PartialEq, Eq)]
enum Notice {
    /// There are unrouted events, such as this one.
    Sample,
    /// They are most of what arrived in a window.
    Most { events: u64, unrouted: u64 },
}

impl Unrouted {
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub(crate) fn by_reason(&self) -> impl Iterator<Item = (UnroutedReason, u64)> {
        UnroutedReason::ALL.into_iter().map(|reason| (reason, self.counts[reason as usize].load(Relaxed)))
    }

    /// The newest one, of those that are first in their chunk.
    pub(crate) fn sample(&self) -> Option<UnroutedSample> {
        self.recent.lock().newest.clone()
    }

    pub(in crate::pipeline) fn count(&self, chunk: &Chunk, unrouted: &UnroutedEvents) {
        for reason in UnroutedReason::ALL {
            self.counts[reason as usize].fetch_add(unrouted.get(reason), Relaxed);
        }
        let mut recent = self.recent.lock();
        if let Some(row) = unrouted.first_row() {
            recent.newest = Some(UnroutedSample::new(chunk, row as usize));
        }
        let notice = recent.window.add(chunk.records.num_rows() as u64, unrouted.total(), Instant::now());
        let sample = recent.newest.clone();
        drop(recent);
        if let (Some(notice), Some(sample)) = (notice, sample) {
            self.log(&notice, &sample);
        }
    }

    fn log(&self, notice: &Notice, sample: &UnroutedSample) {
        let mut reasons = String::new();
        for (reason, count) in self.by_reason().filter(|(_, count)| *count > 0) {
            let _ = write!(reasons, " {reason}={count}");
        }
        let UnroutedSample { text, topic, partition, offset, .. } = sample;
        match notice {
            Notice::Sample => info!(
                sample = text,
                topic,
                partition,
                offset,
                "some events match no table, such as this one; they are in bronze. Since the start, by reason:{reasons}"
            ),
            Notice::Most { events, unrouted } => warn!(
                events,
                unrouted,
                sample = text,
                topic,
                partition,
                offset,
                "most events of the last minute match no table: does `match` in pipeline.toml name the right field and \
                 value? They are in bronze; since the start, by reason:{reasons}"
            ),
        }
    }
}

impl Window {
    /// Adds the events of a chunk. The window ends with the first chunk that comes an interval after its start.
    fn add(&mut self, events: u64, unrouted: u64, now: Instant) -> Option<Notice> {
        let is_over = |since: Instant| now.duration_since(since) >= LOG_INTERVAL;
        self.events += events;
        self.unrouted += unrouted;
        let mut notice = (unrouted > 0 && self.logged_at.is_none_or(is_over)).then_some(Notice::Sample);
        if is_over(*self.since.get_or_insert(now)) {
            if self.unrouted * 2 > self.events {
                notice = Some(Notice::Most { events: self.events, unrouted: self.unrouted });
            }
            (self.since, self.events, self.unrouted) = (Some(now), 0, 0);
        }
        if notice.is_some() {
            self.logged_at = Some(now);
        }
        notice
    }
}

impl UnroutedSample {
    fn new(chunk: &Chunk, row: usize) -> Self {
        let values = chunk.values();
        Self {
            text: shown(values.is_valid(row).then(|| values.value(row))),
            topic: chunk.topics().value(chunk.topic_of(row)).to_owned(),
            partition: chunk.partitions()[row],
            offset: chunk.offsets()[row],
            ingested_at_ms: chunk.ingested_at().value(row) / 1000,
        }
    }
}

fn shown(value: Option<&[u8]>) -> String {
    let value = match value {
        None => return "(no value)".to_owned(),
        Some([]) => return "(an empty value)".to_owned(),
        Some(value) => value,
    };
    // A character has at most four bytes.
    let text = String::from_utf8_lossy(&value[..value.len().min(4 * (SAMPLE_CHARS_MAX + 1))]);
    let mut shown = String::new();
    for (at, character) in text.chars().enumerate() {
        match character {
            _ if at == SAMPLE_CHARS_MAX => {
                shown.push('…');
                break;
            }
            '"' | '\'' | '\\' => shown.push(character),
            // A terminal would obey a control character.
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_minute_is_logged_and_a_warning_if_most_events_are_unrouted() {
        let (mut window, start) = (Window::default(), Instant::now());
        let most = |events, unrouted| Some(Notice::Most { events, unrouted });
        for (second, events, unrouted, expected) in [
            (0, 10, 0, None),
            (1, 10, 6, Some(Notice::Sample)),
            (2, 10, 10, None),
            (59, 10, 4, None),
            (60, 0, 1, most(40, 21)),
            (61, 10, 10, None),
            (119, 10, 0, None),
            (120, 0, 0, None), // half of them
            (121, 10, 1, Some(Notice::Sample)),
            (150, 10, 9, None),
            (180, 100, 50, None),
            (181, 10, 10, Some(Notice::Sample)),
            (1_000, 1, 0, most(11, 10)),
            (1_001, 1, 1, None),
            (2_000, 1, 1, most(2, 2)), // in place of the other line
        ] {
            let found = window.add(events, unrouted, start + Duration::from_secs(second));
            assert_eq!(found, expected, "at second {second}");
        }
    }

    #[test]
    fn a_sample_is_short_and_has_no_control_characters() {
        assert_eq!(shown(None), "(no value)");
        assert_eq!(shown(Some(b"")), "(an empty value)");
        assert_eq!(shown(Some(b"{\"it's\": \"\\\\\"}")), "{\"it's\": \"\\\\\"}");
        assert_eq!(shown(Some("\u{1b}[2J\n\u{202e}é".as_bytes())), "\\u{1b}[2J\\n\\u{202e}é");
        assert_eq!(shown(Some(b"\xff\x00")), "\u{fffd}\\0");
        let long = "é".repeat(SAMPLE_CHARS_MAX);
        assert_eq!(shown(Some(long.as_bytes())), long);
        assert_eq!(shown(Some((long.clone() + "é").as_bytes())), long + "…");
    }
}
