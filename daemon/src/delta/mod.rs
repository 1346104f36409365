//! Delta tables as silverd reads and writes them: a commit stores the rows and, as `txn` actions, the progress they
//! stand for.

mod checkpoint;
mod commit;
mod conform;
mod constraints;
mod create;
mod damaged;
mod data_file;
mod day;
mod definition;
mod deletion_vector;
mod durable;
mod features;
mod file;
mod file_writer;
mod history;
mod local_store;
mod location;
mod log;
mod parquet_reader;
mod reader;
mod schema;
mod snapshot;
mod stats;
mod table;
mod table_files;
mod table_lock;
mod transactions;
mod widen;
mod zone;

pub(crate) use checkpoint::{action_texts, read_checkpoint, verify_checkpoint};
pub use commit::{Change, CommitError, Committed, checkpoints_done};
pub(crate) use conform::conform;
pub use create::TableSpec;
pub(crate) use damaged::move_data_file_away;
pub use data_file::DataFile;
pub(crate) use data_file::{list_days, list_files, list_files_at};
pub(crate) use day::{EVENT_DATE, day_number, format_day};
pub(crate) use deletion_vector::{DeletionVector, FileToRead};
pub(crate) use durable::{commit_interval_min, set_fsync, sync_file, sync_times};
pub(crate) use features::{NotWritable, not_writable};
pub(crate) use file::ROW_GROUP_ROWS_MAX;
pub use file::{Encoder, NewFile, writer_properties};
pub(crate) use file_writer::FileWriter;
pub(crate) use history::{
    Corrected, PluginSpan, PluginVersion, ServedVersion, last_plugin, plugin_history, serving_at,
};
pub(crate) use location::{open_log, table_url};
pub use log::{LOG_FOLDER, is_table, log_dir};
pub(crate) use log::{LogFiles, entry_path, list_log};
pub use parquet_reader::read_columns;
pub(crate) use parquet_reader::{RowGroups, batch_rows, caught, with_microseconds};
pub(crate) use reader::CommitFiles;
pub use reader::TableReader;
pub(crate) use snapshot::Snapshot;
pub use table::Table;
pub(crate) use table::silverd_info;
pub use table_files::TableFiles;
pub use table_lock::TableLock;
pub(crate) use transactions::{
    LogOffsets, LostEvents, lost_transactions, read_lost_events, read_offsets, read_transactions,
};
pub(crate) use zone::{check_zone, zone_at, zone_name_at};
