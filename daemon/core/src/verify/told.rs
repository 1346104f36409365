//! Findings in words: what was found, what was expected, and what to do.

use std::fmt;

use super::finding::Problem;

/// For people: what was found, what was expected, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub found: String,
    pub expected: String,
    pub help: String,
    /// Rows that differ, the first of them.
    pub examples: Vec<String>,
}

const REFILL: &str = "give the table a new path in pipeline.toml: it is filled anew from Bronze";
const RESTORE: &str = "restore the table's _delta_log from a backup, or give the table a new path in pipeline.toml (a \
                       Silver table is filled anew from Bronze, Bronze from what Kafka still has)";
const HAND: &str = "find out who writes to this table besides silverd (DESCRIBE HISTORY in Spark); go back to the version \
                    before, or give the table a new path in pipeline.toml";
const REJUDGE: &str = "if settings or reference data were others when the rows were made, a rebuild brings the rows up to \
                       them. If rows differ after a rebuild, too, the plugin does not give equal rows for equal events";
const SETTLE: &str = "if the table was removed by hand, this is its trace: the events are in Bronze, and a rebuild of their \
                      days judges them anew. Else restore its _delta_log from a backup";

impl Problem {
    pub fn tell(&self) -> Told {
        let (found, expected, help) = self.texts();
        let examples = match self {
            Self::Content { examples, .. } | Self::Rejects { examples, .. } => examples.clone(),
            _ => Vec::new(),
        };
        Told { found, expected, help: help.to_owned(), examples }
    }

    fn texts(&self) -> (String, String, &str) {
        match self {
            Self::Uncounted { .. }
            | Self::FileTwice { .. }
            | Self::LostEntries { .. }
            | Self::Unreadable { .. }
            | Self::Stranger { .. }
            | Self::Checkpoint { .. }
            | Self::Total { .. } => self.texts_of_log(),
            Self::Overlap { .. }
            | Self::Gap { .. }
            | Self::Skipped { .. }
            | Self::Progress { .. }
            | Self::Outside { .. }
            | Self::AheadOfBronze { .. }
            | Self::MoreEvents { .. } => self.texts_of_ranges(),
            Self::Unsettled { .. } | Self::Pending { .. } | Self::OtherFile { .. } | Self::Former { .. } => {
                self.texts_of_sides()
            }
            Self::Content { .. } | Self::Rejects { .. } | Self::NotCompared { .. } => self.texts_of_rows(),
            _ => self.texts_of_counts(),
        }
    }

