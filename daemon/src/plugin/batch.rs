//! The contract's `batch`: raw records, which are copied from Arrow's buffers directly into the guest's memory.

use std::mem::MaybeUninit;

use arrow::array::{Array, BinaryArray};
use silverd_core::chunk::{Chunk, Headers};
use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LowerContext};
use wasmtime::component::{ComponentType, Lower};
use wasmtime::{Result, ValRaw};

/// The `batch` of version 0.2.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Batch<'a> {
    values: Packed<'a>,
    #[component(name = "value-ends")]
    value_ends: Vec<u32>,
    #[component(name = "null-values")]
    null_values: Vec<u32>,
    keys: Packed<'a>,
    #[component(name = "key-ends")]
    key_ends: Vec<u32>,
    #[component(name = "null-keys")]
    null_keys: Vec<u32>,
    topics: Vec<&'a str>,
    #[component(name = "record-topics")]
    record_topics: Vec<u32>,
    partitions: Vec<i32>,
    offsets: Vec<i64>,
    timestamps: Vec<i64>,
    headers: Vec<Header<'a>>,
    #[component(name = "header-ends")]
    header_ends: Vec<u32>,
}

/// The contract's `header`.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Header<'a> {
    name: &'a str,
    value: Option<&'a [u8]>,
}

/// The `batch` of version 0.1, which knows neither null values nor topics nor headers.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct Batch01<'a> {
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
        let Batch01 { values, value_ends, keys, key_ends, partitions, offsets, timestamps } = Batch01::new(chunk, rows);
        let (headers, header_ends) = headers(chunk, rows);
        Self {
            values,
            value_ends,
            null_values: nulls(chunk.values(), rows),
            keys,
            key_ends,
            null_keys: nulls(chunk.keys(), rows),
            topics: chunk.topics().iter().flatten().collect(),
            record_topics: rows.iter().map(|row| chunk.topic_of(*row as usize) as u32).collect(),
            partitions,
            offsets,
            timestamps,
            headers,
            header_ends,
        }
    }
}

impl<'a> Batch01<'a> {
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

/// The indexes, among these rows, of those that are null.
fn nulls(blobs: &BinaryArray, rows: &[u32]) -> Vec<u32> {
    if blobs.null_count() == 0 {
        return Vec::new();
    }
    (0..rows.len()).filter(|at| blobs.is_null(rows[*at] as usize)).map(|at| at as u32).collect()
}

/// The headers of these rows, one after the other, and the end of those of each.
fn headers<'a>(chunk: &'a Chunk, rows: &[u32]) -> (Vec<Header<'a>>, Vec<u32>) {
    let Headers { ends, names, values } = chunk.headers();
    let mut headers = Vec::new();
    let header_ends = rows.iter().map(|row| {
        let row = *row as usize;
        headers.extend(
            (ends[row] as usize..ends[row + 1] as usize)
                .map(|at| Header { name: names.value(at), value: values.is_valid(at).then(|| values.value(at)) }),
        );
        headers.len() as u32
    });
    let header_ends = header_ends.collect();
    (headers, header_ends)
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
