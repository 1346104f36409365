//! The cache of compiled plugins: a plugin is compiled once, in a separate process, and machine code that was altered never
//! runs.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silverd::plugin::{Config, Digest, Host, Plugin};
use silverd_core::config::ReloadMode;

use crate::harness::Project;
use crate::harness::guest::limits;
use crate::harness::hostile_guest::{HOST, component};

const SILVERD: &str = env!("CARGO_BIN_EXE_silverd");

/// A state folder, and a compiler that counts its calls.
struct State {
    folder: tempfile::TempDir,
}

impl State {
    fn new() -> Self {
        let state = Self { folder: tempfile::tempdir().unwrap() };
        state.set_compiler(&format!("exec {SILVERD} \"$@\""));
        state
    }

    /// Sets what the compiler does after it has counted the call.
    fn set_compiler(&self, body: &str) {
        let calls = self.folder.path().join("calls");
        std::fs::write(self.compiler(), format!("#!/bin/sh\necho \"$*\" >> {}\n{body}\n", calls.display())).unwrap();
        std::fs::set_permissions(self.compiler(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn compiler(&self) -> PathBuf {
        self.folder.path().join("silverd.sh")
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join(".silverd")
    }

    fn host(&self) -> Arc<Host> {
        Host::with_state(&self.path(), &self.compiler(), ReloadMode::Watch).unwrap()
    }

    #[track_caller]
    fn load(&self, plugin: &[u8]) {
        let plugin = Plugin::compile(self.host(), "hits", plugin, Config::default(), limits()).unwrap();
        assert_eq!(plugin.schema.columns.len(), 10);
    }

    fn compilations(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default().lines().count()
    }

    fn compiled(&self) -> Vec<PathBuf> {
        files(&self.path().join("compiled"))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn plugin_is_compiled_once() {
    let state = State::new();
    let (one, two) = (component("", "", "table"), component("(nop)", "", "table"));
    state.load(&one);
    state.load(&one);
    assert_eq!((state.compilations(), state.compiled().len()), (1, 1));
    state.load(&two);
    state.load(&one);
    assert_eq!((state.compilations(), state.compiled().len()), (2, 2));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state.path()), mode(&state.compiled()[0])), (0o700, 0o600));
}

#[test]
fn workers_that_start_together_compile_a_plugin_once() {
    let state = State::new();
    let (host, plugin) = (state.host(), component("", "", "table"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Plugin::compile(host.clone(), "hits", &plugin, Config::default(), limits()).unwrap());
        }
    });
    assert_eq!(state.compilations(), 1);
}

#[test]
fn altered_machine_code_is_discarded_and_compiled_again() {
    let state = State::new();
    let plugin = component("", "", "table");
    state.load(&plugin);
    let [file] = &state.compiled()[..] else { panic!("one file") };
    let good = std::fs::read(file).unwrap();
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    let damaged: [&[u8]; 5] = [&altered, &good[..good.len() - 1], &good[..64], b"", b"\x7fELF"];
    for (at, bytes) in damaged.into_iter().enumerate() {
        std::fs::write(file, bytes).unwrap();
        state.load(&plugin);
        assert_eq!(state.compilations(), at + 2);
        let [file] = &state.compiled()[..] else { panic!("one file") };
        assert_eq!(std::fs::read(file).unwrap(), good, "compiling returns the same code again");
    }
    // A file with a valid name, whose content no engine has compiled.
    let text = b"no machine code".as_slice();
    let name = file.file_name().unwrap().to_str().unwrap();
    let (key, _) = name.rsplit_once('-').unwrap();
    std::fs::remove_file(file).unwrap();
    std::fs::write(file.with_file_name(format!("{key}-{}.cwasm", Digest::of(text).as_str())), text).unwrap();
    state.load(&plugin);
    assert_eq!(state.compilations(), damaged.len() + 2);
}

#[test]
fn error_of_an_invalid_component_is_the_same_with_and_without_cache() {
    let state = State::new();
    let good = component("", "", "table");
    let (mut expected, mut at) = (None, 8);
    while expected.is_none() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        at += 1;
        let compile_error = |host: Arc<Host>| {
            let error = Plugin::compile(host, "hits", &bad, Config::default(), limits()).err();
            error.map(|error| format!("{error:#}")).filter(|text| text.starts_with("compile it: "))
        };
        expected = compile_error(HOST.clone());
        if expected.is_some() {
            assert_eq!(compile_error(state.host()), expected);
        }
    }
    assert!(state.compiled().is_empty());
}

#[test]
fn plugin_loads_without_a_working_cache() {
    let plugin = component("", "", "table");
    for body in ["kill -9 $$", "exit 1", "echo rubbish", "head -c 10 >/dev/null; exit 0"] {
        let state = State::new();
        state.set_compiler(body);
        state.load(&plugin);
        assert_eq!(state.compilations(), 1, "{body}");
    }
    let state = State::new();
    std::fs::remove_file(state.compiler()).unwrap();
    state.load(&plugin);
    let state = State::new();
    std::fs::write(state.path(), "a file where the folder should be").unwrap();
    state.load(&plugin);
    assert_eq!(state.compilations(), 0);
}

#[test]
fn folder_of_another_user_is_not_trusted() {
    let state = State::new();
    std::fs::create_dir(state.path()).unwrap();
    if std::os::unix::fs::chown(state.path(), Some(12345), None).is_err() {
        eprintln!("only root can change the owner of a folder: not tested");
        return;
    }
    state.load(&component("", "", "table"));
    assert_eq!((state.compilations(), files(&state.path()).len()), (0, 0));
}

/// A version is kept once rows may be made with it: trials take no place.
#[test]
fn check_compiles_all_plugins_and_keeps_none() {
    let project = Project::new("kept", "interval = \"100ms\"");
    let output = project.silverd(&["check"]);
    let state = project.folder.path().join("data/.silverd");
    let compiled = files(&state.join("compiled"));
    project.silverd(&["plugin", "test"]);
    assert_eq!(["compiled", "plugins", "given"].map(|folder| files(&state.join(folder)).len()), [3, 0, 0]);
    assert_eq!(files(&state.join("compiled")), compiled, "the names contain the hash of the content");
    project.generate(&["--count", "10", "--seed", "1"]);
    project.silverd(&["run", "--drain"]);
    let plugins = files(&state.join("plugins"));
    // Two tables have the products as their only reference file, and one has none.
    assert_eq!((plugins.len(), files(&state.join("given")).len()), (3, 3));
    for plugin in &plugins {
        let name = plugin.file_name().unwrap().to_str().unwrap();
        assert!(output.contains(&name[..12]), "{output} names {name}");
    }
}
