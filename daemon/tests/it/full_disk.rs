//! A disk that is full for some time: silverd says so, leaves no files behind, and goes on when there is room again.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

use super::harness::tables::data_files;
use super::harness::{Daemon, Project, SILVER, expected, verify};

/// A file system of its own for a folder, which ends with the test.
struct Disk(PathBuf);

impl Disk {
    /// `None` where the tests may not mount.
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(&at).output().unwrap();
        mount.status.success().then_some(Self(at)).or_else(|| {
            eprintln!("needs the right to mount a file system: {}", String::from_utf8_lossy(&mount.stderr).trim());
            None
        })
    }

    /// Writes a file until the disk is full, and returns it.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap();
    }
}

/// Fills the disk of a folder under a running silverd. `table` is one that cannot be written then.
fn fill(folder: &str, table: &str) {
    let project = Project::new("full-disk", "interval = \"50ms\"");
    let Some(disk) = Disk::mount(project.folder.path().join(folder)) else { return };
    project.generate(&["--count", "300", "--seed", "5"]);
    let mut daemon = Daemon::start_with_dashboard(&project);
    daemon.until("the first rows", |daemon| {
        let tables = SILVER.iter().all(|table| project.has_table(table));
        tables && project.bronze_rows() == 300 && daemon.get("/health/ready").body == "ready\n"
    });
    let filler = disk.fill();
    project.generate(&["--count", "3000", "--seed", "6"]);
    daemon.until("the reason", |daemon| {
        let ready = daemon.get("/health/ready");
        let status = if table == "bronze" { 503 } else { 200 };
        ready.status == status && ready.body.contains(table) && ready.body.contains("No space left on device")
    });
    assert!(daemon.get("/metrics").body.contains(&format!("silverd_table_up{{table=\"{table}\"}} 0")));
    let files = data_files(&project.path(table));
    let tries = daemon.count_logged("No space left on device");
    daemon.until_logged("No space left on device", tries + 3);
    assert!(data_files(&project.path(table)) <= files, "each try leaves a file");

    std::fs::remove_file(filler).unwrap();
    daemon.until("all events in bronze", |_| project.bronze_rows() == 3300);
    daemon.until("readiness", |daemon| daemon.get("/health/ready").body == "ready\n");
    daemon.stop();
    project.silverd(&["run", "--drain"]);
    expected::check(&project);
    let (report, code) = verify(project.folder.path(), &["--deep"]);
    assert_eq!(code, Some(0), "{report:#}");
}

#[test]
fn the_disk_of_all_tables_is_full() {
    fill("data", "bronze");
}

/// Bronze goes on.
#[test]
fn the_disk_of_silver_is_full() {
    fill("data/silver", "page_view");
}
