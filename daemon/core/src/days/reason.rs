//! Why the figures of a day may still change.

/// One reason. Times are in microseconds since the epoch, UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DayReason {
    /// Rows are being added to the day, or replaced.
    Changing,
    NotOver {
        ends_at: i64,
    },
    /// It is not known how far the table is.
    Unknown {
        partitions: usize,
    },
    /// The table has not processed all events of the day.
    Lag {
        complete_until: i64,
        offsets: i64,
    },
    /// All events are processed, and late ones may come until then.
    WaitsForLateEvents {
        until: i64,
    },
    /// Rejected events of the day wait in the quarantine.
    Quarantine {
        count: u64,
    },
    /// A rebuild or a replay of the table is under way.
    Rebuild,
    /// A source of a Gold table has no final day.
    SourceProvisional {
        table: String,
    },
    /// A source of a Gold table that has no day status: bronze, quarantine, late.
    SourceWithoutDays {
        table: String,
    },
    /// A Gold table was not computed from the newest rows of its sources.
    GoldBehind,
}

impl DayReason {
    /// The name in the column `reason`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Changing => "changing",
            Self::NotOver { .. } => "not-over",
            Self::Unknown { .. } => "unknown",
            Self::Lag { .. } => "lag",
            Self::WaitsForLateEvents { .. } => "late-events",
            Self::Quarantine { .. } => "quarantine",
            Self::Rebuild => "rebuild",
            Self::SourceProvisional { .. } => "source-provisional",
            Self::SourceWithoutDays { .. } => "source-without-days",
            Self::GoldBehind => "gold-behind",
        }
    }

    /// Whether it makes a final day provisional. What is merely not known, as after a restart, does not: each commit to a
    /// final day calls it provisional first.
    pub fn revokes(&self) -> bool {
        match self {
            Self::Changing | Self::Quarantine { .. } | Self::SourceProvisional { .. } | Self::GoldBehind => true,
            Self::NotOver { .. }
            | Self::Unknown { .. }
            | Self::Lag { .. }
            | Self::WaitsForLateEvents { .. }
            | Self::Rebuild
            | Self::SourceWithoutDays { .. } => false,
        }
    }

    /// The reason for people; `time` writes a time.
    pub fn sentence(&self, time: &dyn Fn(i64) -> String) -> String {
        match self {
            Self::Changing => "rows of the day are being added or replaced".to_owned(),
            Self::NotOver { ends_at } => format!("the day ends at {}", time(*ends_at)),
            Self::Unknown { partitions: 0 } => "silverd has not asked Kafka yet how far the topics are".to_owned(),
            Self::Unknown { partitions } => format!(
                "it is not known yet how far the table is in {}, or another silverd reads them",
                counted(*partitions as u64, "partition")
            ),
            Self::Lag { complete_until, offsets: 0 } => {
                format!("the table is complete only until {}", time(*complete_until))
            }
            Self::Lag { complete_until, offsets } => format!(
                "the table is complete only until {}: {} of its topics to process",
                time(*complete_until),
                counted((*offsets).unsigned_abs(), "offset")
            ),
            Self::WaitsForLateEvents { until } => format!("late events may come until {}", time(*until)),
            Self::Quarantine { count } => format!(
                "{} of the day in the quarantine, which `silverd quarantine replay` may turn into rows",
                counted(*count, "event")
            ),
            Self::Rebuild => "a rebuild or a replay of the table is under way".to_owned(),
            Self::SourceProvisional { table } => {
                format!("the table {table}, which it is computed from, is provisional")
            }
            Self::SourceWithoutDays { table } => {
                format!("it is computed from {table}, of which silverd does not know when a day is complete")
            }
            Self::GoldBehind => "it is not computed yet from the newest rows of its sources".to_owned(),
        }
    }
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_sentences() {
        let time = |micros: i64| format!("t{micros}");
        for (reason, expected) in [
            (DayReason::NotOver { ends_at: 5 }, "the day ends at t5"),
            (
                DayReason::Unknown { partitions: 1 },
                "it is not known yet how far the table is in 1 partition, or another silverd reads them",
            ),
            (
                DayReason::Lag { complete_until: 3, offsets: 2 },
                "the table is complete only until t3: 2 offsets of its topics to process",
            ),
            (DayReason::WaitsForLateEvents { until: 9 }, "late events may come until t9"),
            (
                DayReason::Quarantine { count: 1 },
                "1 event of the day in the quarantine, which `silverd quarantine replay` may turn into rows",
            ),
        ] {
            assert_eq!(reason.sentence(&time), expected);
        }
    }
}
