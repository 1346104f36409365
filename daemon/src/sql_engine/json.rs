//! Functions for JSON in text: `json_get_str(value, 'user', 'id')`. A path is made of keys and of indexes that begin at 0.
//!
//! | function | gives |
//! |---|---|
//! | `json_get(json, path…)` | the value at the path, as JSON |
//! | `json_as_text(json, path…)` | a string's content, and the JSON of any other value |
//! | `json_get_str` | a string's content |
//! | `json_get_int` | a whole number of 64 bits, written without a fraction |
//! | `json_get_float` | a number |
//! | `json_get_bool` | true or false |
//! | `json_get_array` | the items of an array, each as JSON |
//! | `json_length` | the number of items or members |
//! | `json_contains` | whether there is a value at the path, which may be null |
//!
//! All but the last give null where there is no such value, and where the text is not JSON.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::builder::{ListBuilder, StringBuilder};
use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use silverd_core::json::{Json, Kind, Tape};

/// What a function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Wanted {
    Json,
    Text,
    Str,
    Int,
    Float,
    Bool,
    Array,
    Length,
    Contains,
}

const FUNCTIONS: [(&str, Wanted); 9] = [
    ("json_get", Wanted::Json),
    ("json_as_text", Wanted::Text),
    ("json_get_str", Wanted::Str),
    ("json_get_int", Wanted::Int),
    ("json_get_float", Wanted::Float),
    ("json_get_bool", Wanted::Bool),
    ("json_get_array", Wanted::Array),
    ("json_length", Wanted::Length),
    ("json_contains", Wanted::Contains),
];

pub(super) fn functions() -> impl Iterator<Item = Arc<ScalarUDF>> {
    FUNCTIONS.into_iter().map(|(name, wanted)| {
        let signature = Signature::one_of(vec![TypeSignature::VariadicAny], Volatility::Immutable);
        Arc::new(ScalarUDF::from(JsonFunction { name, wanted, signature }))
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    wanted: Wanted,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let is_text = |ty: &DataType| ty.is_string() || ty.is_binary() || ty.is_null();
        let Some((json, path)) = types.split_first().filter(|(json, _)| is_text(json)) else {
            let found = types.first().map_or_else(|| "nothing".to_owned(), DataType::to_string);
            return Err(self.error(&format!("expected JSON as text first, found {found}")));
        };
        if let Some(part) = path.iter().find(|part| !is_text(part) && !part.is_integer()) {
            return Err(self.error(&format!("expected a path of keys and of indexes, found {part} (in {json})")));
        }
        Ok(match self.wanted {
            Wanted::Json | Wanted::Text | Wanted::Str => DataType::Utf8,
            Wanted::Int | Wanted::Length => DataType::Int64,
            Wanted::Float => DataType::Float64,
            Wanted::Bool | Wanted::Contains => DataType::Boolean,
            Wanted::Array => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let arrays = args.args.into_iter().map(|arg| arg.into_array(rows)).collect::<Result<Vec<_>>>()?;
        let mut arrays = arrays.into_iter();
        let json = arrays.next().ok_or_else(|| self.error("expected JSON as text"))?;
        let json = cast(&json, &DataType::Utf8)?;
        let path = arrays.map(|part| Part::of(&part)).collect::<Result<Vec<_>>>()?;
        let result = self.result(json.as_string(), &path);
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&result, 0)?),
            false => ColumnarValue::Array(result),
        })
    }
}

impl JsonFunction {
    fn error(&self, what: &str) -> DataFusionError {
        DataFusionError::Plan(format!("{}: {what}, such as {}(body, 'user', 'id')", self.name, self.name))
    }

    fn result(&self, json: &StringArray, path: &[Part]) -> ArrayRef {
        let mut found = Finder { json, path, tape: Tape::default() };
        let rows = 0..json.len();
        match self.wanted {
            Wanted::Json => Arc::new(rows.map(|row| found.at(row)?.json().map(str::to_owned)).collect::<StringArray>()),
            Wanted::Text => {
                Arc::new(rows.map(|row| Some(found.at(row)?.text()?.into_owned())).collect::<StringArray>())
            }
            Wanted::Str => {
                Arc::new(rows.map(|row| Some(found.at(row)?.string()?.into_owned())).collect::<StringArray>())
            }
            Wanted::Int => Arc::new(rows.map(|row| found.at(row)?.number()?.parse().ok()).collect::<Int64Array>()),
            Wanted::Float => {
                let finite = |number: &f64| number.is_finite();
                let number = |row| found.at(row)?.number()?.parse().ok().filter(finite);
                Arc::new(rows.map(number).collect::<Float64Array>())
            }
            Wanted::Bool => Arc::new(rows.map(|row| found.at(row)?.boolean()).collect::<BooleanArray>()),
            Wanted::Contains => {
                let contains = |row| found.is_json(row).then(|| found.at(row).is_some());
                Arc::new(rows.map(contains).collect::<BooleanArray>())
            }
            Wanted::Length => Arc::new(rows.map(|row| found.at(row)?.length()).collect::<Int64Array>()),
            Wanted::Array => {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for row in rows {
                    match found.at(row).and_then(|value| value.items()) {
                        Some(items) => lists.append_value(items.into_iter().map(Some)),
                        None => lists.append_null(),
                    }
                }
                Arc::new(lists.finish())
            }
        }
    }
}

