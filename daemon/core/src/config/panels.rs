//! `[panel.<name>]`: the panels of the dashboard.

use super::pipeline::{Chart, Panel};
use super::read;
use super::section::{self, Root, Section};
use super::walk::Walk;

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 60 * 60 * SECOND_MS;

pub(super) fn panels(walk: &mut Walk, root: &Root) -> Vec<Option<Panel>> {
    let help = "write one section for every panel, such as [panel.orders]";
    let mut panels = Vec::new();
    for (key, value) in root.tables(walk, "panel", help) {
        let name = read::panel_name(walk, key);
        let title = format!("panel.{}", key.get_ref());
        if let Some(section) = Section::open(walk, &title, section::PANEL, value) {
            panels.push(panel(walk, name, &section));
        }
    }
    panels
}

fn panel(walk: &mut Walk, name: Option<String>, section: &Section) -> Option<Panel> {
    let sql = section.required(walk, "sql", "sql = \"SELECT count(*) FROM live.order_placed\"", read::located);
    let title = section.optional(walk, "title", read::string);
    let charts = [
        ("auto", Chart::Auto),
        ("number", Chart::Number),
        ("line", Chart::Line),
        ("bar", Chart::Bar),
        ("funnel", Chart::Funnel),
        ("table", Chart::Table),
        ("ticker", Chart::Ticker),
    ];
    let chart = section.optional(walk, "chart", read::choice("chart", charts)).unwrap_or_default();
    let refresh = section.optional(walk, "refresh", read::duration(SECOND_MS..=HOUR_MS));
    let unit = section.optional(walk, "unit", read::string);
    let width = section.optional(walk, "width", read::count(1..=4));
    let name = name?;
    Some(Panel {
        title: title.unwrap_or_else(|| as_title(&name)),
        name,
        sql: sql?,
        chart,
        refresh_ms: refresh.unwrap_or(Panel::REFRESH_MS),
        unit,
        width,
    })
}

/// `top_products` as a heading: `Top products`.
fn as_title(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
