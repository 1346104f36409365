//! The types of the contract (`wit/types.wit`) that the host passes to a guest and gets back: a batch of raw records,
//! which is copied from Arrow's buffers directly into the guest's memory; the configuration; and the output.

use std::mem::MaybeUninit;

use arrow::array::BinaryArray;
use silverd_core::chunk::Chunk;
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lift, Lower};
use wasmtime::{Result, ValRaw};

use super::digest::Digest;
use super::lift::Rows;

/// The contract's `batch`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Batch<'a> {
    values: Packed<'a>,
    #[component(name = "value-ends")]
    value_ends: Vec<u32>,
    keys: Packed<'a>,
    #[component(name = "key-ends")]
    key_ends: Vec<u32>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
}

impl<'a> Batch<'a> {
    /// The records of a chunk with these indexes.
    pub(super) fn new(chunk: &'a Chunk, rows: &'a [u32]) -> Self {
        let (values, value_ends) = Packed::new(chunk.values(), rows);
        let (keys, key_ends) = Packed::new(chunk.keys(), rows);
        let (partitions, offsets) = (chunk.partitions(), chunk.offsets());
        Self {
            values,
            value_ends,
            keys,
            key_ends,
            partitions: rows.iter().map(|row| partitions[*row as usize]).collect(),
            offsets: rows.iter().map(|row| offsets[*row as usize]).collect(),
            timestamps: rows.iter().map(|row| chunk.timestamp(*row as usize)).collect(),
        }
    }
}

/// The contract's `output`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Output {
    pub rows: Rows,
    #[component(name = "row-events")]
    pub row_events: Vec<u32>,
    pub rejects: Vec<Rejected>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub struct Rejected {
    pub event: u32,
    pub code: RejectCode,
    pub reason: String,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub enum RejectCode {
    #[component(name = "malformed")]
    Malformed,
    #[component(name = "missing-field")]
    MissingField,
    #[component(name = "out-of-range")]
    OutOfRange,
    #[component(name = "other")]
    Other,
}

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

/// Some byte strings of an array, concatenated to one `list<u8>`.
pub(super) struct Packed<'a> {
    blobs: &'a BinaryArray,
    rows: &'a [u32],
    len: usize,
}

impl<'a> Packed<'a> {
    /// The strings of these rows, and the end of each.
    fn new(blobs: &'a BinaryArray, rows: &'a [u32]) -> (Self, Vec<u32>) {
        let mut len = 0;
        let ends = rows
            .iter()
            .map(|row| {
                len += blobs.value_length(*row as usize) as usize;
                len as u32
            })
            .collect();
        (Self { blobs, rows, len }, ends)
    }

    fn write<T>(&self, cx: &mut LowerContext<'_, T>) -> Result<usize> {
        let start = cx.realloc(0, 0, 1, self.len)?;
        let mut room = &mut cx.as_slice_mut()[start..start + self.len];
        for row in self.rows {
            let blob = self.blobs.value(*row as usize);
            let (head, tail) = room.split_at_mut(blob.len());
            head.copy_from_slice(blob);
            room = tail;
        }
        Ok(start)
    }
}

// SAFETY: a list is lowered as a pointer and a length, and only `list<u8>` passes the check.
unsafe impl ComponentType for Packed<'_> {
    type Lower = [ValRaw; 2];
    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::POINTER_PAIR;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<()> {
        <[u8] as ComponentType>::typecheck(ty, types)
    }
}

// SAFETY: both forms write the whole pair that `Lower` and `ABI` declare.
unsafe impl Lower for Packed<'_> {
    fn linear_lower_to_flat<T>(
        &self,
        cx: &mut LowerContext<'_, T>,
        _: InterfaceType,
        pair: &mut MaybeUninit<[ValRaw; 2]>,
    ) -> Result<()> {
        let start = self.write(cx)?;
        pair.write([ValRaw::i64(start as i64), ValRaw::i64(self.len as i64)]);
        Ok(())
    }

    fn linear_lower_to_memory<T>(&self, cx: &mut LowerContext<'_, T>, _: InterfaceType, at: usize) -> Result<()> {
        let start = self.write(cx)?;
        *cx.get(at) = (start as u32).to_le_bytes();
        *cx.get(at + 4) = (self.len as u32).to_le_bytes();
        Ok(())
    }
}
