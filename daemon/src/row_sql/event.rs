//! The table `event`: the fields of the input, and columns with the origin of the event that the SQL names.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::tokenizer::Token;
use parking_lot::Mutex;
use silverd_core::chunk::Chunk;
use silverd_core::input::{EventType, Image, Records};

use super::error::{SqlError, tokens};

/// The name of the table.
pub(super) const EVENT: &str = "event";
/// The column with the number of the event in its batch. SQL cannot name it.
pub(super) const EVENT_NUMBER: &str = "__event";

/// What SQL can take of the record itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
}

const ORIGINS: [(&str, Origin); 5] = [
    ("_topic", Origin::Topic),
    ("_partition", Origin::Partition),
    ("_offset", Origin::Offset),
    ("_timestamp", Origin::Timestamp),
    ("_key", Origin::Key),
];

/// The columns of `event`.
pub(crate) struct EventColumns {
    pub(crate) ty: EventType,
    comments: Vec<Option<String>>,
    /// Those that the SQL names.
    origins: Vec<Origin>,
    /// All of them; the last one is [`EVENT_NUMBER`].
    schema: SchemaRef,
}

impl EventColumns {
    pub(super) fn of(input: &str, sql: &str) -> Result<Self, SqlError> {
        let (ty, comments) = EventType::of_text(input).map_err(|error| SqlError::new(format!("input: {error}")))?;
        let mut fields: Vec<FieldRef> = ty.fields().iter().cloned().collect();
        let tokens = tokens(sql);
        let is_named =
            |name: &str| tokens.iter().any(|token| matches!(&token.token, Token::Word(word) if word.value == name));
        let mut origins = Vec::new();
        for (name, origin) in ORIGINS {
            if is_named(name) && fields.iter().all(|field| field.name() != name) {
                let (ty, nullable) = origin.data_type();
                fields.push(Arc::new(Field::new(name, ty, nullable)));
                origins.push(origin);
            }
        }
        fields.push(Arc::new(Field::new(EVENT_NUMBER, DataType::UInt32, false)));
        Ok(Self { ty, comments, origins, schema: Arc::new(Schema::new(fields)) })
    }

    pub(super) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The columns that SQL can name.
    pub(super) fn named_schema(&self) -> SchemaRef {
        let fields = self.schema.fields();
        Arc::new(Schema::new(fields[..fields.len() - 1].to_vec()))
    }

    /// The table, whose rows are those of the batch at the time of a query.
    pub(super) fn table(&self, events: Arc<Mutex<RecordBatch>>) -> Result<Arc<dyn TableProvider>, DataFusionError> {
        let partition = Arc::new(EventPartition { schema: self.schema(), events });
        Ok(Arc::new(StreamingTable::try_new(self.schema(), vec![partition])?))
    }

    /// The comment of a field, for a column of its name.
    pub(super) fn comment(&self, name: &str) -> Option<String> {
        let at = self.schema.index_of(name).ok()?;
        self.comments.get(at).cloned().flatten()
    }

    /// The events of an image, which are these records of the chunk.
    pub(crate) fn batch(
        &self,
        records: &Records<'_>,
        rows: &[u32],
        image: &mut Image,
    ) -> Result<RecordBatch, arrow::error::ArrowError> {
        let mut columns = self.ty.columns(records, image)?;
        columns.extend(self.origins.iter().map(|origin| origin.column(records.chunk(), rows)));
        columns.push(Arc::new(UInt32Array::from_iter_values(0..rows.len() as u32)));
        RecordBatch::try_new(self.schema(), columns)
    }
}

impl Origin {
    /// The type, and whether there may be none.
    fn data_type(self) -> (DataType, bool) {
        match self {
            Self::Topic => (DataType::Utf8, false),
            Self::Partition => (DataType::Int32, false),
            Self::Offset => (DataType::Int64, false),
            Self::Timestamp => (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
            Self::Key => (DataType::Utf8, true),
        }
    }

    fn column(self, chunk: &Chunk, rows: &[u32]) -> ArrayRef {
        let rows = rows.iter().map(|row| *row as usize);
        match self {
            Self::Topic => {
                Arc::new(rows.map(|row| Some(chunk.topics().value(chunk.topic_of(row)))).collect::<StringArray>())
            }
            Self::Partition => Arc::new(Int32Array::from_iter_values(rows.map(|row| chunk.partitions()[row]))),
            Self::Offset => Arc::new(Int64Array::from_iter_values(rows.map(|row| chunk.offsets()[row]))),
            Self::Timestamp => {
                let times = TimestampMicrosecondArray::from_iter_values(rows.map(|row| chunk.timestamp(row)));
                Arc::new(times.with_timezone("UTC"))
            }
            Self::Key => {
                let keys = chunk.keys();
                let text = |row| keys.is_valid(row).then(|| std::str::from_utf8(keys.value(row)).ok()).flatten();
                Arc::new(rows.map(text).collect::<StringArray>())
            }
        }
    }
}

#[derive(Debug)]
struct EventPartition {
    schema: SchemaRef,
    events: Arc<Mutex<RecordBatch>>,
}

impl PartitionStream for EventPartition {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let events = futures::stream::iter([Ok(self.events.lock().clone())]);
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), events))
    }
}
