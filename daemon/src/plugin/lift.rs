//! Lifts the rows of a guest from its memory into Arrow arrays, column by column.
//!
//! It reads a `list<record>` of any shape by its canonical layout (component model, CanonicalABI.md, "Loading"), which
//! follows from the component's type. The arrays have the physical types of the fields: an enum is its discriminant, a
//! timestamp an integer. `silverd_core::rows::typed` converts them to the types of the table.
//!
//! The guest is not trusted: every pointer is checked before it is followed, every byte is counted against the store's
//! hostcall fuel before memory is allocated for it, and text is checked to be UTF-8. wasmtime may change
//! `ComponentType` and `Lift` in any version; `tests/it/lift` compares this lift with wasmtime's own.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, PrimitiveArray, StringArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    Field, Fields, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use wasmtime::component::__internal::wasmtime_environ::component::{CanonicalOptionsDataModel, StringEncoding};
use wasmtime::component::__internal::{CanonicalAbiInfo, ComponentTypes, InstanceType, InterfaceType, LiftContext};
use wasmtime::component::{ComponentType, Lift};
use wasmtime::{Result, ValRaw, bail, ensure};

use crate::telemetry::thread_cpu;

/// The rows of one batch: one array for each field of the record, in the record's order.
#[derive(Debug, Clone)]
pub struct Rows {
    pub len: usize,
    pub columns: Vec<ArrayRef>,
    /// CPU time of the lift.
    pub took: Duration,
    /// CPU time of the process that made the rows, if it is another one.
    pub elsewhere: Duration,
}

// SAFETY: a list is lowered as a pointer and a length, and `typecheck` lets only lists of records pass.
unsafe impl ComponentType for Rows {
    type Lower = [ValRaw; 2];
    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::POINTER_PAIR;

    fn typecheck(ty: &InterfaceType, types: &InstanceType<'_>) -> Result<()> {
        match ty {
            InterfaceType::List(list) => match types.types[*list].element {
                InterfaceType::Record(_) => Ok(()),
                _ => bail!("expected a list of records"),
            },
            _ => bail!("expected a list of records"),
        }
    }
}

// SAFETY: reads the two words that `ComponentType::Lower` and `ABI` declare, and nothing outside of the guest's memory.
unsafe impl Lift for Rows {
    fn linear_lift_from_flat(cx: &mut LiftContext<'_>, ty: InterfaceType, src: &Self::Lower) -> Result<Self> {
        Self::read(cx, ty, src[0].get_u32() as usize, src[1].get_u32() as usize)
    }

    fn linear_lift_from_memory(cx: &mut LiftContext<'_>, ty: InterfaceType, bytes: &[u8]) -> Result<Self> {
        Self::read(cx, ty, u32::from_le_bytes(cell(bytes, 0)) as usize, u32::from_le_bytes(cell(bytes, 4)) as usize)
    }
}

impl Rows {
    fn read(cx: &mut LiftContext<'_>, ty: InterfaceType, start: usize, len: usize) -> Result<Self> {
        let began = thread_cpu();
        let InterfaceType::List(list) = ty else { bail!("expected a list of records") };
        let types = cx.types;
        let InterfaceType::Record(record) = types[list].element else { bail!("expected a list of records") };
        ensure!(matches!(cx.options().string_encoding, StringEncoding::Utf8), "its strings are not UTF-8");
        ensure!(
            matches!(cx.options().data_model, CanonicalOptionsDataModel::LinearMemory(_)),
            "it keeps its data outside of a linear memory"
        );
        let abi = &types[record].abi;
        let memory = cx.memory();
        let cells = check_list(cx, memory, start, len, abi.size32 as usize, abi.align32 as usize)?;
        let mut reader = Reader { cx, types, memory };
        let mut columns = Vec::with_capacity(types[record].fields.len());
        for (at, ty) in fields(types, &types[record].fields.iter().map(|field| field.ty).collect::<Vec<_>>()) {
            columns.push(reader.column(ty, &Strided { at: cells.at + at, ..cells }, None)?);
        }
        Ok(Self { len, columns, took: thread_cpu().saturating_sub(began), elsewhere: Duration::ZERO })
    }
}

