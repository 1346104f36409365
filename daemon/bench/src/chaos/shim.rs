//! The C library that is preloaded into silverd, and makes its disk full or slow and its clock wrong.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};

const FILES: [(&str, &str); 2] = [("shim.c", include_str!("shim.c")), ("wall_clock.h", include_str!("wall_clock.h"))];

/// The compiled library.
pub(super) struct Shim {
    library: PathBuf,
    /// Files below this folder have the faults of the disk.
    data: PathBuf,
}

impl Shim {
    /// Compiles the library; `None` without a C compiler.
    pub(super) fn compile(folder: &Path, data: PathBuf) -> anyhow::Result<Option<Self>> {
        let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
        for (name, text) in FILES {
            std::fs::write(folder.join(name), text).context("write the source of the library")?;
        }
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
        let Output { status, stderr, .. } = match compiler.output() {
            Ok(output) => output,
            Err(failure) if failure.kind() == ErrorKind::NotFound => return Ok(None),
            Err(failure) => return Err(failure).context("run cc"),
        };
        ensure!(status.success(), "cc could not compile shim.c: {}", String::from_utf8_lossy(&stderr));
        std::fs::create_dir_all(&data).with_context(|| format!("create {}", data.display()))?;
        Ok(Some(Self { library, data }))
    }

    /// The environment of a process whose faults this file controls.
    pub(super) fn environment(&self, control: &Control) -> [(&'static str, PathBuf); 3] {
        [
            ("LD_PRELOAD", self.library.clone()),
            ("CHAOS_ROOT", self.data.clone()),
            ("CHAOS_CONTROL", control.path.clone()),
        ]
    }
}

/// What the library reads: three integers of 64 bits, see shim.c.
pub(super) struct Control {
    path: PathBuf,
    file: File,
}

const CLOCK_AHEAD_NS: u64 = 0;
const DELAY_US: u64 = 8;
const IS_FULL: u64 = 16;

impl Control {
    pub(super) fn create(path: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let control = Self { path, file };
        for at in [CLOCK_AHEAD_NS, DELAY_US, IS_FULL] {
            control.set(at, 0)?;
        }
        Ok(control)
    }

    /// How far the wall clock is ahead.
    pub(super) fn set_clock(&self, seconds: i64) -> anyhow::Result<()> {
        self.set(CLOCK_AHEAD_NS, seconds * 1_000_000_000)
    }

    /// What each synchronization, rename and link takes in addition.
    pub(super) fn set_delay(&self, micros: u32) -> anyhow::Result<()> {
        self.set(DELAY_US, micros.into())
    }

    pub(super) fn set_full(&self, is_full: bool) -> anyhow::Result<()> {
        self.set(IS_FULL, is_full.into())
    }

    fn set(&self, at: u64, value: i64) -> anyhow::Result<()> {
        let written = self.file.write_all_at(&value.to_ne_bytes(), at);
        written.with_context(|| format!("write {}", self.path.display()))
    }
}