    fn texts_of_log(&self) -> (String, String, &str) {
        match self {
            Self::LostEntries { first, last } if first == last => {
                (format!("entry {first} is not in the log"), "an entry for every version".into(), RESTORE)
            }
            Self::LostEntries { first, last } => {
                (format!("entries {first} to {last} are not in the log"), "an entry for every version".into(), RESTORE)
            }
            Self::Unreadable { why } => (why.clone(), "an entry that can be read".into(), RESTORE),
            Self::Stranger { added, removed } => (
                format!("a commit that is none of silverd's added {added} rows and removed {removed}"),
                "rows that silverd alone adds and removes (a compaction must say dataChange = false)".into(),
                HAND,
            ),
            Self::Uncounted { file } => (
                format!("file {file} does not tell its number of rows"),
                "`numRecords` in the file's statistics".into(),
                "have the other writer collect statistics, and compact the table anew",
            ),
            Self::FileTwice { file, added } => (
                format!("file {file} is {}", if *added { "added, and is there" } else { "removed, and is not there" }),
                "files that are added once, and removed once".into(),
                HAND,
            ),
            Self::Total { accounted, live } => {
                (format!("the live files have {live} rows"), format!("{accounted}, as the commits account for"), REFILL)
            }
            Self::Checkpoint { what, expected, found } => (
                format!("the checkpoint has {found} {what}"),
                format!("{expected}, as the commits up to it say"),
                "remove the checkpoint's file and _last_checkpoint: as long as all entries are there, readers need neither",
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_ranges(&self) -> (String, String, &str) {
        match self {
            Self::Overlap { expected } => (
                "offsets that an earlier commit has covered".into(),
                format!("a range that begins at {expected}"),
                REFILL,
            ),
            Self::Gap { expected } => {
                ("offsets that no commit covers".into(), format!("a range that begins at {expected}"), REFILL)
            }
            Self::Skipped { expected } => (
                "offsets that Bronze never had".into(),
                format!("a range that begins at {expected}"),
                "nothing, if `expired = \"skip\"` was set when Kafka had deleted them. Else Bronze's log was altered: \
                 restore it from a backup",
            ),
            Self::Progress { app_id, expected, found } => (
                format!("`{app_id}` is set to {}", or_none(found)),
                format!("{}, where the commit's range ends", or_none(expected)),
                RESTORE,
            ),
            Self::Outside { file } => {
                (format!("file {file} has rows of these offsets"), "rows of the commit's own ranges".into(), RESTORE)
            }
            Self::AheadOfBronze { end, bronze } => (
                format!("the table has come to {end}"),
                match bronze {
                    Some(bronze) => format!("at most {bronze}, where Bronze ends"),
                    None => "nothing: Bronze has no offset of this log".into(),
                },
                "Bronze has lost commits, or was made anew. Restore it, or give the Silver tables new paths",
            ),
            Self::MoreEvents { events, bronze } => {
                (format!("the table counts {events} events"), format!("at most {bronze}, those of Bronze"), REFILL)
            }
            _ => Default::default(),
        }
    }

    fn texts_of_counts(&self) -> (String, String, &str) {
        match self {
            Self::Events { counted, added } => {
                (format!("the commit counts {counted} events"), format!("{added}, the rows of its files"), RESTORE)
            }
            Self::MoreThanOffsets { events, offsets } => {
                (format!("the commit counts {events} events"), format!("at most {offsets}, the offsets that it covers"), RESTORE)
            }
            Self::NotConserved { counts: c } => (
                format!(
                    "{} events; {} with rows ({} rows, {} late), {} dropped, {} duplicates, {} rejected",
                    c.events, c.with_rows, c.rows, c.late, c.dropped, c.duplicates, c.rejected
                ),
                "events = with rows + dropped + duplicates + rejected; rows of each event with rows; late ones among them"
                    .into(),
                REFILL,
            ),
            Self::Rows { counted, added } => {
                (format!("the commit counts {counted} rows"), format!("{added}, the rows of its files"), REFILL)
            }
            Self::Announced { what, counted, announced } => (
                format!("the commit counts {counted} {what}"),
                format!("{}, the rows of the file that it announces", or_none(announced)),
                REFILL,
            ),
            Self::Number { app_id, expected, found } => {
                (format!("`{app_id}` is set to {}", or_none(found)), or_none(expected), RESTORE)
            }
            Self::Correction { counted, kept, added, removed, gone } => (
                format!("the correction added {added} rows and removed {gone}"),
                format!("{counted} that it made + {kept} that it kept added, {removed} removed"),
                REFILL,
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_sides(&self) -> (String, String, &str) {
        match self {
            Self::Unsettled { side, first, last, rows } => (
                format!("{rows} rows of the announcements {first} to {last} are not in the {side} table"),
                "every announced file in a commit of it".into(),
                SETTLE,
            ),
            Self::Pending { side, rows } => (
                format!("{rows} rows are announced, and wait for the {side} table's commit"),
                "the commit, a moment after the announcement".into(),
                "nothing: a silverd that runs commits them in a moment, one that was killed does at its next start",
            ),
            Self::OtherFile { side, number, announced, found } => (
                format!("the {side} table has another file for announcement {number}, or {found} rows in it"),
                format!("the file that was announced, with {announced} rows"),
                SETTLE,
            ),
            Self::Former { side, of, rows } => (
                format!("{rows} rows of the {side} table are of {of}"),
                "rows of the tables in pipeline.toml, as they stand".into(),
                "nothing: it was made anew or removed, and what it announced stays",
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_rows(&self) -> (String, String, &str) {
        match self {
            Self::Content { missing, unexpected, changed, blocks, looked_into, .. } => (
                format!(
                    "{missing} rows are missing, {unexpected} unexpected, {changed} changed{}",
                    if blocks > looked_into {
                        format!(", in the first {looked_into} of {blocks} blocks of rows that differ")
                    } else {
                        String::new()
                    }
                ),
                "the rows that the plugin makes of Bronze, with the settings and reference data of today".into(),
                REJUDGE,
            ),
            Self::Rejects { missing, unexpected, other_code, .. } => (
                format!(
                    "{missing} rejects are missing in the quarantine, {unexpected} unexpected, {other_code} of another code"
                ),
                "the events that the plugin rejects, with the settings and reference data of today".into(),
                REJUDGE,
            ),
            Self::NotCompared { digest, offsets, why } => (
                format!("{offsets} offsets were judged by plugin {digest}, {why}: not compared"),
                "the plugin that judged them".into(),
                "rebuild the table, and the plugin of today is the one that judged everything",
            ),
            _ => Default::default(),
        }
    }
}

fn or_none<T: fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}
