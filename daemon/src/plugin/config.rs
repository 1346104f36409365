//! The contract's `config`: the settings and reference files that a plugin gets.
//! What else its rows depend on: the names of fields in the WIT text of its table.

use wasmtime::component::{ComponentType, Lower};

use super::digest::Digest;

/// What a plugin is given.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub settings: Vec<(String, String)>,
    pub reference: Vec<ReferenceFile>,
    /// The text of the table's file in `wit/silver`, if it has lines with `@name`: for a component that carries no text.
    pub wit: Option<String>,
}

/// The contract's `config`.
#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(super) struct Passed<'c> {
    settings: &'c [(String, String)],
    reference: &'c [ReferenceFile],
}

impl Config {
    pub(super) fn passed(&self) -> Passed<'_> {
        Passed { settings: &self.settings, reference: &self.reference }
    }

    /// The names and contents of the reference files.
    pub(super) fn references(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.reference.iter().map(|file| (file.name.as_str(), file.contents.as_slice()))
    }

    /// Differs for any two configurations that differ.
    pub(super) fn digest(&self) -> Digest {
        let mut bytes = Vec::new();
        let mut add = |part: &[u8]| {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        };
        add(&(self.settings.len() as u64).to_le_bytes());
        for (name, value) in &self.settings {
            add(name.as_bytes());
            add(value.as_bytes());
        }
        for file in &self.reference {
            add(file.name.as_bytes());
            add(&file.contents);
        }
        // One part more than names and contents have.
        if let Some(wit) = &self.wit {
            add(wit.as_bytes());
        }
        Digest::of(&bytes)
    }
}

#[derive(ComponentType, Lower, Clone, Debug)]
#[component(record)]
pub struct ReferenceFile {
    pub name: String,
    pub contents: Vec<u8>,
}
