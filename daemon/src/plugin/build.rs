//! Plugins that pipeline.toml names by their source folder: finds the wasm that cargo built, and builds it if it is
//! missing or older than its sources.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, bail};
use serde::Deserialize;
use tracing::{info, warn};

use super::build_output::{TARGET, build_folders, newest};
use super::prebuilt::{prebuilt_wasm, target_folders};
use super::wit_check::check_wit;
use crate::runtime::clock;

/// The folder within cargo's target folder for builds that are not released.
const TRIAL: &str = "trial";

/// The wasm of a plugin, which is a file or a source folder. Builds a source folder if necessary, which releases it: a
/// daemon that watches the folder takes the build up.
pub fn wasm_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    match PluginLocation::of_existing(plugin)? {
        PluginLocation::Package(package) => package.wasm(),
        location => location.wasm().with_context(|| format!("{} was removed", plugin.display())),
    }
}

/// The wasm of a plugin's sources as they are now, built if necessary in a folder that no daemon watches: to try a version
/// is not to release it.
pub(crate) fn trial_wasm_of(plugin: &Path) -> anyhow::Result<PathBuf> {
    match PluginLocation::of_existing(plugin)? {
        PluginLocation::Package(package) => package.trial_wasm(),
        location => location.wasm().with_context(|| format!("{} was removed", plugin.display())),
    }
}

/// Where a plugin's wasm is found, for those who look at it repeatedly. Nothing is built.
pub(crate) enum PluginLocation {
    File(PathBuf),
    /// A source folder where cargo is not installed.
    Prebuilt(PathBuf),
    Package(Box<Package>),
}

impl PluginLocation {
    fn of_existing(plugin: &Path) -> anyhow::Result<Self> {
        if !plugin.exists() {
            bail!("plugin {} does not exist: expected a cargo package's folder, or a .wasm file", plugin.display());
        }
        Self::of(plugin)
    }

    /// Runs `cargo metadata` if the plugin is a package.
    pub(crate) fn of(plugin: &Path) -> anyhow::Result<Self> {
        let named_as_file = plugin.extension().is_some_and(|extension| extension == "wasm");
        if plugin.is_file() || named_as_file {
            return Ok(PluginLocation::File(plugin.to_path_buf()));
        }
        match prebuilt_wasm(plugin) {
            Some(_) => Ok(PluginLocation::Prebuilt(plugin.to_path_buf())),
            None => Package::of(plugin).map(|package| PluginLocation::Package(Box::new(package))),
        }
    }

    /// The newest wasm.
    pub(crate) fn wasm(&self) -> Option<PathBuf> {
        match self {
            PluginLocation::File(file) => Some(file.clone()),
            PluginLocation::Prebuilt(folder) => prebuilt_wasm(folder),
            PluginLocation::Package(package) => package.newest_wasm(),
        }
    }

    /// The folders in which a newer one may appear. They need not exist.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match self {
            PluginLocation::File(file) => file.parent().map(Path::to_path_buf).into_iter().collect(),
            PluginLocation::Prebuilt(folder) => target_folders(folder).flat_map(build_folders).collect(),
            PluginLocation::Package(package) => build_folders(package.target.clone()).collect(),
        }
    }

    /// Whether the sources were changed after this wasm was built.
    pub(super) fn has_newer_sources(&self, wasm: &Path) -> anyhow::Result<bool> {
        match self {
            PluginLocation::Package(package) => Ok(!package.is_up_to_date(wasm)?),
            PluginLocation::File(_) | PluginLocation::Prebuilt(_) => Ok(false),
        }
    }

    /// The folders and files that the wasm is built from; none for a file.
    pub(crate) fn sources(&self) -> &[PathBuf] {
        match self {
            PluginLocation::Package(package) => &package.sources,
            _ => &[],
        }
    }
}

