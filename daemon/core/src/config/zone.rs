//! `time_zone`: the name of a time zone.

use super::error::ConfigError;
use super::read;
use super::value::Value;
use super::walk::Walk;
use crate::zone::Zone;

/// An IANA name, such as `"Europe/Berlin"`.
pub(super) fn zone(walk: &mut Walk, value: Value) -> Option<Zone> {
    let name = read::string(walk, value)?;
    let report = |unknown: crate::zone::UnknownZone| {
        let what = format!("unknown time zone `{}`", unknown.name);
        walk.report(ConfigError::new(value.span(), what, "expected the name of a time zone", Some(unknown.help())));
    };
    Zone::parse(&name).map_err(report).ok()
}
