//! Standard output of the commands. `println!` panics when the reader has gone, as in `silverd plugin history | head -1`.

use std::fmt;
use std::io::{self, ErrorKind, Write};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// The first error of a write, unless the reader had gone.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line to standard output.
macro_rules! out {
    ($($text:tt)*) => {
        $crate::runtime::out::line(format_args!($($text)*))
    };
}
pub(crate) use out;

/// Prints a line. What nobody reads is left out, and the command continues: it may change tables.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let written = writeln!(io::stdout().lock(), "{text}");
    if let Err(error) = written
        && error.kind() != ErrorKind::BrokenPipe
    {
        FAILED.lock().get_or_insert(error);
    }
}

/// Whether all was written that somebody reads.
pub(crate) fn check() -> Result<()> {
    match FAILED.lock().take() {
        Some(error) => Err(error).context("write to standard output"),
        None => Ok(()),
    }
}
