//! Decoded events as Arrow columns, one for each field of `input`: for transforms that are no WebAssembly.

use std::sync::Arc;

use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, Decimal128Array, ListArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{ArrowError, DataType, Field as ArrowField, FieldRef, Fields, TimeUnit};

use super::records::Records;
use super::{Enum, EventType, Field, Image, Item, Layout, Region, Slot, Type};
use crate::schema::MONEY_SCALE;

/// An amount of hundredths in 64 bits has up to 19 digits.
const AMOUNT_PRECISION: u8 = 19;
/// The fields of the records of a map.
const MAP: [&str; 2] = ["key", "value"];

impl EventType {
    /// The columns of `input`, by the keys that the fields have in JSON:
    ///
    /// | input | column |
    /// |---|---|
    /// | `bool`, `s8` … `s64`, `f32`, `f64` | the same |
    /// | `u8`, `u16`, `u32` | Int16, Int32, Int64 |
    /// | `u64` | Decimal128(20, 0) |
    /// | `string`, `char`, `json`, `enum` | Utf8 |
    /// | `timestamp`, `date` | Timestamp(µs, UTC), Date32 |
    /// | `money` | Decimal128(19, 2) |
    /// | `list<T>`, a record | List, Struct |
    /// | `list<tuple<string, T>>` | List of a Struct of `key` and `value` |
    pub fn fields(&self) -> Fields {
        match &self.input.ty {
            Type::Record(fields) => fields.iter().map(field).collect(),
            _ => Fields::empty(),
        }
    }

    /// Those columns of the events of an image. It cannot be passed to a guest afterwards.
    pub fn columns(&self, records: &Records<'_>, image: &mut Image) -> Result<Vec<ArrayRef>, ArrowError> {
        // The place of each address holds the number of its block.
        for number in 0..image.blocks().len() {
            let block = image.blocks()[number];
            image.set_pointer(&block, number as u32);
        }
        let reader = Reader { image, records };
        let events = Cells::strided(Region::Events, self.input.at, self.layout, image.len());
        match &self.input.ty {
            Type::Record(fields) => reader.fields(fields, &events, None),
            _ => Ok(Vec::new()),
        }
    }
}

fn field(field: &Field) -> FieldRef {
    slot_field(&field.key, &field.slot)
}

fn slot_field(name: &str, slot: &Slot) -> FieldRef {
    Arc::new(ArrowField::new(name, data_type(&slot.ty), slot.optional.is_some()))
}

fn data_type(ty: &Type) -> DataType {
    match ty {
        Type::Bool => DataType::Boolean,
        Type::Signed { bytes: 1 } => DataType::Int8,
        Type::Signed { bytes: 2 } | Type::Unsigned { bytes: 1 } => DataType::Int16,
        Type::Signed { bytes: 4 } | Type::Unsigned { bytes: 2 } => DataType::Int32,
        Type::Signed { .. } | Type::Unsigned { bytes: 4 } => DataType::Int64,
        Type::Unsigned { .. } => DataType::Decimal128(20, 0),
        Type::Float32 => DataType::Float32,
        Type::Float64 => DataType::Float64,
        Type::Char | Type::Text | Type::Json | Type::Enum(_) => DataType::Utf8,
        Type::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        Type::Date => DataType::Date32,
        Type::Money => DataType::Decimal128(AMOUNT_PRECISION, MONEY_SCALE),
        Type::Record(fields) => DataType::Struct(fields.iter().map(field).collect()),
        Type::List(item) => DataType::List(slot_field("item", &item.slot)),
        Type::Map(item) => DataType::List(Arc::new(ArrowField::new("item", DataType::Struct(map_fields(item)), false))),
    }
}

fn map_fields(item: &Item) -> Fields {
    let key = Arc::new(ArrowField::new(MAP[0], DataType::Utf8, false));
    [key, slot_field(MAP[1], &item.slot)].into_iter().collect()
}

/// The cells of a column: where each is in its region.
#[derive(Clone)]
struct Cells {
    region: Region,
    positions: Positions,
    len: usize,
}

#[derive(Clone)]
enum Positions {
    /// One stride apart.
    Strided { start: u32, stride: u32 },
    /// Items of many lists.
    Scattered { at: Arc<[u32]>, shift: u32 },
}

impl Cells {
    fn strided(region: Region, start: u32, layout: Layout, len: usize) -> Self {
        Self { region, positions: Positions::Strided { start, stride: layout.size }, len }
    }

    fn scattered(at: Vec<u32>) -> Self {
        let len = at.len();
        Self { region: Region::Nested, positions: Positions::Scattered { at: at.into(), shift: 0 }, len }
    }

    fn shifted(&self, by: u32) -> Self {
        let mut cells = self.clone();
        match &mut cells.positions {
            Positions::Strided { start: first, .. } | Positions::Scattered { shift: first, .. } => *first += by,
        }
        cells
    }

