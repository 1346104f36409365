//! The disks that the tables are on: what is free now, and when nothing will be.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use silverd_core::alerts::DiskSample;
use silverd_core::config::Pipeline;
use tracing::debug;

use super::store::Disks;
use crate::maintenance::{DiskSpace, disk_space};

/// One disk, named after the first table on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Disk {
    pub(super) name: String,
    folder: PathBuf,
}

/// The free bytes of the disks, with those of the last week.
pub(super) struct DiskWatch {
    disks: Vec<Disk>,
    now: BTreeMap<String, DiskSample>,
    past: Disks,
}

/// The disks of the tables and of the state folder.
pub(super) fn disks_of(pipeline: &Pipeline, base_dir: &Path) -> Vec<Disk> {
    let silver = pipeline.silver.iter().map(|table| (table.name.to_string(), &*table.path));
    let gold = pipeline.gold.iter().map(|table| (format!("gold.{}", table.name), &*table.path));
    let side =
        [("quarantine", &pipeline.quarantine.path), ("late", &pipeline.late.path), ("state", &pipeline.state.path)];
    let side = side.into_iter().map(|(name, path)| (name.to_owned(), &**path));
    let folders = [("bronze".to_owned(), &*pipeline.bronze.path)].into_iter().chain(silver).chain(gold).chain(side);
    let (mut devices, mut disks) = (Vec::new(), Vec::new());
    for (name, path) in folders {
        let Some((device, folder)) = device_of(&base_dir.join(path)) else { continue };
        if !devices.contains(&device) {
            devices.push(device);
            disks.push(Disk { name, folder });
        }
    }
    disks
}

/// The device of a folder, or of the nearest one above it that exists.
fn device_of(path: &Path) -> Option<(u64, PathBuf)> {
    path.ancestors().find_map(|folder| Some((folder.metadata().ok()?.dev(), folder.to_path_buf())))
}

impl DiskWatch {
    pub(super) fn new(past: Disks) -> Self {
        Self { disks: Vec::new(), now: BTreeMap::new(), past }
    }

    /// Watches these disks from now on.
    pub(super) fn set_disks(&mut self, disks: Vec<Disk>) {
        self.now.clear();
        self.past.retain(|name, _| disks.iter().any(|disk| disk.name == *name));
        self.disks = disks;
    }

    /// Looks at the disks; the past to store, if that has changed.
    pub(super) fn look(&mut self, now_ms: i64) -> Option<&Disks> {
        let mut is_new = false;
        for Disk { name, folder } in &self.disks {
            match disk_space(folder) {
                Ok(DiskSpace { free_bytes, total_bytes }) => {
                    let sample = DiskSample { at_ms: now_ms, free_bytes, total_bytes };
                    self.now.insert(name.clone(), sample);
                    is_new |= self.past.entry(name.clone()).or_default().add(sample);
                }
                Err(failure) => {
                    debug!("{failure:#}");
                    self.now.remove(name);
                }
            }
        }
        is_new.then_some(&self.past)
    }

    pub(super) fn free_bytes(&self, disk: &str) -> Option<u64> {
        self.now.get(disk).map(|sample| sample.free_bytes)
    }

    /// In how many days nothing is free; `None` if too little is known.
    pub(super) fn full_in_days(&self, disk: &str) -> Option<DaysLeft> {
        let (now, past) = (self.now.get(disk)?, self.past.get(disk)?);
        past.is_known(now.at_ms).then(|| DaysLeft(past.full_in_days(*now)))
    }
}

/// Days until a disk is full; `None`: it does not fill.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct DaysLeft(pub(super) Option<f64>);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::config;

    use super::*;

    #[test]
    fn tables_on_one_disk_are_one_disk() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[source]\nbrokers = \"localhost:1\"\ntopic = \"t\"";
        let pipeline = config::check(text, &|_| None).unwrap();
        let disks = disks_of(&pipeline, folder.path());
        let expected = Disk { name: "bronze".to_owned(), folder: folder.path().to_path_buf() };
        assert_eq!(disks, [expected]);
        let mut watch = DiskWatch::new(Disks::new());
        watch.set_disks(disks);
        assert!(watch.look(0).is_some(), "the first sample is stored");
        assert!(watch.look(1_000).is_none(), "and the next one an hour later");
        assert!(watch.free_bytes("bronze").is_some());
        assert_eq!(watch.full_in_days("bronze"), None, "of a second nothing follows");
    }
}