/// A part of the paths of all rows.
enum Part {
    Keys(ArrayRef),
    Indexes(ArrayRef),
}

impl Part {
    fn of(part: &ArrayRef) -> Result<Self> {
        Ok(match part.data_type().is_integer() {
            true => Self::Indexes(cast(part, &DataType::Int64)?),
            false => Self::Keys(cast(part, &DataType::Utf8)?),
        })
    }
}

struct Finder<'a> {
    json: &'a StringArray,
    path: &'a [Part],
    tape: Tape,
}

/// A value in a JSON text.
struct Found<'f> {
    json: Json<'f>,
    node: usize,
}

impl Finder<'_> {
    fn is_json(&mut self, row: usize) -> bool {
        self.json.is_valid(row) && self.tape.read(self.json.value(row).as_bytes()).is_ok()
    }

    /// The value at the path of a row.
    fn at(&mut self, row: usize) -> Option<Found<'_>> {
        if !self.is_json(row) {
            return None;
        }
        let json = Json { text: self.json.value(row).as_bytes(), tape: &self.tape };
        let mut node = 0;
        for part in self.path {
            node = match (part, json.kind(node)) {
                (Part::Keys(keys), Kind::Object) if keys.is_valid(row) => {
                    json.tape.member(json.text, node, keys.as_string::<i32>().value(row))?
                }
                (Part::Indexes(indexes), Kind::Array) if indexes.is_valid(row) => {
                    let index = usize::try_from(indexes.as_primitive::<Int64Type>().value(row)).ok()?;
                    json.tape.items(node).nth(index)?
                }
                _ => return None,
            };
        }
        Some(Found { json, node })
    }
}

impl<'f> Found<'f> {
    fn kind(&self) -> Kind {
        self.json.kind(self.node)
    }

    fn json(&self) -> Option<&'f str> {
        Some(self.json.json(self.node))
    }

    fn string(&self) -> Option<Cow<'f, str>> {
        matches!(self.kind(), Kind::Text | Kind::Escaped).then(|| self.json.content(self.node))
    }

    fn text(&self) -> Option<Cow<'f, str>> {
        match self.kind() {
            Kind::Null => None,
            _ => self.string().or_else(|| self.json().map(Cow::Borrowed)),
        }
    }

    fn number(&self) -> Option<&'f str> {
        (self.kind() == Kind::Number).then(|| self.json.raw(self.node))
    }

    fn boolean(&self) -> Option<bool> {
        match self.kind() {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn length(&self) -> Option<i64> {
        let count = match self.kind() {
            Kind::Array => self.json.tape.items(self.node).count(),
            Kind::Object => self.json.tape.members(self.node).count(),
            _ => return None,
        };
        i64::try_from(count).ok()
    }

    fn items(&self) -> Option<Vec<&'f str>> {
        let is_array = self.kind() == Kind::Array;
        is_array.then(|| self.json.tape.items(self.node).map(|item| self.json.json(item)).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::util::display::array_value_to_string;
    use datafusion::prelude::SessionConfig;

    use crate::sql_engine::bounded_context;

    #[tokio::test]
    async fn values_are_found_by_their_paths() {
        let context = bounded_context(1 << 20, SessionConfig::new()).unwrap();
        let json =
            r#"{"a": [1, "x\u00e4", {"b": true, "n": null}], "t": "text", "f": 1.5, "big": 12345678901234567890}"#;
        for (sql, expected) in [
            ("json_get(j, 'a', 2)", r#"{"b": true, "n": null}"#),
            ("json_get(j, 't')", "\"text\""),
            ("json_get(j, 'a', -1)", ""),
            ("json_get(j)", json),
            ("json_as_text(j, 't')", "text"),
            ("json_as_text(j, 'a', 1)", "xä"),
            ("json_as_text(j, 'f')", "1.5"),
            ("json_as_text(j, 'a', 2, 'n')", ""),
            ("json_get_str(j, 'f')", ""),
            ("json_get_int(j, 'a', 0)", "1"),
            ("json_get_int(j, 'f')", ""),
            ("json_get_int(j, 'big')", ""),
            ("json_get_float(j, 'f')", "1.5"),
            ("json_get_bool(j, 'a', 2, 'b')", "true"),
            ("json_length(j)", "4"),
            ("json_length(j, 'a')", "3"),
            ("json_length(j, 't')", ""),
            ("json_contains(j, 'a', 2, 'n')", "true"),
            ("json_contains(j, 'a', 3)", "false"),
            ("json_get_array(j, 'a')", r#"[1, "x\u00e4", {"b": true, "n": null}]"#),
            ("json_get(substr(j, 2), 't')", ""),
            ("json_get(CAST(NULL AS VARCHAR), 't')", ""),
        ] {
            let query = format!("SELECT {sql} FROM (VALUES ('{json}')) AS v (j)");
            let batches = context.sql(&query).await.unwrap().collect().await.unwrap();
            assert_eq!(array_value_to_string(batches[0].column(0), 0).unwrap(), expected, "{sql}");
        }
        let error = context.sql("SELECT json_get(1, 'a')").await.unwrap_err();
        assert!(error.to_string().contains("json_get: expected JSON as text first, found Int64"), "{error}");
    }
}
