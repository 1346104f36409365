//! What a program did to its files, as `recorder.c` has recorded it.

use std::collections::HashMap;

/// A file or a folder. An inode that is used again is another object.
pub type Object = usize;

/// The folder that was recorded.
pub const ROOT: Object = 0;

#[derive(Debug, Clone)]
pub enum Operation {
    /// Entries of folders that change together: names, and what they then lead to.
    Names(Vec<(Object, String, Option<Object>)>),
    Write {
        file: Object,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: Object,
        length: usize,
    },
    /// A file, or the entries of a folder.
    Sync(Object),
    SyncAll,
    /// What was written to standard error.
    Report(String),
}

pub struct Trace {
    pub operations: Vec<Operation>,
    pub is_folder: Vec<bool>,
    /// The last name of each object.
    pub names: Vec<String>,
}

struct Reader {
    trace: Trace,
    objects: HashMap<u64, Object>,
    /// What is in the folders now.
    entries: HashMap<(Object, String), Object>,
}

impl Trace {
    /// Reads a record of a folder with this inode, which was empty at its beginning.
    pub fn read(bytes: &[u8], root: u64) -> Self {
        let trace = Trace { operations: Vec::new(), is_folder: vec![true], names: vec![String::new()] };
        let mut reader = Reader { trace, objects: HashMap::from([(root, ROOT)]), entries: HashMap::new() };
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap();
            let line = std::str::from_utf8(&rest[..end]).unwrap();
            let (numbers, names) = line.split_once(" \"").unwrap();
            let mut numbers = numbers.split(' ');
            let operation = numbers.next().unwrap();
            let numbers: Vec<u64> = numbers.map(|number| number.parse().unwrap()).collect();
            let [a, b, offset, length] = numbers[..] else { panic!("{line}") };
            let (first, second) = names.strip_suffix('"').unwrap().split_once("\" \"").unwrap();
            let content = &rest[end + 1..][..length as usize];
            rest = &rest[end + 1 + length as usize..];
            reader.add(operation, (a, b), offset as usize, (first, second), content);
        }
        reader.trace
    }
}

impl Reader {
    fn add(&mut self, operation: &str, (a, b): (u64, u64), offset: usize, (first, second): (&str, &str), bytes: &[u8]) {
        let operation = match operation {
            "create" | "mkdir" => {
                let object = self.trace.is_folder.len();
                self.trace.is_folder.push(operation == "mkdir");
                self.trace.names.push(first.to_owned());
                self.objects.insert(b, object);
                self.names(vec![(self.objects[&a], first.to_owned(), Some(object))])
            }
            "link" => self.names(vec![(self.objects[&a], first.to_owned(), Some(self.objects[&b]))]),
            "rename" => {
                let (from, to) = (self.objects[&a], self.objects[&b]);
                let object = self.entries[&(from, first.to_owned())];
                self.names(vec![(from, first.to_owned(), None), (to, second.to_owned(), Some(object))])
            }
            "unlink" => self.names(vec![(self.objects[&a], first.to_owned(), None)]),
            "write" => Operation::Write { file: self.objects[&a], offset, bytes: bytes.to_vec() },
            "truncate" => Operation::Truncate { file: self.objects[&a], length: offset },
            "sync" => Operation::Sync(self.objects[&a]),
            "sync-all" => Operation::SyncAll,
            "report" => Operation::Report(String::from_utf8_lossy(bytes).into_owned()),
            other => panic!("{other}"),
        };
        self.trace.operations.push(operation);
    }

    fn names(&mut self, changes: Vec<(Object, String, Option<Object>)>) -> Operation {
        for (folder, name, object) in &changes {
            match object {
                Some(object) => {
                    self.trace.names[*object].clone_from(name);
                    self.entries.insert((*folder, name.clone()), *object);
                }
                None => {
                    self.entries.remove(&(*folder, name.clone()));
                }
            }
        }
        Operation::Names(changes)
    }
}
