//! Delta tables, as silverd writes them: progress is a `txn` action in the commit that holds the rows.

mod commit;
mod conform;
mod file;
mod history;
mod log;
mod read;
mod reader;
mod schema;
mod table;

pub use commit::{Change, CommitError, Committed, checkpoints_done};
pub use file::{Encoder, NewFile, writer_properties};
pub use history::{Span, history, last_plugin};
pub use log::{LogFiles, entry_path, list, transactions};
pub use read::{RowGroups, columns};
pub use reader::Reader;
pub use table::{DataFile, Spec, Table, days_of, files_at, files_of, info_in, log_at, offsets_of, url_of};