/// The offset of each field in its record.
fn fields(types: &ComponentTypes, fields: &[InterfaceType]) -> Vec<(usize, InterfaceType)> {
    let mut end = 0;
    fields.iter().map(|ty| (types.canonical_abi(ty).next_field32(&mut end) as usize, *ty)).collect()
}

/// The addresses of a column's cells in the guest's memory. Whoever creates a value has checked that all cells are
/// inside.
trait CellAddresses {
    fn len(&self) -> usize;
    fn at(&self, row: usize) -> usize;
    fn shifted(&self, by: usize) -> Self;
}

/// The cells of one list, one stride apart.
#[derive(Clone, Copy)]
struct Strided {
    at: usize,
    stride: usize,
    len: usize,
}

impl CellAddresses for Strided {
    fn len(&self) -> usize {
        self.len
    }
    fn at(&self, row: usize) -> usize {
        self.at + row * self.stride
    }
    fn shifted(&self, by: usize) -> Self {
        Self { at: self.at + by, ..*self }
    }
}

/// The cells of the inner lists of a list, one list after the other.
#[derive(Clone)]
struct Scattered {
    at: Arc<[usize]>,
    shift: usize,
}

impl CellAddresses for Scattered {
    fn len(&self) -> usize {
        self.at.len()
    }
    fn at(&self, row: usize) -> usize {
        self.at[row] + self.shift
    }
    fn shifted(&self, by: usize) -> Self {
        Self { at: self.at.clone(), shift: self.shift + by }
    }
}

/// Checks that a list is inside of the memory, aligned, and within the budget.
fn check_list(
    cx: &mut LiftContext<'_>,
    memory: &[u8],
    at: usize,
    len: usize,
    stride: usize,
    align: usize,
) -> Result<Strided> {
    ensure!(at.is_multiple_of(align), "a list's pointer {at:#x} is not aligned to {align}");
    let end = len.checked_mul(stride).and_then(|bytes| bytes.checked_add(at));
    let Some(end) = end.filter(|end| *end <= memory.len()) else {
        bail!("a list of {len} items at {at:#x} is outside of its memory of {} bytes", memory.len())
    };
    cx.consume_fuel(end - at)?;
    Ok(Strided { at, stride, len })
}

#[inline(always)]
fn cell<const W: usize>(memory: &[u8], at: usize) -> [u8; W] {
    let mut bytes = [0; W];
    bytes.copy_from_slice(&memory[at..at + W]);
    bytes
}

struct Reader<'r, 'cx> {
    cx: &'r mut LiftContext<'cx>,
    types: &'cx ComponentTypes,
    memory: &'cx [u8],
}

