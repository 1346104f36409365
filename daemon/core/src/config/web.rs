//! `[http]` and `[panel.<name>]`: the dashboard and its panels.

use super::error::ConfigError;
use super::literal;
use super::pipeline::{Chart, Http, Located, Panel, Secret};
use super::read;
use super::section::{self, Root, Section};
use super::value::Value;
use super::walk::Walk;

const SECOND_MS: u64 = 1_000;
const HOUR_MS: u64 = 60 * 60 * SECOND_MS;
/// Shorter tokens can be guessed.
const TOKEN_CHARACTERS_MIN: usize = 16;

pub(super) fn http(walk: &mut Walk, root: &Root) -> Http {
    let section = root.section(walk, "http");
    let listen = section.optional(walk, "listen", |walk, value| {
        let listen = read::parsed(literal::listen)(walk, value)?;
        Some(Located::new(listen, value.span()))
    });
    let named = section.has("token");
    let token = section.optional(walk, "token", token);
    if let Some(listen) = &listen
        && listen.value.is_some_and(|address| !address.ip().is_loopback())
        && !named
    {
        let what = "other machines can reach this address, but [http] has no token";
        let label = "not a loopback address";
        let help = "add `token = \"${SILVERD_TOKEN}\"` to [http], or listen on \"127.0.0.1:8080\"";
        walk.report(ConfigError::new(listen.span.clone(), what, label, Some(help.to_owned())));
    }
    Http { listen: listen.map_or(Some(Http::LISTEN), |listen| listen.value), token }
}

fn token(walk: &mut Walk, value: Value) -> Option<Secret> {
    let token = read::expanded(walk, value)?;
    let graphic = token.bytes().all(|byte| byte.is_ascii_graphic());
    let label = match token.len() {
        TOKEN_CHARACTERS_MIN.. if graphic => return Some(Secret::new(token)),
        TOKEN_CHARACTERS_MIN.. => "expected letters, digits and punctuation, without spaces".to_owned(),
        _ => format!("expected at least {TOKEN_CHARACTERS_MIN} characters"),
    };
    let help = "generate one with `openssl rand -hex 16`, and pass it in an environment variable";
    walk.report(ConfigError::new(value.span(), "this token cannot be used", label, Some(help.to_owned())));
    None
}

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
