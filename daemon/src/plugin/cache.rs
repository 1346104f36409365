//! The cache of compiled plugins on disk. A plugin is compiled once for each version of wasmtime, in a separate
//! process, so that the daemon never holds the compiler's memory.
//!
//! ```text
//!   <component>-<engine>-<machine code>.cwasm
//!        │         │          └ SHA-256 of the file: a truncated or altered file is discarded
//!        │         └ hash of wasmtime's version and settings, and of the machine's features
//!        └ SHA-256 of the component that was compiled
//! ```
//!
//! Machine code runs unchecked, so only the daemon's user may write to the folder ([`StateDir`]). A keyed hash would
//! add nothing: whoever can write there can also read the key.

use std::collections::BTreeSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow, bail};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tracing::{debug, warn};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::engine::{engine, to_anyhow};
use crate::runtime::state_dir::StateDir;

/// The hidden command of silverd that compiles.
pub const COMPILE_COMMAND: &str = "compile-plugin";
/// Limits of the cache. The machine code of a plugin has a few megabytes.
const FILES_MAX: usize = 64;
const BYTES_MAX: u64 = 512 << 20;
/// Events have priority over a compilation, but cannot starve it.
const NICENESS: i32 = 5;
/// A compilation is stopped after so many CPU seconds; a large plugin takes one or two.
const COMPILE_SECONDS_MAX: libc::rlim_t = 120;

/// The exit code of the compiler if the component is invalid.
const INVALID_COMPONENT: u8 = 3;

/// Compiles components to machine code.
pub(super) struct Compiler {
    engine: Engine,
    cache: Option<Cache>,
}

struct Cache {
    folder: StateDir,
    /// The program that has the command [`COMPILE_COMMAND`].
    silverd: PathBuf,
    /// Held during a compilation: one runs at a time, and a thread that waits for the same component finds it compiled.
    compiling: Mutex<()>,
}

enum CacheError {
    /// The component is invalid.
    Component(anyhow::Error),
    /// The disk or the compiler process failed.
    Cache(anyhow::Error),
}

impl Compiler {
    /// A compiler without a cache.
    pub(super) fn new(engine: &Engine) -> Self {
        Self { engine: engine.clone(), cache: None }
    }

    /// A compiler that keeps machine code in a folder, and runs the program `silverd` to compile.
    pub(super) fn with_cache(engine: &Engine, folder: StateDir, silverd: &Path) -> Self {
        let cache = Cache { folder, silverd: silverd.to_path_buf(), compiling: Mutex::default() };
        Self { engine: engine.clone(), cache: Some(cache) }
    }

    /// The compiled component, from the cache if possible.
    pub(super) fn component(&self, binary: &[u8]) -> anyhow::Result<Component> {
        if let Some(cache) = &self.cache {
            match cache.component(&self.engine, binary) {
                Ok(component) => return Ok(component),
                Err(CacheError::Component(error)) => return Err(error),
                Err(CacheError::Cache(error)) => warn!("compiling without the cache: {error:#}"),
            }
        }
        Component::from_binary(&self.engine, binary).map_err(to_anyhow)
    }
}

impl Cache {
    fn component(&self, engine: &Engine, binary: &[u8]) -> Result<Component, CacheError> {
        let key = key(engine, binary);
        let _compiling = self.compiling.lock();
        if let Some(component) = self.find(engine, &key).map_err(CacheError::Cache)? {
            return Ok(component);
        }
        let mut invalid = None;
        let put = self.folder.put(|file| {
            if let Some(reason) = self.compile(binary, file)? {
                invalid = Some(reason);
                bail!("nothing was compiled");
            }
            Ok(format!("{key}-{}.cwasm", sha256_of(&mut rewound(file)?)?))
        });
        if let Some(reason) = invalid {
            return Err(CacheError::Component(anyhow!(reason)));
        }
        let name = put.map_err(CacheError::Cache)?;
        self.folder.evict(FILES_MAX, BYTES_MAX, || Ok(BTreeSet::new())).map_err(CacheError::Cache)?;
        self.load(engine, &name).map_err(CacheError::Cache)
    }

    /// The component from the cache. Altered files are removed.
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
                    warn!("{error:#}; compiling it again");
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
            bail!("{} was altered: its hash is not the one in its name", path.display());
        }
        // SAFETY: an engine with the same settings produced this file, as its name and its hash confirm, and nobody
        // else can write to the folder. wasmtime checks its own version and settings again. Files in the folder are
        // renamed and removed, but never written to.
        let component = unsafe { Component::deserialize_file(engine, &path) };
        component.map_err(to_anyhow).with_context(|| format!("load {}", path.display()))
    }

    /// Compiles into the file, in a separate process. Returns what is wrong with the component; `None` if it was
    /// compiled.
    fn compile(&self, binary: &[u8], file: &File) -> anyhow::Result<Option<String>> {
        debug!(bytes = binary.len(), "compiling a plugin");
        let mut child = Command::new(&self.silverd)
            .arg(COMPILE_COMMAND)
            // The compiler does not need the daemon's secrets.
            .env_clear()
            // Ctrl-C is for the daemon alone.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {} {COMPILE_COMMAND}", self.silverd.display()))?;
        let sent = child.stdin.take().map(|mut stdin| stdin.write_all(binary));
        let output = child.wait_with_output().context("wait for the compiler")?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        match output.status.code() {
            Some(0) => sent.transpose().map(|_| None).context("send the component to the compiler"),
            Some(code) if code == i32::from(INVALID_COMPONENT) => Ok(Some(message)),
            _ => bail!("the compiler failed with {}: {message}", output.status),
        }
    }
}

/// The hidden command [`COMPILE_COMMAND`]: reads a component from stdin, and writes machine code to stdout. An error is
/// the exit code and the message.
pub(crate) fn compile_command() -> Result<(), (u8, String)> {
    // SAFETY: the calls take numbers, and a pointer to a local struct. If they fail, the compilation only runs without
    // limits.
    unsafe {
        // End together with the daemon.
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS);
        let limit = libc::rlimit { rlim_cur: COMPILE_SECONDS_MAX, rlim_max: COMPILE_SECONDS_MAX };
        libc::setrlimit(libc::RLIMIT_CPU, &limit);
    }
    let failed = |error: anyhow::Error| (1, format!("{error:#}"));
    let mut binary = Vec::new();
    std::io::stdin().read_to_end(&mut binary).map_err(|error| failed(error.into()))?;
    let engine = engine().map_err(failed)?;
    let code = engine.precompile_component(&binary).map_err(|error| (INVALID_COMPONENT, format!("{error:#}")))?;
    std::io::stdout().write_all(&code).map_err(|error| failed(error.into()))
}

/// Everything that the machine code depends on: the component, and the version and settings of the engine.
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

/// A file that was just written, to be read from its beginning.
fn rewound(file: &File) -> anyhow::Result<File> {
    let mut file = file.try_clone()?;
    file.rewind()?;
    Ok(file)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
