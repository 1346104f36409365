//! What silverd finds of a table after a power cut.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::AsArray;
use arrow::datatypes::{Int32Type, Int64Type};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use silverd::delta::Table;
use tokio::runtime::Runtime;

use super::disk::{Files, hash_of};

/// A table of the run.
pub struct CheckedTable {
    pub name: &'static str,
    /// The path of its folder in the recorded one.
    pub folder: &'static str,
    /// The columns with the place of an event; a table without them is only opened and read.
    pub place: Option<[&'static str; 2]>,
}

/// How many rows each event has, by partition and offset.
pub type Rows = BTreeMap<(i32, i64), usize>;

/// A table that was opened.
struct Opened {
    version: u64,
    /// The next offset of each partition.
    next: BTreeMap<i32, i64>,
    rows: Rows,
}

/// What was found of a table.
#[derive(Clone, Debug)]
pub enum Found {
    Nothing,
    Table { version: u64 },
    Failed(String),
}

pub struct Recovery {
    folder: tempfile::TempDir,
    runtime: Runtime,
    /// The rows of each event at the end of the run.
    expected: HashMap<&'static str, Rows>,
    known: HashMap<(&'static str, u64), Found>,
    rows_of_files: HashMap<u64, Result<Rows, String>>,
    contents: HashSet<u64>,
    pub opened: usize,
}

impl Recovery {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("contents")).unwrap();
        Self {
            folder,
            runtime: Runtime::new().unwrap(),
            expected: HashMap::new(),
            known: HashMap::new(),
            rows_of_files: HashMap::new(),
            contents: HashSet::new(),
            opened: 0,
        }
    }

    /// Takes the rows that a table has at the end of the run for right.
    pub fn expect(&mut self, table: &CheckedTable, files: &Files) {
        let folder = self.lay_out(files);
        let opened = self.open(table, &folder, files).unwrap().unwrap();
        fs::remove_dir_all(folder).unwrap();
        self.expected.insert(table.name, opened.rows);
    }

    /// Opens a table as a daemon does at its start, and compares its rows with those of the run.
    pub fn find(&mut self, table: &CheckedTable, files: &Files) -> Found {
        let key = (table.name, hash_of(files));
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let folder = self.lay_out(files);
        self.opened += 1;
        let found = match self.open(table, &folder, files) {
            Ok(None) => Found::Nothing,
            Err(failure) => Found::Failed(failure),
            Ok(Some(opened)) => match self.compare(table, &opened) {
                Ok(()) => Found::Table { version: opened.version },
                Err(difference) => Found::Failed(format!("version {}: {difference}", opened.version)),
            },
        };
        fs::remove_dir_all(folder).unwrap();
        self.known.insert(key, found.clone());
        found
    }

    /// Each event below the next offset has its rows, and no other one has any.
    fn compare(&self, table: &CheckedTable, Opened { next, rows, .. }: &Opened) -> Result<(), String> {
        if table.place.is_none() {
            return Ok(());
        }
        let is_stored = |(partition, offset): &(i32, i64)| *offset < next.get(partition).copied().unwrap_or(0);
        let mut expected = self.expected[table.name].clone();
        expected.retain(|place, _| is_stored(place));
        if *rows == expected {
            return Ok(());
        }
        let differs = expected.keys().chain(rows.keys()).find(|place| expected.get(place) != rows.get(place)).unwrap();
        Err(format!("event {differs:?} has {:?} rows, not {:?}", rows.get(differs), expected.get(differs)))
    }

    /// Writes the files; equal ones are links to one.
    fn lay_out(&mut self, files: &Files) -> PathBuf {
        let folder = self.folder.path().join("table");
        fs::create_dir(&folder).unwrap();
        for (path, content) in files {
            let path = folder.join(path);
            let Some(content) = content else {
                fs::create_dir(path).unwrap();
                continue;
            };
            let stored = self.folder.path().join("contents").join(content.hash.to_string());
            if self.contents.insert(content.hash) {
                fs::write(&stored, &*content.bytes).unwrap();
            }
            fs::hard_link(stored, path).unwrap();
        }
        folder
    }

    fn open(&mut self, table: &CheckedTable, folder: &Path, files: &Files) -> Result<Option<Opened>, String> {
        let opened = self.runtime.block_on(Table::open_existing(table.name, folder.to_path_buf()));
        let Some((opened, listed)) = opened.map_err(|failure| format!("{failure:#}"))? else { return Ok(None) };
        let next = opened.offsets().into_iter().map(|(log, next)| (log.partition, next)).collect();
        let mut rows = Rows::new();
        for file in listed {
            let path = file.path.to_string();
            let Some(Some(content)) = files.get(&path) else { return Err(format!("{path} is missing")) };
            let of_file = self.rows_of_files.entry(content.hash).or_insert_with(|| rows_of(&content.bytes, table));
            for (place, count) in of_file.as_ref().map_err(|failure| format!("{path}: {failure}"))? {
                *rows.entry(*place).or_default() += count;
            }
        }
        Ok(Some(Opened { version: opened.version(), next, rows }))
    }
}

fn rows_of(bytes: &[u8], table: &CheckedTable) -> Result<Rows, String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::copy_from_slice(bytes)).map_err(|e| e.to_string())?;
    let [partition, offset] = table.place.unwrap_or(["partition", "offset"]);
    // All columns are read, so that damage in any of them is found.
    let reader = builder.with_batch_size(8_192).build().map_err(|e| e.to_string())?;
    let mut rows = Rows::new();
    for batch in reader {
        let batch = batch.map_err(|e| e.to_string())?;
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("no column {name}"));
        let partitions = column(partition)?.as_primitive::<Int32Type>();
        let offsets = column(offset)?.as_primitive::<Int64Type>();
        for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
            *rows.entry((*partition, *offset)).or_default() += 1;
        }
    }
    Ok(rows)
}
