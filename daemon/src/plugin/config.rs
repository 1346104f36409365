//! The contract's `config`: the settings and reference files that a plugin gets.

use wasmtime::component::{ComponentType, Lower};

use super::digest::Digest;

/// The contract's `config`.
#[derive(ComponentType, Lower, Clone, Debug, Default)]
#[component(record)]
pub struct Config {
    pub settings: Vec<(String, String)>,
    pub reference: Vec<ReferenceFile>,
}

impl Config {
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
        Digest::of(&bytes)
    }
}

#[derive(ComponentType, Lower, Clone, Debug)]
#[component(record)]
pub struct ReferenceFile {
    pub name: String,
    pub contents: Vec<u8>,
}