impl Reader<'_, '_> {
    /// Reads a column. Cells that are null in `valid`, because an outer value is null, are not read.
    fn column<C: CellAddresses>(
        &mut self,
        ty: InterfaceType,
        cells: &C,
        valid: Option<&NullBuffer>,
    ) -> Result<ArrayRef> {
        Ok(match ty {
            InterfaceType::Bool => {
                let values = BooleanBuffer::collect_bool(cells.len(), |row| self.memory[cells.at(row)] != 0);
                Arc::new(BooleanArray::new(values, valid.cloned()))
            }
            InterfaceType::S8 => self.primitive::<Int8Type, 1>(cells, valid, i8::from_le_bytes),
            InterfaceType::S16 => self.primitive::<Int16Type, 2>(cells, valid, i16::from_le_bytes),
            InterfaceType::S32 => self.primitive::<Int32Type, 4>(cells, valid, i32::from_le_bytes),
            InterfaceType::S64 => self.primitive::<Int64Type, 8>(cells, valid, i64::from_le_bytes),
            InterfaceType::U8 => self.primitive::<UInt8Type, 1>(cells, valid, u8::from_le_bytes),
            InterfaceType::U16 => self.primitive::<UInt16Type, 2>(cells, valid, u16::from_le_bytes),
            InterfaceType::U32 | InterfaceType::Char => {
                self.primitive::<UInt32Type, 4>(cells, valid, u32::from_le_bytes)
            }
            InterfaceType::U64 => self.primitive::<UInt64Type, 8>(cells, valid, u64::from_le_bytes),
            InterfaceType::Float32 => self.primitive::<Float32Type, 4>(cells, valid, f32::from_le_bytes),
            InterfaceType::Float64 => self.primitive::<Float64Type, 8>(cells, valid, f64::from_le_bytes),
            InterfaceType::Enum(cases) => match self.types[cases].abi.size32 {
                1 => self.primitive::<UInt8Type, 1>(cells, valid, u8::from_le_bytes),
                2 => self.primitive::<UInt16Type, 2>(cells, valid, u16::from_le_bytes),
                _ => self.primitive::<UInt32Type, 4>(cells, valid, u32::from_le_bytes),
            },
            InterfaceType::String => self.strings(cells, valid)?,
            InterfaceType::Option(option) => {
                let (item, payload) = (self.types[option].ty, self.types[option].info.payload_offset32 as usize);
                let valid = self.present(cells, valid)?;
                self.column(item, &cells.shifted(payload), valid.as_ref())?
            }
            InterfaceType::List(list) if self.types[list].element == InterfaceType::U8 => {
                let (ends, bytes) = self.gather(cells, valid)?;
                Arc::new(BinaryArray::new(offsets(ends), Buffer::from_vec(bytes), valid.cloned()))
            }
            InterfaceType::List(list) => self.lists(self.types[list].element, cells, valid)?,
            InterfaceType::Record(record) => {
                let types: Vec<_> = self.types[record].fields.iter().map(|field| field.ty).collect();
                let mut columns = Vec::with_capacity(types.len());
                for (at, ty) in fields(self.types, &types) {
                    columns.push(self.column(ty, &cells.shifted(at), valid)?);
                }
                Arc::new(StructArray::try_new_with_length(
                    numbered_fields(&columns),
                    columns,
                    valid.cloned(),
                    cells.len(),
                )?)
            }
            other => bail!("a row holds a type that has no column: {other:?}"),
        })
    }

    /// Null cells contain whatever the guest left there. They become zero, so that equal batches give equal files.
    fn primitive<T: ArrowPrimitiveType, const W: usize>(
        &self,
        cells: &impl CellAddresses,
        valid: Option<&NullBuffer>,
        read: impl Fn([u8; W]) -> T::Native,
    ) -> ArrayRef {
        let value = |row: usize| read(cell(self.memory, cells.at(row)));
        let values: ScalarBuffer<T::Native> = match valid {
            None => (0..cells.len()).map(value).collect::<Vec<_>>().into(),
            Some(valid) => (0..cells.len())
                .map(|row| if valid.is_valid(row) { value(row) } else { T::Native::default() })
                .collect::<Vec<_>>()
                .into(),
        };
        Arc::new(PrimitiveArray::<T>::new(values, valid.cloned()))
    }

    /// The discriminants of options, combined with the outer nulls.
    fn present(&self, cells: &impl CellAddresses, valid: Option<&NullBuffer>) -> Result<Option<NullBuffer>> {
        let mut bad = None;
        let present = BooleanBuffer::collect_bool(cells.len(), |row| {
            if valid.is_some_and(|valid| valid.is_null(row)) {
                return false;
            }
            let discriminant = self.memory[cells.at(row)];
            if discriminant > 1 {
                bad = Some(discriminant);
            }
            discriminant == 1
        });
        if let Some(bad) = bad {
            bail!("an option has the discriminant {bad}");
        }
        let present = NullBuffer::new(present);
        Ok((present.null_count() > 0).then_some(present))
    }