    #[inline]
    fn at(&self, row: usize) -> usize {
        match &self.positions {
            Positions::Strided { start, stride } => *start as usize + row * *stride as usize,
            Positions::Scattered { at, shift } => (at[row] + shift) as usize,
        }
    }
}

struct Reader<'i> {
    image: &'i Image,
    records: &'i Records<'i>,
}

impl<'i> Reader<'i> {
    fn fields(&self, fields: &[Field], cells: &Cells, valid: Option<&NullBuffer>) -> Result<Vec<ArrayRef>, ArrowError> {
        fields.iter().map(|field| self.slot(&field.slot, cells, valid)).collect()
    }

    /// `valid` has the nulls of the value that the slot is part of.
    fn slot(&self, slot: &Slot, cells: &Cells, valid: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let cells = cells.shifted(slot.at);
        match slot.optional {
            None => self.value(&slot.ty, &cells, valid),
            Some(payload) => {
                let bytes = self.bytes(&cells);
                let is_outer_valid = |row: usize| valid.is_none_or(|valid| valid.is_valid(row));
                let present =
                    BooleanBuffer::collect_bool(cells.len, |row| is_outer_valid(row) && bytes[cells.at(row)] == 1);
                let present = NullBuffer::new(present);
                let present = (present.null_count() > 0).then_some(present);
                self.value(&slot.ty, &cells.shifted(payload), present.as_ref())
            }
        }
    }

    fn value(&self, ty: &Type, cells: &Cells, valid: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
        Ok(match ty {
            Type::Bool => {
                let bytes = self.bytes(cells);
                let values = BooleanBuffer::collect_bool(cells.len, |row| bytes[cells.at(row)] != 0);
                Arc::new(BooleanArray::new(values, valid.cloned()))
            }
            Type::Signed { bytes: 1 } => self.primitive::<Int8Type, 1>(cells, valid, i8::from_le_bytes),
            Type::Signed { bytes: 2 } => self.primitive::<Int16Type, 2>(cells, valid, i16::from_le_bytes),
            Type::Signed { bytes: 4 } => self.primitive::<Int32Type, 4>(cells, valid, i32::from_le_bytes),
            Type::Signed { .. } => self.primitive::<Int64Type, 8>(cells, valid, i64::from_le_bytes),
            Type::Unsigned { bytes: 1 } => self.primitive::<Int16Type, 1>(cells, valid, |[byte]| byte.into()),
            Type::Unsigned { bytes: 2 } => {
                self.primitive::<Int32Type, 2>(cells, valid, |bytes| u16::from_le_bytes(bytes).into())
            }
            Type::Unsigned { bytes: 4 } => {
                self.primitive::<Int64Type, 4>(cells, valid, |bytes| u32::from_le_bytes(bytes).into())
            }
            Type::Unsigned { .. } => self.decimals(cells, valid, 20, 0, |bytes| u64::from_le_bytes(bytes).into())?,
            Type::Float32 => self.primitive::<Float32Type, 4>(cells, valid, f32::from_le_bytes),
            Type::Float64 => self.primitive::<Float64Type, 8>(cells, valid, f64::from_le_bytes),
            Type::Timestamp => {
                let read = i64::from_le_bytes;
                Arc::new(self.values::<TimestampMicrosecondType, 8>(cells, valid, read).with_timezone("UTC"))
            }
            Type::Date => self.primitive::<Date32Type, 4>(cells, valid, i32::from_le_bytes),
            Type::Money => {
                let read = |bytes| i64::from_le_bytes(bytes).into();
                self.decimals(cells, valid, AMOUNT_PRECISION, MONEY_SCALE, read)?
            }
            Type::Text | Type::Json => self.texts(cells, valid)?,
            Type::Char => {
                let mut buffer = [0; 4];
                let text = |row: usize| {
                    let code = u32::from_le_bytes(self.cell(cells, row));
                    char::from_u32(code).unwrap_or_default().encode_utf8(&mut buffer).to_owned()
                };
                Arc::new(strings(cells.len, valid, text))
            }
            Type::Enum(cases) => Arc::new(strings(cells.len, valid, |row| self.case(cases, cells, row))),
            Type::Record(fields) => {
                let columns = self.fields(fields, cells, valid)?;
                let fields = fields.iter().map(field).collect();
                Arc::new(StructArray::try_new_with_length(fields, columns, valid.cloned(), cells.len)?)
            }
            Type::List(item) => {
                let (ends, items) = self.items(item, cells, valid)?;
                let values = self.slot(&item.slot, &items, None)?;
                Arc::new(ListArray::try_new(slot_field("item", &item.slot), ends, values, valid.cloned())?)
            }
            Type::Map(item) => {
                let (ends, items) = self.items(item, cells, valid)?;
                let members = vec![self.texts(&items, None)?, self.slot(&item.slot, &items, None)?];
                let members = StructArray::try_new_with_length(map_fields(item), members, None, items.len)?;
                let field = Arc::new(ArrowField::new("item", members.data_type().clone(), false));
                Arc::new(ListArray::try_new(field, ends, Arc::new(members), valid.cloned())?)
            }
        })
    }

