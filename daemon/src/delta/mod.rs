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
pub use history::{Span, history};
pub use log::{LogFiles, entry_path, list, transactions};
pub use read::{RowGroups, columns};
pub use reader::{Reader, parse_day};
pub use table::{DataFile, Spec, Table, files_at, files_of, offsets_of, url_of};
