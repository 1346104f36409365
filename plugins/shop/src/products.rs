//! Stock keeping units, and the table of products.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use csv::{ReaderBuilder, StringRecord, Trim};
use silverd_plugin::Config;

/// The largest number of a stock keeping unit: it has five digits.
const SKU_MAX: u32 = 99_999;

/// A stock keeping unit. Its normal form is `SKU-` and five digits; `sku-12` and ` SKU-00012 ` become `SKU-00012`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sku {
    number: u32,
}

impl FromStr for Sku {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (prefix, digits) = text.trim().split_at_checked(4).ok_or(())?;
        if !prefix.eq_ignore_ascii_case("SKU-") || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(());
        }
        let number = digits.parse().map_err(|_| ())?;
        if number > SKU_MAX { Err(()) } else { Ok(Self { number }) }
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SKU-{:05}", self.number)
    }
}

/// The category of every known product, from the reference file `products`.
#[derive(Debug)]
pub struct Products {
    categories: HashMap<Sku, String>,
}

impl Products {
    /// Reads the reference file `products`, a CSV with the columns `sku` and `category`; it ignores other columns.
    ///
    /// # Errors
    /// A sentence for the engineer: the wrong line, or the missing edit in `pipeline.toml`.
    pub fn from_config(config: &Config) -> Result<Self, String> {
        let csv = config.reference("products").ok_or(
            "this plugin needs the reference file `products`: add \
             `reference = { products = \"data/reference/products.csv\" }` to this table in pipeline.toml",
        )?;
        Self::from_csv(csv).map_err(|error| {
            let CsvError { position, message } = error;
            format!("reference file `products`, line {}: {message}", line(csv, position))
        })
    }

    /// The product's category; `None` if the file does not have the product.
    pub fn category(&self, sku: Sku) -> Option<&str> {
        self.categories.get(&sku).map(String::as_str)
    }

    fn from_csv(csv: &[u8]) -> Result<Self, CsvError> {
        let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(csv);
        let headers = reader.headers()?.clone();
        let column = |name: &str| {
            let message = format!("no column `{name}`; expected the header `sku,category,name`");
            let found = headers.iter().position(|header| header.eq_ignore_ascii_case(name));
            found.ok_or(CsvError { position: 0, message })
        };
        let (sku_column, category_column) = (column("sku")?, column("category")?);

        let mut categories = HashMap::new();
        let mut record = StringRecord::new();
        while reader.read_record(&mut record)? {
            let error = |message| CsvError { position: record.position().map_or(0, csv::Position::byte), message };
            let (text, category) = (&record[sku_column], &record[category_column]);
            let sku: Sku =
                text.parse().map_err(|()| error(format!("{text:?} is not a SKU; expected one such as SKU-00012")))?;
            if category.is_empty() {
                return Err(error(format!("{sku} has no category")));
            }
            if categories.insert(sku, category.to_owned()).is_some() {
                return Err(error(format!("{sku} is listed twice")));
            }
        }
        Ok(Self { categories })
    }
}

/// An error in the file, and the byte position of its record.
struct CsvError {
    position: u64,
    message: String,
}

impl From<csv::Error> for CsvError {
    fn from(error: csv::Error) -> Self {
        let message = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields; expected {expected_len}, as in the header")
            }
            csv::ErrorKind::Utf8 { .. } => "not UTF-8".to_owned(),
            _ => error.to_string(),
        };
        Self { position: error.position().map_or(0, csv::Position::byte), message }
    }
}

/// The number of the line on which the record at this byte position starts. The reader's own line number is wrong after
/// empty lines and after `\r\n`, because it counts these as part of the next record.
fn line(csv: &[u8], position: u64) -> usize {
    let (before, record) = csv.split_at(csv.len().min(position as usize));
    let breaks = record.iter().take_while(|byte| b"\r\n".contains(byte));
    1 + before.iter().chain(breaks).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skus_are_normalized() {
        let check = |text: &str, expected: Option<&str>| {
            let found = text.parse::<Sku>().ok().map(|sku| sku.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        };
        check("SKU-00012", Some("SKU-00012"));
        check(" SKU-00012 ", Some("SKU-00012"));
        check("sku-12", Some("SKU-00012"));
        check("Sku-000000012", Some("SKU-00012"));
        check("SKU-99999", Some("SKU-99999"));
        check("SKU-100000", None);
        check("SKU-", None);
        check("SKU-+12", None);
        check("SKU-1 2", None);
        check("SKU00012", None);
        check("12", None);
        check("", None);
        check("ßßß", None);
        check("SKU-99999999999999999999", None);
    }

    #[test]
    fn products_are_read_from_csv() {
        let csv = "sku,category,name\nSKU-00001, books ,\"Atlas, large\"\r\n\nsku-2,toys,Ball\n";
        let products = Products::from_config(&Config::new().with_reference("products", csv.as_bytes()));
        let products = products.expect("a table of products");
        let check = |sku: &str, expected: Option<&str>| {
            assert_eq!(sku.parse().ok().and_then(|sku| products.category(sku)), expected, "{sku}");
        };
        check("SKU-00001", Some("books"));
        check("SKU-00002", Some("toys"));
        check("SKU-00003", None);
    }

    #[test]
    fn invalid_csv_is_reported_with_its_line() {
        let check = |csv: &[u8], expected: &str| {
            let found = Products::from_config(&Config::new().with_reference("products", csv));
            assert_eq!(found.map(|_| ()), Err(format!("reference file `products`, line {expected}")));
        };
        check(b"", "1: no column `sku`; expected the header `sku,category,name`");
        check(b"sku,name\n", "1: no column `category`; expected the header `sku,category,name`");
        check(b"sku,category\nSKU-00001,books\nX1,toys\n", "3: \"X1\" is not a SKU; expected one such as SKU-00012");
        check(b"sku,category\nSKU-00001,\n", "2: SKU-00001 has no category");
        check(b"sku,category\nSKU-00001,books\nsku-1,toys\n", "3: SKU-00001 is listed twice");
        check(b"sku,category\nSKU-00001,books\n\nSKU-00002\n", "4: 1 fields; expected 2, as in the header");
        check(b"sku,category\r\nSKU-00001,books\r\n\r\nSKU-00002,\r\n", "4: SKU-00002 has no category");
        check(b"sku,category\nSKU-00001,b\xffks\n", "2: not UTF-8");
    }

    #[test]
    fn missing_file_is_reported_with_the_edit_that_helps() {
        let error = Products::from_config(&Config::new()).expect_err("no table");
        assert_eq!(
            error,
            "this plugin needs the reference file `products`: add \
             `reference = { products = \"data/reference/products.csv\" }` to this table in pipeline.toml"
        );
    }
}
