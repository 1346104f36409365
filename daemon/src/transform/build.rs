//! Plugins that pipeline.toml names by their source folder: finds the wasm that cargo made of them, and makes it when it
//! is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use serde::Deserialize;
use tracing::info;

/// The target that gives a module without imports.
const TARGET: &str = "wasm32-unknown-unknown";
/// The targets under which a plugin's wasm may lie: plain cargo's, and those of `cargo component build`.
const TARGETS: [&str; 3] = [TARGET, "wasm32-wasip1", "wasm32-wasip2"];

/// The wasm of a plugin, which is a file or a source folder; a folder is built when it must be.
pub fn wasm_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    if plugin.is_file() {
        return Ok(plugin.to_path_buf());
    }
    if !plugin.exists() {
        bail!("plugin {} does not exist: expected a cargo package's folder, or a .wasm file", plugin.display());
    }
    if let Some(wasm) = super::ready::ready_made(plugin, &TARGETS) {
        return Ok(wasm);
    }
    let package = Package::of(plugin)?;
    if let Some(wasm) = package.newest_wasm()
        && package.is_fresh(&wasm)?
    {
        return Ok(wasm);
    }
    package.build()?;
    match package.newest_wasm() {
        Some(wasm) => Ok(wasm),
        None => bail!(
            "cargo built {} and left no {} under {}: its Cargo.toml needs `crate-type = [\"cdylib\"]`",
            plugin.display(),
            package.file_name(),
            package.target.display()
        ),
    }
}

/// Ends when another wasm lies where this plugin's is: a file that was replaced, or a folder that was built.
pub async fn changed(plugin: PathBuf) {
    /// Often enough for who waits for it, and seldom enough for a file system over the network.
    const LOOK_INTERVAL: Duration = Duration::from_secs(1);
    let find = move || {
        let package = if plugin.is_dir() { Some(Package::of(&plugin).ok()?) } else { None };
        Some(move || {
            let file = package.as_ref().map_or_else(|| Some(plugin.clone()), Package::newest_wasm)?;
            let metadata = file.metadata().ok()?;
            Some((file, metadata.len(), metadata.modified().ok()?))
        })
    };
    let Ok(Some(look)) = tokio::task::spawn_blocking(find).await else { return std::future::pending().await };
    let before = look();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = look();
        if now.is_some() && now != before {
            return;
        }
    }
}

/// A plugin's cargo package.
struct Package {
    folder: PathBuf,
    name: String,
    target: PathBuf,
    /// The folders of the packages that it is built from, its own first.
    sources: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    target_directory: PathBuf,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    source: Option<String>,
}

impl Package {
    fn of(folder: &Path) -> anyhow::Result<Self> {
        let folder = folder.canonicalize().with_context(|| format!("find plugin {}", folder.display()))?;
        let manifest = folder.join("Cargo.toml");
        if !manifest.is_file() {
            bail!("{} is a folder without a Cargo.toml: name a cargo package or a .wasm file", folder.display());
        }
        let output = cargo(&folder)
            .args(["metadata", "--format-version", "1", "--offline"])
            .output()
            .or_else(|_| cargo(&folder).args(["metadata", "--format-version", "1"]).output())
            .context("run cargo: is Rust installed? Without it, name a finished .wasm file in pipeline.toml")?;
        let output = if output.status.success() {
            output
        } else {
            // Not everything that it depends on has been fetched yet.
            cargo(&folder).args(["metadata", "--format-version", "1"]).output().context("run cargo metadata")?
        };
        if !output.status.success() {
            bail!("cargo metadata fails in {}:\n{}", folder.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        let metadata: Metadata = serde_json::from_slice(&output.stdout).context("read cargo's metadata")?;
        let own = metadata.packages.iter().find(|package| package.manifest_path == manifest);
        let name = own.map(|package| package.name.clone()).context("cargo does not know the package of this folder")?;
        let local = metadata.packages.iter().filter(|package| package.source.is_none());
        let mut sources: Vec<_> =
            local.filter_map(|package| Some(package.manifest_path.parent()?.to_path_buf())).collect();
        sources.push(metadata.workspace_root.join("Cargo.toml"));
        sources.push(metadata.workspace_root.join("Cargo.lock"));
        // The WIT of the shop lies beside the plugins.
        sources.push(metadata.workspace_root.join("../wit"));
        Ok(Self { folder, name, target: metadata.target_directory, sources })
    }

    fn file_name(&self) -> String {
        format!("{}.wasm", self.name.replace('-', "_"))
    }

    /// The newest of the release builds, whichever command made it.
    fn newest_wasm(&self) -> Option<PathBuf> {
        let files = TARGETS.iter().map(|target| self.target.join(target).join("release").join(self.file_name()));
        files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max().map(|(_, file)| file)
    }

    fn is_fresh(&self, wasm: &Path) -> anyhow::Result<bool> {
        let built = wasm.metadata()?.modified()?;
        let newest = self.sources.iter().filter_map(|source| newest_under(source)).max();
        Ok(newest.is_none_or(|newest| newest <= built))
    }

    fn build(&self) -> anyhow::Result<()> {
        info!(plugin = %self.name, folder = %self.folder.display(), "building plugin");
        let run = || {
            cargo(&self.folder)
                .args(["build", "--release", "--target", TARGET])
                .stdin(Stdio::null())
                .output()
                .context("run cargo: is Rust installed?")
        };
        let mut output = run()?;
        if !output.status.success() && lacks_target(&output.stderr) {
            add_target(&self.folder)?;
            output = run()?;
        }
        if !output.status.success() {
            bail!("{} does not build:\n{}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        self.touch()
    }

    /// cargo leaves a file alone that it finds up to date, though a source's time may be newer.
    fn touch(&self) -> anyhow::Result<()> {
        let wasm = self.target.join(TARGET).join("release").join(self.file_name());
        let file = std::fs::File::options().append(true).open(&wasm);
        if let Ok(file) = file {
            file.set_modified(SystemTime::now()).with_context(|| format!("touch {}", wasm.display()))?;
        }
        Ok(())
    }
}

/// A cargo that is not told by an outer cargo where to build, and with what.
fn cargo(folder: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let set_by_cargo = name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if set_by_cargo || ["CARGO_TARGET_DIR", "RUSTFLAGS", "RUSTUP_TOOLCHAIN"].contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command
}

fn lacks_target(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    text.contains("can't find crate for `core`")
        || text.contains("can't find crate for `std`")
        || text.contains("E0463")
}

/// Adds the wasm target, where rustup is there to do it.
fn add_target(folder: &Path) -> anyhow::Result<()> {
    info!("the wasm target is missing: running `rustup target add {TARGET}`");
    let added = Command::new("rustup").args(["target", "add", TARGET]).current_dir(folder).output();
    match added {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!("the wasm target is missing: run `rustup target add {TARGET}`"),
    }
}

/// The time of the newest source file in a folder, or of a file.
fn newest_under(path: &Path) -> Option<SystemTime> {
    let metadata = path.metadata().ok()?;
    if metadata.is_file() {
        return metadata.modified().ok();
    }
    let entries = std::fs::read_dir(path).ok()?.flatten();
    let entries = entries
        .filter(|entry| !["target", "cases"].iter().any(|name| entry.file_name() == *name))
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    entries.filter_map(|entry| newest_under(&entry.path())).max()
}