    /// The pointers and lengths of strings or lists; nulls are empty.
    fn pairs<'p, C: CellAddresses>(
        memory: &'p [u8],
        cells: &'p C,
        valid: Option<&'p NullBuffer>,
    ) -> impl Iterator<Item = (usize, usize)> + use<'p, C> {
        (0..cells.len()).map(move |row| {
            if valid.is_some_and(|valid| valid.is_null(row)) {
                return (0, 0);
            }
            let at = cells.at(row);
            let (start, len) = (u32::from_le_bytes(cell(memory, at)), u32::from_le_bytes(cell(memory, at + 4)));
            (start as usize, len as usize)
        })
    }

    /// The bytes of all cells, concatenated, and the end of each. They are counted before any is copied, because many
    /// cells may point to the same bytes.
    fn gather(&mut self, cells: &impl CellAddresses, valid: Option<&NullBuffer>) -> Result<(Vec<i32>, Vec<u8>)> {
        let total: usize = Self::pairs(self.memory, cells, valid).map(|(_, len)| len).sum();
        self.cx.consume_fuel(total)?;
        ensure!(i32::try_from(total).is_ok(), "a column of {total} bytes is longer than 2 GiB");
        let mut ends = Vec::with_capacity(cells.len() + 1);
        let mut bytes = Vec::with_capacity(total);
        ends.push(0);
        for (start, len) in Self::pairs(self.memory, cells, valid) {
            let Some(cell) = self.memory.get(start..start + len) else {
                bail!("a string or list of {len} bytes at {start:#x} is outside of its memory")
            };
            bytes.extend_from_slice(cell);
            ends.push(bytes.len() as i32);
        }
        Ok((ends, bytes))
    }

    fn strings(&mut self, cells: &impl CellAddresses, valid: Option<&NullBuffer>) -> Result<ArrayRef> {
        let (ends, bytes) = self.gather(cells, valid)?;
        if !bytes.is_ascii() {
            // The concatenation may be valid UTF-8 although a string is not: an end may split a character.
            let whole = simdutf8::basic::from_utf8(&bytes).ok();
            let valid = whole.is_some_and(|text| ends.iter().all(|end| text.is_char_boundary(*end as usize)));
            ensure!(valid, "a string is not UTF-8");
        }
        // SAFETY: the ends ascend from 0 to the length of the bytes, and each string between them is UTF-8.
        let strings = unsafe { StringArray::new_unchecked(offsets(ends), Buffer::from_vec(bytes), valid.cloned()) };
        Ok(Arc::new(strings))
    }

    fn lists(
        &mut self,
        item: InterfaceType,
        cells: &impl CellAddresses,
        valid: Option<&NullBuffer>,
    ) -> Result<ArrayRef> {
        let abi = self.types.canonical_abi(&item);
        let (stride, align) = (abi.size32 as usize, abi.align32 as usize);
        let mut ends = Vec::with_capacity(cells.len() + 1);
        let mut items = Vec::new();
        ends.push(0);
        for (start, len) in Self::pairs(self.memory, cells, valid) {
            if len > 0 {
                let list = check_list(self.cx, self.memory, start, len, stride, align)?;
                // The address of an item, stored below, takes more memory than a small item itself.
                self.cx.consume_fuel(len * size_of::<usize>().saturating_sub(stride))?;
                items.extend((0..len).map(|row| list.at(row)));
                ensure!(i32::try_from(items.len()).is_ok(), "a column of lists has more than 2^31 items");
            }
            ends.push(items.len() as i32);
        }
        let values = self.column(item, &Scattered { at: items.into(), shift: 0 }, None)?;
        let field = Arc::new(Field::new("element", values.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(field, offsets(ends), values, valid.cloned())?))
    }
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

/// The fields of a struct, numbered: `silverd_core::rows::typed` names them.
fn numbered_fields(columns: &[ArrayRef]) -> Fields {
    let field = |(at, column): (usize, &ArrayRef)| Field::new(at.to_string(), column.data_type().clone(), true);
    columns.iter().enumerate().map(field).collect()
}
