//! What a disk may hold after a power cut, in the model of ALICE (Pillai et al., OSDI 2014): what was synchronized is there;
//! of the rest, each operation may be there or not, in any combination, and a write may be cut off or have left zeros.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::trace::{Object, Operation, ROOT, Trace};

/// The bytes of a file, with their hash.
#[derive(Clone)]
pub struct Content {
    pub bytes: Rc<Vec<u8>>,
    pub hash: u64,
}

impl Content {
    fn new(bytes: Vec<u8>) -> Self {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        Self { hash: hasher.finish(), bytes: Rc::new(bytes) }
    }
}

/// The files that can be reached, by their paths; folders are `None`.
pub type Files = BTreeMap<String, Option<Content>>;

/// Equal files have equal hashes.
pub fn hash_of(files: &Files) -> u64 {
    let mut hasher = DefaultHasher::new();
    for (path, content) in files {
        (path, content.as_ref().map(|content| content.hash)).hash(&mut hasher);
    }
    hasher.finish()
}

#[derive(Clone, Default)]
pub struct Disk {
    names: BTreeMap<(Object, String), Object>,
    files: HashMap<Object, Content>,
}

/// What of an operation that was not synchronized is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Nothing,
    Whole,
    /// The first half of the bytes.
    Half,
    /// As many zeros.
    Zeros,
}

impl Disk {
    pub fn apply(&mut self, operation: &Operation, kept: Kept) {
        match operation {
            _ if kept == Kept::Nothing => {}
            Operation::Names(changes) => {
                for (folder, name, object) in changes {
                    match object {
                        Some(object) => self.names.insert((*folder, name.clone()), *object),
                        None => self.names.remove(&(*folder, name.clone())),
                    };
                }
            }
            Operation::Write { file, offset, bytes } => {
                let bytes = match kept {
                    Kept::Half => &bytes[..bytes.len() / 2],
                    Kept::Zeros => &vec![0; bytes.len()][..],
                    _ => bytes,
                };
                let mut whole = self.files.get(file).map_or_else(Vec::new, |content| content.bytes.to_vec());
                whole.resize(whole.len().max(offset + bytes.len()), 0);
                whole[*offset..offset + bytes.len()].copy_from_slice(bytes);
                self.files.insert(*file, Content::new(whole));
            }
            Operation::Truncate { file, length } => {
                let mut whole = self.files.get(file).map_or_else(Vec::new, |content| content.bytes.to_vec());
                whole.resize(*length, 0);
                self.files.insert(*file, Content::new(whole));
            }
            Operation::Sync(_) | Operation::SyncAll | Operation::Report(_) => {}
        }
    }

    pub fn tree(&self, trace: &Trace) -> Files {
        let mut tree = Files::new();
        let mut folders = vec![(ROOT, String::new())];
        while let Some((folder, path)) = folders.pop() {
            let entries = self.names.range((folder, String::new())..).take_while(|((of, _), _)| *of == folder);
            for ((_, name), object) in entries {
                let path = if path.is_empty() { name.clone() } else { format!("{path}/{name}") };
                if trace.is_folder[*object] {
                    tree.insert(path.clone(), None);
                    folders.push((*object, path));
                } else {
                    let content = self.files.get(object).cloned().unwrap_or_else(|| Content::new(Vec::new()));
                    tree.insert(path, Some(content));
                }
            }
        }
        tree
    }
}

/// The operations up to a moment: the disk as far as it was synchronized, and what is pending.
#[derive(Clone, Default)]
pub struct Moment {
    pub durable: Disk,
    pub pending: Vec<usize>,
}

impl Moment {
    /// Takes in the next operation. A synchronization for which `counts` is false has no effect.
    pub fn advance(&mut self, trace: &Trace, at: usize, counts: bool) {
        let is_durable = |pending: &usize| match (&trace.operations[at], &trace.operations[*pending]) {
            (Operation::SyncAll, _) => true,
            (Operation::Sync(object), Operation::Write { file, .. } | Operation::Truncate { file, .. }) => {
                object == file
            }
            (Operation::Sync(object), Operation::Names(changes)) => changes.iter().any(|(folder, ..)| folder == object),
            _ => false,
        };
        match &trace.operations[at] {
            Operation::Names(_) | Operation::Write { .. } | Operation::Truncate { .. } => self.pending.push(at),
            Operation::Sync(_) | Operation::SyncAll if counts => {
                let (done, pending): (Vec<usize>, Vec<usize>) = self.pending.iter().copied().partition(is_durable);
                for operation in done {
                    self.durable.apply(&trace.operations[operation], Kept::Whole);
                }
                self.pending = pending;
            }
            Operation::Sync(_) | Operation::SyncAll | Operation::Report(_) => {}
        }
    }

    /// The disk if these of the pending operations are on it.
    pub fn disk(&self, trace: &Trace, kept: impl Fn(usize) -> Kept) -> Disk {
        let mut disk = self.durable.clone();
        for operation in &self.pending {
            disk.apply(&trace.operations[*operation], kept(*operation));
        }
        disk
    }
}

#[test]
fn what_is_synchronized_stays_and_the_rest_may_be_lost() {
    let file = |object| vec![(ROOT, format!("f{object}"), Some(object))];
    let write = |file, bytes: &[u8]| Operation::Write { file, offset: 0, bytes: bytes.to_vec() };
    let operations = vec![
        Operation::Names(file(1)),
        write(1, b"abcd"),
        Operation::Sync(1),
        Operation::Names(file(2)),
        write(2, b"efgh"),
        Operation::Sync(ROOT),
    ];
    let trace = Trace { operations, is_folder: vec![true, false, false], names: vec![String::new(); 3] };
    let texts = |moment: &Moment, kept: Kept| -> Vec<(String, Vec<u8>)> {
        let tree = moment.disk(&trace, |_| kept).tree(&trace);
        tree.into_iter().map(|(path, content)| (path, content.unwrap().bytes.to_vec())).collect()
    };
    let found = |names: &[(&str, &[u8])]| -> Vec<(String, Vec<u8>)> {
        names.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect()
    };
    let mut moment = Moment::default();
    (0..5).for_each(|at| moment.advance(&trace, at, true));
    assert_eq!(moment.pending, [0, 3, 4]);
    assert_eq!(texts(&moment, Kept::Nothing), []);
    assert_eq!(texts(&moment, Kept::Half), found(&[("f1", b"abcd"), ("f2", b"ef")]));
    moment.advance(&trace, 5, true);
    assert_eq!(texts(&moment, Kept::Nothing), found(&[("f1", b"abcd"), ("f2", b"")]));
    assert_eq!(texts(&moment, Kept::Zeros), found(&[("f1", b"abcd"), ("f2", b"\0\0\0\0")]));
}
