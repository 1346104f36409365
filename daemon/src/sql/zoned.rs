//! Timestamps as a query sees them: the same instants, with the zone of their table.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, make_array};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use silverd_core::zone::Zone;

/// A type whose timestamps have a zone; those without any stay so.
pub(super) fn zoned_type(ty: &DataType, zone: Zone) -> DataType {
    let field = |field: &FieldRef| zoned_field(field, zone);
    match ty {
        DataType::Timestamp(unit, Some(_)) => DataType::Timestamp(*unit, Some(zone.name().into())),
        DataType::List(item) => DataType::List(field(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
        other => other.clone(),
    }
}

pub(super) fn zoned_field(field: &FieldRef, zone: Zone) -> FieldRef {
    match zone.is_utc() {
        true => field.clone(),
        false => Arc::new(Field::clone(field).with_data_type(zoned_type(field.data_type(), zone))),
    }
}

/// The same rows.
pub(super) fn zoned_batch(batch: &RecordBatch, zone: Zone) -> Result<RecordBatch, ArrowError> {
    if zone.is_utc() {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(|column| zoned_column(column, zone)).collect::<Result<Vec<_>, _>>()?;
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(zoned_schema(&batch.schema(), zone)), columns, &rows)
}

pub(super) fn zoned_schema(schema: &Schema, zone: Zone) -> Schema {
    Schema::new(schema.fields().iter().map(|field| zoned_field(field, zone)).collect::<Vec<_>>())
}

fn zoned_column(column: &ArrayRef, zone: Zone) -> Result<ArrayRef, ArrowError> {
    let ty = zoned_type(column.data_type(), zone);
    if ty == *column.data_type() {
        return Ok(column.clone());
    }
    let data = column.to_data();
    let children = data.child_data().iter().map(|child| zoned_column(&make_array(child.clone()), zone));
    let children: Vec<_> = children.collect::<Result<_, _>>()?;
    let children = children.iter().map(|child| child.to_data()).collect();
    Ok(make_array(data.into_builder().data_type(ty).child_data(children).build()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::array::{Array, Int64Array, ListArray, StructArray, TimestampMicrosecondArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::TimeUnit;

    use super::*;

    #[test]
    fn nested_times_keep_their_instants() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1, 2]).with_timezone("UTC"));
        let fields = vec![Field::new("at", utc.clone(), false), Field::new("n", DataType::Int64, false)];
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![7, 8, 9]));
        let structs: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![times.clone(), numbers], None));
        let item = Arc::new(Field::new("element", structs.data_type().clone(), false));
        let lists: ArrayRef = Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([2, 0, 1]), structs, None));
        let batch = RecordBatch::try_from_iter([("at", times), ("lists", lists)]).unwrap();
        assert_eq!(zoned_batch(&batch, Zone::UTC).unwrap(), batch);
        let zoned = zoned_batch(&batch, Zone::parse("Asia/Kolkata").unwrap()).unwrap();
        let expected = DataType::Timestamp(TimeUnit::Microsecond, Some("Asia/Kolkata".into()));
        assert_eq!(zoned.column(0).data_type(), &expected);
        let DataType::List(item) = zoned.column(1).data_type() else { panic!("a list") };
        let DataType::Struct(fields) = item.data_type() else { panic!("a struct") };
        assert_eq!(fields[0].data_type(), &expected);
    }
}
