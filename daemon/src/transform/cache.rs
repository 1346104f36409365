//! Compiled components, kept on the disk: a plugin is compiled once for each version of it and of wasmtime, and by a
//! process of its own, so that the compiler's memory never becomes the daemon's.
//!
//! ```text
//!   <component>-<engine>-<machine code>.cwasm
//!        │         │          └ SHA-256 of the file: one that was cut off or altered is thrown away
//!        │         └ hash of wasmtime's version and settings, and of the machine's features
//!        └ SHA-256 of what was compiled
//! ```
//!
//! Machine code is run as it is, so the folder must be the daemon's own ([`OwnFolder`]). A keyed hash would say no more:
//! who can write there can read the key, too.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, anyhow, bail};
use sha2::{Digest as _, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::host;
use crate::state::OwnFolder;

/// The hidden command of silverd that compiles.
pub const COMPILE_COMMAND: &str = "compile-plugin";
/// What the cache may hold. A plugin's machine code has some megabytes.
const FILES_MAX: usize = 64;
const BYTES_MAX: u64 = 512 << 20;
/// Leaves the processor to the events, and is still not starved by them.
const NICENESS: i32 = 10;
/// CPU seconds after which a compilation is given up; a large plugin takes one or two.
const COMPILE_SECONDS_MAX: libc::rlim_t = 120;

/// Makes machine code of components.
pub struct Compiler {
    engine: Engine,
    cache: Option<Cache>,
}

struct Cache {
    folder: OwnFolder,
    /// The program that has the command [`COMPILE_COMMAND`].
    silverd: PathBuf,
    /// Held while compiling: one at a time, and who waits for the same component finds it ready.
    busy: Mutex<()>,
}

/// Why there is no machine code.
enum Failure {
    /// The component is at fault.
    Component(anyhow::Error),
    /// The disk is, or the process.
    Cache(anyhow::Error),
}

impl Compiler {
    /// A compiler without a memory.
    pub fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone(), cache: None }
    }

    /// A compiler that keeps what it made in a folder; `silverd` is the program that does the work.
    pub fn with_cache(engine: &Engine, folder: OwnFolder, silverd: &Path) -> Self {
        let cache = Cache { folder, silverd: silverd.to_path_buf(), busy: Mutex::default() };
        Self { engine: engine.clone(), cache: Some(cache) }
    }

    /// The component, from the cache if it is there.
    pub fn component(&self, binary: &[u8]) -> anyhow::Result<Component> {
        if let Some(cache) = &self.cache {
            match cache.component(&self.engine, binary) {
                Ok(component) => return Ok(component),
                Err(Failure::Component(error)) => return Err(error),
                Err(Failure::Cache(error)) => warn!("compiling without the cache: {error:#}"),
            }
        }
        Component::from_binary(&self.engine, binary).map_err(host::foreign)
    }
}

impl Cache {
    fn component(&self, engine: &Engine, binary: &[u8]) -> Result<Component, Failure> {
        let key = key(engine, binary);
        let _one = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(component) = self.find(engine, &key).map_err(Failure::Cache)? {
            return Ok(component);
        }
        let mut fault = None;
        let put = self.folder.put(|file| {
            if let Some(refusal) = self.compile(binary, file)? {
                fault = Some(refusal);
                bail!("nothing was compiled");
            }
            Ok(format!("{key}-{}.cwasm", sha256_of(&mut file_again(file)?)?))
        });
        if let Some(fault) = fault {
            return Err(Failure::Component(anyhow!(fault)));
        }
        let name = put.map_err(Failure::Cache)?;
        self.folder.sweep(FILES_MAX, BYTES_MAX).map_err(|error| Failure::Cache(error.into()))?;
        self.load(engine, &name).map_err(Failure::Cache)
    }

    /// What was compiled before, if it is still as it was.
    fn find(&self, engine: &Engine, key: &str) -> anyhow::Result<Option<Component>> {
        for file in self.folder.files()? {
            if !file.name.starts_with(key) {
                continue;
            }
            match self.load(engine, &file.name) {
                Ok(component) => {
                    self.folder.touch(&file.name);
                    return Ok(Some(component));
                }
                Err(error) => {
                    warn!("{error:#}; it is compiled anew");
                    self.folder.remove(&file.name);
                }
            }
        }
        Ok(None)
    }

    fn load(&self, engine: &Engine, name: &str) -> anyhow::Result<Component> {
        let path = self.folder.path(name);
        let hash = sha256_of(&mut File::open(&path)?).with_context(|| format!("read {}", path.display()))?;
        if !name.ends_with(&format!("-{hash}.cwasm")) {
            bail!("{} was altered: it is not what its name says", path.display());
        }
        // SAFETY: this is what an engine of the same settings made, as its name and its hash say, and lies where nobody
        // else may write. wasmtime checks its own version and settings once more. Files here are renamed and removed,
        // and never written to.
        let component = unsafe { Component::deserialize_file(engine, &path) };
        component.map_err(host::foreign).with_context(|| format!("load {}", path.display()))
    }

    /// Lets a process of its own compile into the file. `Some` says what is wrong with the component.
    fn compile(&self, binary: &[u8], file: &File) -> anyhow::Result<Option<String>> {
        debug!(bytes = binary.len(), "compiling a plugin");
        let mut child = Command::new(&self.silverd)
            .arg(COMPILE_COMMAND)
            // Its secrets are none of the compiler's business.
            .env_clear()
            // Ctrl-C is the daemon's to answer.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {} {COMPILE_COMMAND}", self.silverd.display()))?;
        let sent = child.stdin.take().map(|mut stdin| stdin.write_all(binary));
        let output = child.wait_with_output().context("wait for the compiler")?;
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => sent.transpose().map(|_| None).context("hand the component over"),
            Some(code) if code == i32::from(REFUSED) => Ok(Some(told)),
            _ => bail!("the compiler ended by {}: {told}", output.status),
        }
    }
}

/// The exit code that says that the component is at fault.
pub const REFUSED: u8 = 3;

/// The command itself: a component in by stdin, machine code out by stdout.
pub fn compile_command() -> Result<(), (u8, String)> {
    // SAFETY: the calls take numbers and a struct that lives here; that they fail is no reason not to compile.
    unsafe {
        // A daemon that was killed needs no machine code.
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        let limit = libc::rlimit { rlim_cur: COMPILE_SECONDS_MAX, rlim_max: COMPILE_SECONDS_MAX };
        libc::setrlimit(libc::RLIMIT_CPU, &limit);
    }
    let failed = |error: anyhow::Error| (1, format!("{error:#}"));
    let mut binary = Vec::new();
    std::io::stdin().read_to_end(&mut binary).map_err(|error| failed(error.into()))?;
    let engine = host::engine().map_err(failed)?;
    let code = engine.precompile_component(&binary).map_err(|error| (REFUSED, format!("{error:#}")))?;
    std::io::stdout().write_all(&code).map_err(|error| failed(error.into()))
}

/// What a compilation depends on: the component, and everything about the engine that is in the machine code.
fn key(engine: &Engine, binary: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("{}-{:016x}", hex(&Sha256::digest(binary)), hasher.finish())
}

fn sha256_of(file: &mut File) -> anyhow::Result<String> {
    let (mut hasher, mut part) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        match file.read(&mut part)? {
            0 => return Ok(hex(&hasher.finalize())),
            read => hasher.update(&part[..read]),
        }
    }
}

/// A file that was written, from its beginning.
fn file_again(file: &File) -> anyhow::Result<File> {
    use std::io::Seek;
    let mut again = file.try_clone()?;
    again.rewind()?;
    Ok(again)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
