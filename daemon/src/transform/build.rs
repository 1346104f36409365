//! Plugins that pipeline.toml names by their source folder: finds the wasm that cargo made of them, and makes it when it
//! is missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, bail};
use serde::Deserialize;
use tracing::{info, warn};

use super::ready;

/// The target that gives a module without imports.
const TARGET: &str = "wasm32-unknown-unknown";
/// The targets under which a plugin's wasm may lie: plain cargo's, and those of `cargo component build`.
const TARGETS: [&str; 3] = [TARGET, "wasm32-wasip1", "wasm32-wasip2"];

/// `cargo component build` without `--release` makes a plugin, too; a slow one.
const PROFILES: [&str; 2] = ["release", "debug"];

/// The folders of a target folder in which a plugin's wasm may lie.
pub(super) fn builds(target: PathBuf) -> impl Iterator<Item = PathBuf> {
    let targets = TARGETS.iter().map(move |of| target.join(of));
    targets.flat_map(|of| PROFILES.map(|profile| of.join(profile)))
}

/// The newest of the builds, whichever command made it.
pub(super) fn newest(folders: impl Iterator<Item = PathBuf>, name: &str) -> Option<PathBuf> {
    let files = folders.map(|folder| folder.join(name));
    files.filter_map(|file| Some((file.metadata().ok()?.modified().ok()?, file))).max().map(|(_, file)| file)
}

/// The wasm of a plugin, which is a file or a source folder; a folder is built when it must be.
pub fn wasm_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    if !plugin.exists() {
        bail!("plugin {} does not exist: expected a cargo package's folder, or a .wasm file", plugin.display());
    }
    match Place::of(plugin)? {
        Place::Package(package) => package.wasm(),
        place => place.wasm().with_context(|| format!("{} is gone", plugin.display())),
    }
}

/// Where a plugin's wasm lies, for who looks at it again and again. Nothing is built.
pub enum Place {
    File(PathBuf),
    /// Where there is no cargo.
    Ready(PathBuf),
    Package(Box<Package>),
}

impl Place {
    /// Asks cargo, where the plugin is a package.
    pub fn of(plugin: &Path) -> anyhow::Result<Self> {
        let named_as_file = plugin.extension().is_some_and(|extension| extension == "wasm");
        if plugin.is_file() || named_as_file {
            return Ok(Place::File(plugin.to_path_buf()));
        }
        match ready::ready_made(plugin) {
            Some(_) => Ok(Place::Ready(plugin.to_path_buf())),
            None => Package::of(plugin).map(|package| Place::Package(Box::new(package))),
        }
    }

    /// The wasm that lies there now.
    pub fn wasm(&self) -> Option<PathBuf> {
        match self {
            Place::File(file) => Some(file.clone()),
            Place::Ready(folder) => ready::ready_made(folder),
            Place::Package(package) => package.newest_wasm(),
        }
    }

    /// The folders in which another one would appear, if they are there.
    pub fn folders(&self) -> Vec<PathBuf> {
        match self {
            Place::File(file) => file.parent().map(Path::to_path_buf).into_iter().collect(),
            Place::Ready(folder) => ready::targets(folder).flat_map(builds).collect(),
            Place::Package(package) => builds(package.target.clone()).collect(),
        }
    }

    /// What the wasm is built from; nothing for a file.
    pub fn sources(&self) -> &[PathBuf] {
        match self {
            Place::Package(package) => &package.sources,
            _ => &[],
        }
    }
}

/// A plugin's cargo package.
pub struct Package {
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

    /// The wasm, built if there is none, or one that is older than its sources.
    fn wasm(&self) -> anyhow::Result<PathBuf> {
        if let Some(wasm) = self.newest_wasm()
            && self.is_fresh(&wasm)?
        {
            if wasm.components().any(|part| part.as_os_str() == "debug") {
                warn!(plugin = %wasm.display(), "a debug build, which is slow: `cargo component build --release` makes a fast one");
            }
            return Ok(wasm);
        }
        self.build()?;
        self.newest_wasm().with_context(|| {
            format!(
                "cargo built {} and left no {} under {}: its Cargo.toml needs `crate-type = [\"cdylib\"]`",
                self.folder.display(),
                self.file_name(),
                self.target.display()
            )
        })
    }

    fn newest_wasm(&self) -> Option<PathBuf> {
        newest(builds(self.target.clone()), &self.file_name())
    }

    fn is_fresh(&self, wasm: &Path) -> anyhow::Result<bool> {
        let built = wasm.metadata()?.modified()?;
        let newest = self.sources.iter().filter_map(|source| newest_under(source)).max();
        Ok(newest.is_none_or(|newest| newest <= built))
    }

    fn build(&self) -> anyhow::Result<()> {
        info!(plugin = %self.name, folder = %self.folder.display(), "building plugin");
        let begun = SystemTime::now();
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
        self.touch(begun)
    }

    /// cargo leaves a file alone that it finds up to date, though a source's time may be newer. What is saved while it
    /// builds is newer than the wasm.
    fn touch(&self, begun: SystemTime) -> anyhow::Result<()> {
        let wasm = self.target.join(TARGET).join("release").join(self.file_name());
        let file = std::fs::File::options().append(true).open(&wasm);
        if let Ok(file) = file {
            file.set_modified(begun).with_context(|| format!("touch {}", wasm.display()))?;
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
    let mut files = Vec::new();
    files_under(path, &mut files, &mut Vec::new());
    files.iter().filter_map(|file| file.metadata().ok()?.modified().ok()).max()
}

/// The source files of a folder, and the folders that they lie in. What is built from them is left out.
pub fn files_under(path: &Path, files: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) {
    let Ok(metadata) = path.metadata() else { return };
    if metadata.is_file() {
        files.push(path.to_path_buf());
        folders.extend(path.parent().map(Path::to_path_buf));
        return;
    }
    folders.push(path.to_path_buf());
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if ["target", "cases"].iter().any(|built| name == *built) || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        files_under(&entry.path(), files, folders);
    }
}