/// A plugin's cargo package.
pub(crate) struct Package {
    folder: PathBuf,
    workspace: PathBuf,
    name: String,
    target: PathBuf,
    /// The folders of all local packages that it is built from, and the files of its workspace.
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
            // Some dependencies were not downloaded yet.
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
        // The WIT files of the shop's plugins.
        sources.push(metadata.workspace_root.join("../wit"));
        Ok(Self { folder, workspace: metadata.workspace_root, name, target: metadata.target_directory, sources })
    }

    fn file_name(&self) -> String {
        format!("{}.wasm", self.name.replace('-', "_"))
    }

    /// The wasm. It is built if there is none, or if the sources are newer.
    fn wasm(&self) -> anyhow::Result<PathBuf> {
        if let Some(wasm) = self.newest_wasm()
            && self.is_up_to_date(&wasm)?
        {
            if wasm.components().any(|part| part.as_os_str() == "debug") {
                let plugin = wasm.display();
                warn!(%plugin, "a debug build, which is slow: `cargo component build --release` builds a fast one");
            }
            return Ok(wasm);
        }
        self.build(&self.target)
    }

    /// The released wasm if it is up to date; else that of the trial folder.
    fn trial_wasm(&self) -> anyhow::Result<PathBuf> {
        let trial = self.target.join(TRIAL);
        let trial_build = newest(build_folders(trial.clone()), &self.file_name());
        for wasm in self.newest_wasm().into_iter().chain(trial_build) {
            if self.is_up_to_date(&wasm)? {
                return Ok(wasm);
            }
        }
        self.build(&trial)
    }

    /// Paths in panics name the crates, not the folders of this machine: equal sources give equal files.
    fn rustflags(&self) -> String {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
        let folders = [(Some(self.workspace.clone()), "/plugins"), (home, "/cargo")];
        let flag = |(folder, name): (Option<PathBuf>, &str)| {
            Some(format!("'--remap-path-prefix={}={name}'", folder?.to_str().filter(|path| !path.contains('\''))?))
        };
        let flags: Vec<_> = folders.into_iter().filter_map(flag).collect();
        format!("target.{TARGET}.rustflags=[{}]", flags.join(", "))
    }

    fn newest_wasm(&self) -> Option<PathBuf> {
        newest(build_folders(self.target.clone()), &self.file_name())
    }

    fn is_up_to_date(&self, wasm: &Path) -> anyhow::Result<bool> {
        let built = wasm.metadata()?.modified()?;
        let newest = self.sources.iter().filter_map(|source| newest_under(source)).max();
        Ok(newest.is_none_or(|newest| newest <= built))
    }

    /// Builds into a target folder, and returns the wasm.
    fn build(&self, target: &Path) -> anyhow::Result<PathBuf> {
        check_wit(&self.folder).with_context(|| format!("{} does not build", self.name))?;
        info!(plugin = %self.name, folder = %self.folder.display(), "building plugin");
        let began = clock::now();
        let run = || {
            cargo(&self.folder)
                .args(["build", "--release", "--target", TARGET, "--target-dir"])
                .arg(target)
                .args(["--config", &self.rustflags()])
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
        let wasm = target.join(TARGET).join("release").join(self.file_name());
        set_built_at(&wasm, began)?;
        newest(build_folders(target.to_path_buf()), &self.file_name()).with_context(|| {
            format!(
                "cargo built {} and wrote no {} under {}: its Cargo.toml needs `crate-type = [\"cdylib\"]`",
                self.folder.display(),
                self.file_name(),
                target.display()
            )
        })
    }
}

/// Sets the file's time to the start of the build: cargo does not write a file that it finds up to date, even if a source
/// has a newer time. A source that is saved during the build is newer than the wasm.
fn set_built_at(wasm: &Path, began: SystemTime) -> anyhow::Result<()> {
    match std::fs::File::options().append(true).open(wasm) {
        Ok(file) => file.set_modified(began).with_context(|| format!("set the time of {}", wasm.display())),
        Err(_) => Ok(()),
    }
}

fn cargo(folder: &Path) -> Command {
    command("cargo", folder)
}

/// A command that sees nothing of the daemon's environment but what cargo, rustup and the linker need: a build runs the
/// code of all dependencies, and needs no passwords.
fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let passed_on = std::env::vars_os().filter(|(name, _)| is_passed_on(&name.to_string_lossy()));
    command.current_dir(folder).env_clear().envs(passed_on);
    command
}

/// Whether a build gets this variable of the environment.
fn is_passed_on(name: &str) -> bool {
    let name = name.to_uppercase();
    let is_secret = SECRETS.iter().any(|end| name.ends_with(end));
    !is_secret && (PASSED_ON.contains(&&*name) || PASSED_ON_FAMILIES.iter().any(|family| name.starts_with(family)))
}

/// What a build gets of the environment. Not the target folder, the flags and the toolchain of a cargo that runs silverd.
const PASSED_ON: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TMPDIR",
    "TEMP",
    "TMP",
    "TERM",
    "CARGO_HOME",
    "CARGO_BUILD_JOBS",
    "RUSTUP_HOME",
    "RUSTUP_AUTO_INSTALL",
    "RUSTUP_DIST_SERVER",
    "RUSTUP_UPDATE_ROOT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
const PASSED_ON_FAMILIES: [&str; 5] = ["LC_", "SSL_CERT_", "CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRIES_"];
/// How the names of the passwords in these families end. cargo needs them to publish, or to read a private registry: for
/// that it has its own file, `credentials.toml`.
const SECRETS: [&str; 2] = ["_TOKEN", "_SECRET_KEY"];

fn lacks_target(stderr: &[u8]) -> bool {
    let text = String::from_utf8_lossy(stderr);
    text.contains("can't find crate for `core`")
        || text.contains("can't find crate for `std`")
        || text.contains("E0463")
}

/// Adds the wasm target, if rustup is installed.
fn add_target(folder: &Path) -> anyhow::Result<()> {
    info!("the wasm target is missing: running `rustup target add {TARGET}`");
    let added = command("rustup", folder).args(["target", "add", TARGET]).output();
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

/// Collects the source files of a folder and their folders, without what is built from them.
pub(crate) fn files_under(path: &Path, files: &mut Vec<PathBuf>, folders: &mut Vec<PathBuf>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_see_no_secrets() {
        for name in ["PATH", "https_proxy", "CARGO_HOME", "CARGO_HTTP_CAINFO", "CARGO_REGISTRIES_OURS_INDEX", "LC_ALL"]
        {
            assert!(is_passed_on(name), "{name}");
        }
        for name in [
            "KAFKA_PASSWORD",
            "SILVERD_TOKEN",
            "CARGO_REGISTRY_TOKEN",
            "CARGO_REGISTRIES_OURS_TOKEN",
            "CARGO_REGISTRIES_OURS_SECRET_KEY",
            "cargo_registries_ours_token",
            "AWS_SECRET_ACCESS_KEY",
            "CARGO_TARGET_DIR",
            "RUSTFLAGS",
        ] {
            assert!(!is_passed_on(name), "{name}");
        }
    }
}
