//! Delta tables, as silverd writes them: progress is a `txn` action in the commit that holds the rows.

mod commit;
mod conform;
mod file;
mod history;
mod lease;
mod lister;
mod log;
mod read;
mod reader;
mod schema;
mod state;
mod stream;
mod table;
mod widen;

pub use commit::{Change, CommitError, Committed, checkpoints_done};
pub use conform::conform;
pub use file::{Encoder, NewFile, ROW_GROUP_ROWS_MAX, writer_properties};
pub use history::{Span, history, last_plugin};
pub use lease::Lease;
pub use log::{LogFiles, entry_path, list, read_whole_checkpoint, texts, transactions};
pub use read::{RowGroups, columns};
pub use reader::Reader;
pub use state::Files;
pub use stream::FileWriter;
pub use table::{
    DataFile, LOG_FOLDER, OPENINGS_MAX, Spec, Table, days_of, files_at, files_of, info_in, log_at, offsets_of, url_of,
};