    fn bytes(&self, cells: &Cells) -> &'i [u8] {
        match cells.region {
            Region::Events => self.image.events(),
            _ => self.image.nested(),
        }
    }

    #[inline]
    fn cell<const W: usize>(&self, cells: &Cells, row: usize) -> [u8; W] {
        cell(self.bytes(cells), cells.at(row))
    }

    /// The cells of absent values are zero.
    fn values<T: ArrowPrimitiveType, const W: usize>(
        &self,
        cells: &Cells,
        valid: Option<&NullBuffer>,
        read: impl Fn([u8; W]) -> T::Native,
    ) -> PrimitiveArray<T> {
        let bytes = self.bytes(cells);
        let values: Vec<_> = (0..cells.len).map(|row| read(cell(bytes, cells.at(row)))).collect();
        PrimitiveArray::new(values.into(), valid.cloned())
    }

    fn primitive<T: ArrowPrimitiveType, const W: usize>(
        &self,
        cells: &Cells,
        valid: Option<&NullBuffer>,
        read: impl Fn([u8; W]) -> T::Native,
    ) -> ArrayRef {
        Arc::new(self.values::<T, W>(cells, valid, read))
    }

    fn decimals(
        &self,
        cells: &Cells,
        valid: Option<&NullBuffer>,
        precision: u8,
        scale: i8,
        read: impl Fn([u8; 8]) -> i128,
    ) -> Result<ArrayRef, ArrowError> {
        let values: Vec<i128> = (0..cells.len).map(|row| read(self.cell(cells, row))).collect();
        let array = Decimal128Array::new(values.into(), valid.cloned());
        Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
    }

    fn case(&self, cases: &Enum, cells: &Cells, row: usize) -> String {
        let discriminant = match cases.bytes {
            1 => self.cell::<1>(cells, row)[0].into(),
            2 => u16::from_le_bytes(self.cell(cells, row)).into(),
            _ => u32::from_le_bytes(self.cell(cells, row)),
        };
        cases.cases.get(discriminant as usize).cloned().unwrap_or_default()
    }

    fn texts(&self, cells: &Cells, valid: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
        let bytes = self.bytes(cells);
        let (mut ends, mut texts) = (Vec::with_capacity(cells.len + 1), Vec::new());
        ends.push(0);
        for row in 0..cells.len {
            let at = cells.at(row);
            // Without a length there may be no block.
            if u32::from_le_bytes(cell(bytes, at + 4)) > 0 {
                let block = &self.image.blocks()[u32::from_le_bytes(cell(bytes, at)) as usize];
                texts.extend_from_slice(self.image.content(self.records, block));
            }
            ends.push(end(texts.len())?);
        }
        Ok(Arc::new(StringArray::try_new(offsets(ends), Buffer::from_vec(texts), valid.cloned())?))
    }

    /// The ends of each list, and the cells of all items.
    fn items(
        &self,
        item: &Item,
        cells: &Cells,
        valid: Option<&NullBuffer>,
    ) -> Result<(OffsetBuffer<i32>, Cells), ArrowError> {
        let bytes = self.bytes(cells);
        let (mut ends, mut items) = (Vec::with_capacity(cells.len + 1), Vec::new());
        ends.push(0);
        for row in 0..cells.len {
            let at = cells.at(row);
            let count = u32::from_le_bytes(cell(bytes, at + 4));
            if count > 0 && valid.is_none_or(|valid| valid.is_valid(row)) {
                let start = self.image.blocks()[u32::from_le_bytes(cell(bytes, at)) as usize].start;
                items.extend((0..count).map(|at| start + at * item.layout.size));
            }
            ends.push(end(items.len())?);
        }
        Ok((offsets(ends), Cells::scattered(items)))
    }
}

#[inline]
fn cell<const W: usize>(bytes: &[u8], at: usize) -> [u8; W] {
    let mut cell = [0; W];
    cell.copy_from_slice(&bytes[at..at + W]);
    cell
}

fn strings(len: usize, valid: Option<&NullBuffer>, mut text: impl FnMut(usize) -> String) -> StringArray {
    (0..len).map(|row| valid.is_none_or(|valid| valid.is_valid(row)).then(|| text(row))).collect()
}

fn end(len: usize) -> Result<i32, ArrowError> {
    i32::try_from(len).map_err(|_| ArrowError::OffsetOverflowError(len))
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}
