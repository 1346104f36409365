//! Explains findings to people: what was found, what was expected, and what to do.

use std::fmt;

use super::affected_file::describe_offsets;
use super::finding::{NotComparedReason, Problem};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub found: String,
    pub expected: String,
    pub help: String,
    /// The first rows that differ.
    pub examples: Vec<String>,
}

const NEW_PATH: &str = "give the table a new path in pipeline.toml: silverd fills a Silver table again from Bronze, \
                        and Bronze from what Kafka still has";
const RESTORE: &str = "restore the table's _delta_log from a backup, or give the table a new path in pipeline.toml \
                       (silverd rebuilds a Silver table from Bronze, and Bronze from what Kafka still has)";
const FOREIGN_WRITER: &str = "find out which other program writes to this table (DESCRIBE HISTORY in Spark); restore \
                              the version before it, or give the table a new path in pipeline.toml";
const REBUILD: &str = "if `match`, settings or reference data changed after the rows were written, `silverd rebuild` \
                       updates the rows. With `dedup`, another of several events with one key may have the row. If rows still differ afterwards, the plugin does not return equal rows for equal \
                       events";
const SIDE_OUTPUT: &str = "if somebody removed the table, this is the consequence: the events are in Bronze, and \
                           `silverd rebuild` of their days processes them again. Otherwise restore its _delta_log from \
                           a backup";

const WRITERS_LOST: &str = "the rows were not compared: the table's log has lost its progress, and with it which plugin \
                            wrote which offsets";

