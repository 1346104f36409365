//! Delta tables, as silverd writes them: progress is a `txn` action in the commit that holds the rows.

mod commit;
mod file;
mod log;
mod read;
mod schema;
mod table;

pub use commit::{Change, CommitError, Committed};
pub use file::{Encoder, NewFile, writer_properties};
pub use log::transactions;
pub use read::{Reader, parse_day};
pub use table::{DataFile, Spec, Table, files_in, files_of, offsets_of, url_of};
