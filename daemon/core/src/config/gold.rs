//! `[gold.<name>]`: tables that SQL computes from other tables, one day at a time.

use super::pipeline::{Gold, Located, TableName};
use super::read;
use super::section::{self, Root, Section};
use super::walk::Walk;

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 60 * 60 * SECOND_MS;

/// A Gold table's section: its path takes part in the overlap check even if something else in it is wrong.
pub(super) struct GoldSection {
    pub(super) title: String,
    pub(super) path: Located<String>,
    pub(super) checked: Option<Gold>,
}

pub(super) fn gold(walk: &mut Walk, root: &Root) -> Vec<GoldSection> {
    let help = "write one section for every Gold table, such as [gold.daily_metrics]";
    let mut tables = Vec::new();
    for (key, value) in root.tables(walk, "gold", help) {
        let name = read::table_name(walk, key);
        let title = format!("gold.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::GOLD, value) {
            tables.push(gold_table(walk, name, key.get_ref(), &section));
        }
    }
    tables
}

fn gold_table(walk: &mut Walk, name: Option<TableName>, key: &str, section: &Section) -> GoldSection {
    let example = "sql = \"SELECT event_date, count(*) AS orders FROM order_placed GROUP BY event_date\"";
    let sql = section.required(walk, "sql", example, read::located);
    let path = section.path_or(walk, "path", &format!("data/gold/{key}"));
    let refresh = section.optional(walk, "refresh", read::duration(SECOND_MS..=DAY_MS));
    let lookback_days = section.optional(walk, "lookback_days", read::count(0..=31));
    let located = path.clone();
    let checked = || {
        Some(Gold {
            name: name?,
            sql: sql?,
            path,
            refresh_ms: refresh.unwrap_or(Gold::REFRESH_MS),
            lookback_days: lookback_days.unwrap_or(0) as u32,
        })
    };
    GoldSection { title: section.title().to_owned(), path: located, checked: checked() }
}