type Texts = (String, String, &'static str);

impl Problem {
    pub fn explain(&self) -> Explanation {
        let (found, expected, help) = self.texts();
        let examples = match self {
            Self::Content { examples, .. } | Self::Rejects { examples, .. } | Self::Unrouted { examples, .. } => {
                examples.clone()
            }
            _ => Vec::new(),
        };
        let help = match self {
            Self::FileMissing { file } | Self::FileSize { file, .. } | Self::FileDamaged { file, .. } => file.help(),
            Self::ForeignCommit { days, rebuilt_in: None, .. } => foreign_help(days.as_ref()),
            Self::LostProgress { owner, .. } => owner.help_with_lost_progress(),
            _ => help.to_owned(),
        };
        Explanation { found, expected, help, examples }
    }

    fn texts(&self) -> Texts {
        match self {
            Self::NoRowCount { .. }
            | Self::FileMismatch { .. }
            | Self::FileMissing { .. }
            | Self::FileSize { .. }
            | Self::FileDamaged { .. }
            | Self::LostEntries { .. }
            | Self::LostProgress { .. }
            | Self::Unreadable { .. }
            | Self::NotWritable { .. }
            | Self::OtherTimeZone { .. }
            | Self::ForeignCommit { .. }
            | Self::Checkpoint { .. }
            | Self::Total { .. } => self.texts_of_log(),
            Self::Overlap { .. }
            | Self::Gap { .. }
            | Self::Skipped { .. }
            | Self::KnownLost { .. }
            | Self::TxnMismatch { .. }
            | Self::OutsideRanges { .. }
            | Self::AheadOfBronze { .. }
            | Self::MoreEventsThanBronze { .. } => self.texts_of_ranges(),
            Self::NotPublished { .. }
            | Self::Pending { .. }
            | Self::DifferentFile { .. }
            | Self::FormerTable { .. } => self.texts_of_side_outputs(),
            Self::Content { .. } | Self::Rejects { .. } | Self::Unrouted { .. } | Self::NotCompared { .. } => {
                self.texts_of_rows()
            }
            Self::Events { .. }
            | Self::MoreEventsThanOffsets { .. }
            | Self::NotConserved { .. }
            | Self::Rows { .. }
            | Self::AnnouncedRows { .. }
            | Self::SequenceNumber { .. }
            | Self::Correction { .. } => self.texts_of_counts(),
        }
    }

    fn texts_of_log(&self) -> Texts {
        match self {
            Self::LostEntries { first, last } if first == last => {
                (format!("entry {first} is not in the log"), "an entry for every version".into(), RESTORE)
            }
            Self::LostEntries { first, last } => {
                (format!("entries {first} to {last} are not in the log"), "an entry for every version".into(), RESTORE)
            }
            Self::LostProgress { lost, .. } => (
                format!(
                    "the progress of this table is lost: its log lacks at least {lost} of the `txn` actions that hold it. \
                     Another engine has deleted them, and the commits that set them are gone"
                ),
                "a `txn` action for every log partition that the table has read, in a checkpoint or a commit".into(),
                "",
            ),
            Self::Unreadable { why } => (why.clone(), "an entry that can be read".into(), RESTORE),
            Self::NotWritable { why } => {
                let help = "switch it off in that engine, or set another `path` in pipeline.toml";
                (why.clone(), "a table that silverd can write".into(), help)
            }
            Self::OtherTimeZone { has, wanted } => (
                format!("its days are those of {has}; nothing is written to it"),
                format!("those of {wanted}, as in pipeline.toml"),
                "`silverd rebuild TABLE` moves all its rows to their days in the zone of pipeline.toml, in one commit; or set \
                 the table's `time_zone` to the one that it has",
            ),
            Self::ForeignCommit { added, removed, rebuilt_in, .. } => (
                format!(
                    "a commit of another writer added {added} rows and removed {removed}{}",
                    rebuilt_in
                        .map(|version| format!("; the rebuild in version {version} has replaced the rows of its days"))
                        .unwrap_or_default()
                ),
                "only silverd adds and removes rows (a compaction must set dataChange = false)".into(),
                "nothing: the rows are those that the plugin makes of Bronze. Find out which other program writes to this \
                 table (DESCRIBE HISTORY in Spark)",
            ),
            Self::NoRowCount { file } => (
                format!("file {file} has no row count"),
                "`numRecords` in the file's statistics".into(),
                "enable statistics in the other writer, and compact the table again",
            ),
            Self::FileMismatch { file, added } => (
                match added {
                    true => format!("file {file} is added, but it is already in the table"),
                    false => format!("file {file} is removed, but it is not in the table"),
                },
                "each file is added once, and removed at most once".into(),
                FOREIGN_WRITER,
            ),
            Self::FileMissing { file } => (
                format!("{} is not in the table's folder", file.describe()),
                "every file that the log names".into(),
                "",
            ),
            Self::FileSize { file, expected: bytes, found: 0 } => {
                (format!("{} is empty", file.describe()), format!("{bytes} bytes, as the log says"), "")
            }
            Self::FileSize { file, expected, found } => {
                (format!("{} has {found} bytes", file.describe()), format!("{expected} bytes, as the log says"), "")
            }
            Self::FileDamaged { file, why } => (
                format!("{} is damaged: {why}", file.describe()),
                "a Parquet file with the rows that the log says".into(),
                "",
            ),
            Self::Total { accounted, live } => {
                (format!("the live files have {live} rows"), format!("{accounted}, the sum over all commits"), NEW_PATH)
            }
            Self::Checkpoint { what, expected, found } => (
                format!("the checkpoint has {found} {what}"),
                format!("{expected}, as in the entries up to it"),
                "remove the checkpoint file and _last_checkpoint: as long as all entries exist, readers need neither",
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_ranges(&self) -> Texts {
        match self {
            Self::Overlap { expected } => {
                ("offsets that an earlier commit covers".into(), format!("a range that starts at {expected}"), NEW_PATH)
            }
            Self::Gap { expected } => {
                ("offsets that no commit covers".into(), format!("a range that starts at {expected}"), NEW_PATH)
            }
            Self::Skipped { expected } => (
                "offsets that Bronze never had".into(),
                format!("a range that starts at {expected}"),
                "nothing, if Kafka had deleted them and `on_data_loss = \"skip\"` was set. Otherwise Bronze's log was \
                 changed: restore it from a backup",
            ),
            Self::KnownLost { events, offsets } => (
                format!(
                    "{events} events are lost: a data file was damaged, and `silverd repair` did not find them in Kafka \
                     any more ({})",
                    describe_offsets(offsets).join(", ")
                ),
                "every record that Bronze has read".into(),
                "nothing, unless a backup has the file. Silver tables keep the rows that they had of these events, and \
                 those that come later go on without them",
            ),
            Self::TxnMismatch { app_id, expected, found } => (
                format!("`{app_id}` is set to {}", or_none(found)),
                format!("{}, the end of the commit's range", or_none(expected)),
                RESTORE,
            ),
            Self::OutsideRanges { file } => {
                (format!("file {file} has rows of these offsets"), "only rows of the commit's ranges".into(), RESTORE)
            }
            Self::AheadOfBronze { end, bronze } => (
                format!("the table's offsets end at {end}"),
                match bronze {
                    Some(bronze) => format!("at most {bronze}, the end of Bronze"),
                    None => "none: Bronze has no offset of this partition".into(),
                },
                "Bronze has lost commits, or was replaced by a new table. Restore it, or give the Silver tables new \
                 paths",
            ),
            Self::MoreEventsThanBronze { events, bronze } => (
                format!("the table counts {events} events"),
                format!("at most {bronze}, the events of Bronze"),
                NEW_PATH,
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_counts(&self) -> Texts {
        match self {
            Self::Events { counted, added } => {
                (format!("the commit counts {counted} events"), format!("{added}, the rows of its files"), RESTORE)
            }
            Self::MoreEventsThanOffsets { events, offsets } => (
                format!("the commit counts {events} events"),
                format!("at most {offsets}, the offsets that it covers"),
                RESTORE,
            ),
            Self::NotConserved { counts } => (
                format!(
                    "{} events; {} with rows ({} rows, {} late), {} dropped, {} duplicates, {} rejected",
                    counts.events,
                    counts.with_rows,
                    counts.rows,
                    counts.late,
                    counts.dropped,
                    counts.duplicates,
                    counts.rejected
                ),
                "events = with rows + dropped + duplicates + rejected; rows ≥ with rows; late ≤ with rows".into(),
                NEW_PATH,
            ),
            Self::Rows { counted, added } => {
                (format!("the commit counts {counted} rows"), format!("{added}, the rows of its files"), NEW_PATH)
            }
            Self::AnnouncedRows { what, counted, announced } => (
                format!("the commit counts {counted} {what}"),
                format!("{}, the rows of the file that it announces", or_none(announced)),
                NEW_PATH,
            ),
            Self::SequenceNumber { app_id, expected, found } => {
                (format!("`{app_id}` is set to {}", or_none(found)), or_none(expected), RESTORE)
            }
            Self::Correction { counted, kept, added, removed, removed_from_files } => (
                format!("the correction added {added} rows and removed {removed_from_files}"),
                format!("{} added ({counted} new and {kept} kept rows), {removed} removed", counted + kept),
                NEW_PATH,
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_side_outputs(&self) -> Texts {
        match self {
            Self::NotPublished { side, first, last, rows } => (
                format!("{rows} rows of the announcements {first} to {last} are not in the {side} table"),
                "every announced file is in a commit of that table".into(),
                SIDE_OUTPUT,
            ),
            Self::Pending { side, rows } => (
                format!("{rows} announced rows are not in the {side} table yet"),
                "a commit with them, shortly after the announcement".into(),
                "nothing: a running silverd commits them shortly; after a crash, it does at its next start",
            ),
            Self::DifferentFile { side, number, announced, found } => (
                format!("the {side} table has another file for announcement {number}, or {found} rows in it"),
                format!("the announced file, with {announced} rows"),
                SIDE_OUTPUT,
            ),
            Self::FormerTable { side, of, rows } => (
                format!("{rows} rows of the {side} table belong to {of}"),
                "rows of the current tables in pipeline.toml".into(),
                "nothing: that table was replaced or removed, and its rows here are kept",
            ),
            _ => Default::default(),
        }
    }

    fn texts_of_rows(&self) -> Texts {
        match self {
            Self::Content { missing, unexpected, changed, blocks, compared, .. } => (
                format!(
                    "{missing} rows are missing, {unexpected} unexpected, {changed} changed{}",
                    if blocks > compared {
                        format!(", in the first {compared} of {blocks} blocks of rows that differ")
                    } else {
                        String::new()
                    }
                ),
                "the rows that the plugin derives from Bronze with the settings and reference data that it had".into(),
                REBUILD,
            ),
            Self::Rejects { missing, unexpected, other_code, .. } => (
                format!(
                    "{missing} rejects are missing in the quarantine, {unexpected} are unexpected, {other_code} have \
                     another code"
                ),
                "the events that the plugin rejects with the settings and reference data that it had".into(),
                REBUILD,
            ),
            Self::Unrouted { missing, unexpected, other_code, .. } => (
                format!(
                    "{missing} events that no table takes are missing in the quarantine, {unexpected} are unexpected, \
                     {other_code} have another code"
                ),
                "the events of Bronze that no `match` of pipeline.toml takes".into(),
                "restore the quarantine from a backup. The events are in Bronze",
            ),
            Self::NotCompared { digest, offsets, rows, reason } => (
                match reason {
                    NotComparedReason::PluginMissing => format!(
                        "{offsets} offsets were not compared: silverd no longer has the plugin that wrote their rows, \
                         {}, or its settings and reference files",
                        or_none(digest)
                    ),
                    NotComparedReason::OtherDecoder => format!(
                        "{offsets} offsets were not compared: a silverd with another decoder read their events, for the \
                         plugin {}",
                        or_none(digest)
                    ),
                    NotComparedReason::WriterUnknown => format!(
                        "{offsets} offsets were not compared: the log does not say which plugin wrote their rows, \
                         because of a correction or a log cleanup"
                    ),
                    NotComparedReason::Replayed => format!(
                        "{} rows of {offsets} events were not compared: `quarantine replay` made them of rejects",
                        or_none(rows)
                    ),
                    NotComparedReason::FilesDamaged => {
                        format!("{offsets} offsets were not compared: files of the table or of Bronze cannot be read")
                    }
                    NotComparedReason::ProgressLost => WRITERS_LOST.into(),
                },
                match reason {
                    NotComparedReason::PluginMissing | NotComparedReason::WriterUnknown => {
                        "the plugin that wrote their rows".into()
                    }
                    NotComparedReason::Replayed => {
                        "replays that name their events, in few ranges, of a table without `dedup`".into()
                    }
                    NotComparedReason::OtherDecoder => "events that the decoder of this silverd has read".into(),
                    NotComparedReason::FilesDamaged => "files that can be read".into(),
                    NotComparedReason::ProgressLost => "a log with the table's progress".into(),
                },
                match reason {
                    NotComparedReason::PluginMissing
                    | NotComparedReason::OtherDecoder
                    | NotComparedReason::WriterUnknown
                    | NotComparedReason::Replayed
                    | NotComparedReason::ProgressLost => {
                        "`silverd rebuild` of the table, and the current plugin is the writer of all rows"
                    }
                    NotComparedReason::FilesDamaged => "see to these files first; each is reported on its own",
                },
            ),
            _ => Default::default(),
        }
    }
}

/// What to do after a commit of another writer, which has files of the days from the first to the last.
fn foreign_help(days: Option<&[String; 2]>) -> String {
    let days = days.map(|[first, last]| format!(" --from {first} --to {last}")).unwrap_or_default();
    format!(
        "find out which other program writes to this table (DESCRIBE HISTORY in Spark). If it is a Silver table, `silverd \
         rebuild TABLE{days}` makes its rows again from Bronze, and this error becomes a notice. Otherwise restore the \
         version before it, or give the table a new path in pipeline.toml"
    )
}

fn or_none<T: fmt::Display>(value: &Option<T>) -> String {
    value.as_ref().map_or_else(|| "none".to_owned(), T::to_string)
}
