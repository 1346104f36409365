//! `[gold.<name>]`: tables that SQL computes from other tables, one day at a time.

use super::days::DAY_STATUS;
use super::error::ConfigError;
use super::pipeline::{Gold, Located, TableName};
use super::read;
use super::section::{self, Root, Section};
use super::value::Key;
use super::walk::Walk;
use super::zone;
use crate::zone::Zone;

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// A Gold table's section: its path takes part in the overlap check even if something else in it is wrong.
pub(super) struct GoldSection {
    pub(super) title: String,
    pub(super) path: Located<String>,
    pub(super) checked: Option<Gold>,
}

pub(super) fn gold(walk: &mut Walk, root: &Root, time_zone: Zone) -> Vec<GoldSection> {
    let help = "write one section for every Gold table, such as [gold.daily_metrics]";
    let mut tables = Vec::new();
    for (key, value) in root.tables(walk, "gold", help) {
        let name = read::table_name(walk, key);
        report_reserved(walk, key);
        let title = format!("gold.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::GOLD, value) {
            tables.push(gold_table(walk, name, key.get_ref(), &section, time_zone));
        }
    }
    tables
}

fn gold_table(
    walk: &mut Walk,
    name: Option<TableName>,
    key: &str,
    section: &Section,
    of_pipeline: Zone,
) -> GoldSection {
    let example = "sql = \"SELECT event_date, count(*) AS orders FROM order_placed GROUP BY event_date\"";
    let sql = section.required(walk, "sql", example, read::located);
    let path = section.path_or(walk, "path", &format!("data/gold/{key}"));
    let refresh = section.optional(walk, "refresh", read::duration(SECOND_MS..=DAY_MS));
    let lookback_days = section.optional(walk, "lookback_days", read::count(0..=31));
    let time_zone = section.optional(walk, "time_zone", zone::zone).unwrap_or(of_pipeline);
    let located = path.clone();
    let checked = || {
        Some(Gold {
            name: name?,
            sql: sql?,
            path,
            refresh_ms: refresh.unwrap_or(Gold::REFRESH_MS),
            lookback_days: lookback_days.unwrap_or(0) as u32,
            time_zone,
        })
    };
    GoldSection { title: section.title().to_owned(), path: located, checked: checked() }
}

/// silverd writes a table of this name.
fn report_reserved(walk: &mut Walk, key: Key) {
    if &**key.get_ref() == DAY_STATUS {
        let what = format!("`{DAY_STATUS}` is the name of the table in which silverd says which days are final");
        let help = "give the Gold table another name; `[days] path` sets the folder of gold.day_status".to_owned();
        walk.report(ConfigError::new(key.span(), what, "reserved", Some(help)));
    }
}
