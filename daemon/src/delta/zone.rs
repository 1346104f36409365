//! The zone whose days a table's `event_date` holds: a property of the table. A table without it has days in UTC.

use std::path::Path;

use anyhow::Context;
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Metadata, MetadataExt};
use deltalake_core::logstore::LogStoreRef;
use futures::FutureExt;
use silverd_core::zone::{UnknownZone, Zone};

use super::damaged::{read_past, readable_version};
use super::reader::TableReader;

/// The table property.
const TIME_ZONE: &str = "silverd.timeZone";

/// Which zones a table may have that is opened to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZoneCheck {
    /// The rows that are written have days in this one.
    Same(Zone),
    /// All rows are to be moved to their days in this one.
    Moves(Zone),
    /// No row gets another day.
    Any,
}

/// A table's days are those of another zone than pipeline.toml says.
#[derive(Debug, thiserror::Error)]
#[error(
    "the days of table {table} are those of {has}, and pipeline.toml asks for those of {wanted}; nothing is written until they \
     agree: `silverd rebuild {table}` moves all its rows to their days in {wanted}, in one commit, or set time_zone = \"{has}\" \
     for it"
)]
pub(crate) struct ZoneDiffers {
    pub table: String,
    /// As the table's property says.
    pub has: String,
    pub wanted: Zone,
}

impl ZoneCheck {
    /// Fails if rows must not be written to a table with these properties.
    pub(super) fn check(self, table: &str, metadata: &Metadata) -> Result<(), ZoneDiffers> {
        match self {
            Self::Same(wanted) if zone_of(metadata) != Ok(wanted) => {
                Err(ZoneDiffers { table: table.to_owned(), has: name(metadata).to_owned(), wanted })
            }
            Self::Same(_) | Self::Moves(_) | Self::Any => Ok(()),
        }
    }

    /// The zone to move to, if the table has another one.
    pub(super) fn moves_to(self, metadata: &Metadata) -> Option<Zone> {
        match self {
            Self::Moves(wanted) if zone_of(metadata) != Ok(wanted) => Some(wanted),
            Self::Same(_) | Self::Moves(_) | Self::Any => None,
        }
    }
}

/// The zone of a table with these properties.
///
/// # Errors
///
/// If this version of silverd has no rules for it.
pub(super) fn zone_of(metadata: &Metadata) -> Result<Zone, UnknownZone> {
    metadata.configuration().get(TIME_ZONE).map_or(Ok(Zone::UTC), |name| Zone::parse(name))
}

/// The zone of a table at a version.
pub(crate) async fn zone_at(log: &LogStoreRef, version: u64) -> anyhow::Result<Zone> {
    Zone::parse(&zone_name_at(log, version).await?).context("read the table's time zone")
}

/// The same by its name, which this version of silverd may not know.
pub(crate) async fn zone_name_at(log: &LogStoreRef, version: u64) -> anyhow::Result<String> {
    let read = |log: LogStoreRef| {
        let version = readable_version(&log, version);
        let mut table = DeltaTable::new(log);
        async move {
            table.load_version(version).await.with_context(|| format!("load version {version}"))?;
            anyhow::Ok(name(table.snapshot()?.metadata()).to_owned())
        }
        .boxed()
    };
    read_past(log, read).await
}

/// Fails with a `ZoneDiffers` if a table exists whose days are those of another zone.
pub(crate) async fn check_zone(table: &str, path: &Path, wanted: Zone) -> anyhow::Result<()> {
    let Some(reader) = TableReader::open(path)? else { return Ok(()) };
    let Some(version) = reader.version().await? else { return Ok(()) };
    let has = zone_at(reader.log(), version).await?;
    match has == wanted {
        true => Ok(()),
        false => Err(ZoneDiffers { table: table.to_owned(), has: has.name().to_owned(), wanted }.into()),
    }
}

/// The name in the property.
fn name(metadata: &Metadata) -> &str {
    metadata.configuration().get(TIME_ZONE).map_or(Zone::UTC.name(), String::as_str)
}

/// The properties of a new table; none for UTC.
pub(super) fn properties(zone: Zone) -> Option<(&'static str, Option<&'static str>)> {
    (!zone.is_utc()).then(|| (TIME_ZONE, Some(zone.name())))
}

/// The metadata of a table that moves to a zone.
pub(super) fn with_zone(metadata: Metadata, zone: Zone) -> anyhow::Result<Metadata> {
    let changed = match zone.is_utc() {
        true => metadata.remove_config_key(TIME_ZONE),
        false => metadata.add_config_key(TIME_ZONE.to_owned(), zone.name().to_owned()),
    };
    changed.with_context(|| format!("set the table property {TIME_ZONE}"))
}
