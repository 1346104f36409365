//! Compiled plugins on the disk: compiled once, by a process of its own, and never run if they are not what they were.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use silverd::transform::{Config, Host, Plugin};

use crate::guest::limits;
use crate::harness::Project;
use crate::hostile::component;

const SILVERD: &str = env!("CARGO_BIN_EXE_silverd");

/// A state folder, and a silverd that writes down how often it compiled.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        place.program(&format!("exec {SILVERD} \"$@\""));
        place
    }

    /// What the compiler does, after it has written down that it was called.
    fn program(&self, body: &str) {
        let called = self.folder.path().join("called");
        std::fs::write(self.silverd(), format!("#!/bin/sh\necho \"$*\" >> {}\n{body}\n", called.display())).unwrap();
        std::fs::set_permissions(self.silverd(), std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn silverd(&self) -> PathBuf {
        self.folder.path().join("silverd.sh")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join(".silverd")
    }

    fn host(&self) -> Arc<Host> {
        Host::with_state(&self.state(), &self.silverd()).unwrap()
    }

    #[track_caller]
    fn load(&self, plugin: &[u8]) {
        let plugin = Plugin::compile(self.host(), "hits", plugin, Config::default(), limits()).unwrap();
        assert_eq!(plugin.schema.columns.len(), 10);
    }

    fn compilations(&self) -> usize {
        std::fs::read_to_string(self.folder.path().join("called")).unwrap_or_default().lines().count()
    }

    fn compiled(&self) -> Vec<PathBuf> {
        files(&self.state().join("compiled"))
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_plugin_is_compiled_once() {
    let place = Place::new();
    let (one, two) = (component("", "", "table"), component("(nop)", "", "table"));
    place.load(&one);
    place.load(&one);
    assert_eq!((place.compilations(), place.compiled().len()), (1, 1));
    place.load(&two);
    place.load(&one);
    assert_eq!((place.compilations(), place.compiled().len()), (2, 2));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&place.state()), mode(&place.compiled()[0])), (0o700, 0o600));
}

#[test]
fn workers_that_start_together_compile_it_once() {
    let place = Place::new();
    let (host, plugin) = (place.host(), component("", "", "table"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Plugin::compile(host.clone(), "hits", &plugin, Config::default(), limits()).unwrap());
        }
    });
    assert_eq!(place.compilations(), 1);
}

#[test]
fn machine_code_that_was_altered_is_thrown_away() {
    let place = Place::new();
    let plugin = component("", "", "table");
    place.load(&plugin);
    let [file] = &place.compiled()[..] else { panic!("one file") };
    let good = std::fs::read(file).unwrap();
    let mut altered = good.clone();
    altered[good.len() / 2] ^= 1;
    let damaged: [&[u8]; 5] = [&altered, &good[..good.len() - 1], &good[..64], b"", b"\x7fELF"];
    for (at, bytes) in damaged.into_iter().enumerate() {
        std::fs::write(file, bytes).unwrap();
        place.load(&plugin);
        assert_eq!(place.compilations(), at + 2);
        let [file] = &place.compiled()[..] else { panic!("one file") };
        assert_eq!(std::fs::read(file).unwrap(), good, "compiling gives the same code again");
    }
    // A file that has the name which its bytes ask for, and is of another engine or none.
    let text = b"no machine code".as_slice();
    let hash = silverd::transform::Digest::of(text);
    let name = file.file_name().unwrap().to_str().unwrap();
    let (key, _) = name.rsplit_once('-').unwrap();
    std::fs::remove_file(file).unwrap();
    std::fs::write(file.with_file_name(format!("{key}-{}.cwasm", hash.as_str())), text).unwrap();
    place.load(&plugin);
    assert_eq!(place.compilations(), damaged.len() + 2);
}

/// The same words, whoever compiles.
#[test]
fn a_component_that_cannot_be_compiled() {
    let place = Place::new();
    let good = component("", "", "table");
    let (mut told, mut at) = (None, 8);
    while told.is_none() {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        at += 1;
        let refusal = |host: Arc<Host>| {
            let refused = Plugin::compile(host, "hits", &bad, Config::default(), limits()).err();
            refused.map(|error| format!("{error:#}")).filter(|text| text.starts_with("compile it: "))
        };
        told = refusal(crate::hostile::HOST.clone());
        if told.is_some() {
            assert_eq!(refusal(place.host()), told);
        }
    }
    assert!(place.compiled().is_empty());
}

/// A plugin is used though nothing can be kept.
#[test]
fn a_cache_that_does_not_work() {
    let plugin = component("", "", "table");
    for body in ["kill -9 $$", "exit 1", "echo rubbish", "head -c 10 >/dev/null; exit 0"] {
        let place = Place::new();
        place.program(body);
        place.load(&plugin);
        assert_eq!(place.compilations(), 1, "{body}");
    }
    let place = Place::new();
    std::fs::remove_file(place.silverd()).unwrap();
    place.load(&plugin);
    let place = Place::new();
    std::fs::write(place.state(), "a file where the folder should be").unwrap();
    place.load(&plugin);
    assert_eq!(place.compilations(), 0);
}

#[test]
fn a_folder_of_somebody_else_is_not_trusted() {
    let place = Place::new();
    std::fs::create_dir(place.state()).unwrap();
    if std::os::unix::fs::chown(place.state(), Some(12345), None).is_err() {
        eprintln!("only root can give a folder away: not tested");
        return;
    }
    place.load(&component("", "", "table"));
    assert_eq!((place.compilations(), files(&place.state()).len()), (0, 0));
}

/// As the README tells: `check` compiles and keeps all plugins, and what is loaded next is there.
#[test]
fn a_pipeline_keeps_its_plugins() {
    let project = Project::new("kept", "interval_ms = 100");
    let told = project.silverd(&["check"]);
    let state = project.folder.path().join("data/.silverd");
    let (compiled, plugins) = (files(&state.join("compiled")), files(&state.join("plugins")));
    assert_eq!((compiled.len(), plugins.len()), (3, 3));
    for plugin in &plugins {
        let name = plugin.file_name().unwrap().to_str().unwrap();
        assert!(told.contains(&name[..12]), "{told} names {name}");
    }
    project.silverd(&["check"]);
    assert_eq!(files(&state.join("compiled")), compiled, "names hold the hash of what is in them");
}
