//! Checks the text of `pipeline.toml`: the result is a [`Pipeline`], or all errors at once.
//!
//! Nothing here reads a file, the environment or the clock: the text and a look-up for `${NAME}` are passed in, so the
//! same text and variables always give the same result.

mod alert;
mod days;
pub mod diff;
mod env;
mod error;
mod gold;
mod http;
mod literal;
mod maintenance;
mod mask;
mod matching;
pub(crate) mod nearest;
mod notify;
mod panels;
mod paths;
mod pipeline;
mod place;
mod read;
mod renamed;
mod secret;
mod section;
mod silver;
mod source;
mod topics;
mod value;
mod walk;
mod zone;

pub use alert::{Alert, BuiltInAlerts};
pub use days::DAY_STATUS;
pub use error::{ConfigError, ConfigErrors};
pub use matching::{Match, Test};
pub use notify::{
    MailAddress, NotifyCommand, NotifyKind, NotifyReceiver, Smtp, SmtpLogin, SmtpTls, Webhook, WebhookFormat,
};
pub use pipeline::{
    Bronze, Chart, Commit, Compression, Days, Dedup, Gold, Http, Late, Limits, Located, Maintenance, Network,
    OnDataLoss, Panel, Pipeline, Quarantine, Reload, ReloadMode, Role, Secret, SilverTable, Source, SqlInput,
    SqlLimits, SqlTransform, Start, State, TableName, Tls, Token, Transform, Unrouted, WhenFull,
};
pub use place::place_in_string;
pub use renamed::{Fixed, Note, fix};
pub use secret::SecretText;
pub use topics::{TopicPattern, Topics};

use section::Root;
use toml::de::DeTable;
use walk::Walk;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Checks the text of a `pipeline.toml`; `env` gives the values of the variables in it.
///
/// Syntax errors are among the errors; the rest of such a text is checked as far as it could be read.
pub fn check(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Pipeline, ConfigErrors> {
    let (tree, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk::new(text, env, &errors);
    let pipeline = pipeline(&mut walk, &Root::new(tree.get_ref()));
    let errors = walk.finish();
    match pipeline {
        Some(pipeline) if errors.is_empty() => Ok(pipeline),
        _ => Err(errors),
    }
}

/// Every section with its keys; `silver.<name>` stands for all Silver tables.
pub fn keys() -> Vec<(&'static str, Vec<&'static str>)> {
    section::keys()
}

/// Reads every section before the first `?`, so that all errors are reported at once.
fn pipeline(walk: &mut Walk, root: &Root) -> Option<Pipeline> {
    root.report_unknown(walk);
    let time_zone = root.optional(walk, "time_zone", zone::zone).unwrap_or_default();
    let source = source::source(walk, root);
    let bronze = bronze(walk, root);
    let silver = silver::silver(walk, root, time_zone);
    let quarantine = quarantine(walk, root);
    let late = late(walk, root);
    let days = days::days(walk, root);
    let state = state(walk, root);
    let commit = commit(walk, root);
    let (limits, sql_limits) = limits(walk, root);
    let maintenance = maintenance::maintenance(walk, root);
    let reload = reload(walk, root);
    let gold = gold::gold(walk, root, time_zone);
    let (built_in_alerts, alerts) = alert::alerts(walk, root);
    let (http, panels) = (http::http(walk, root), panels::panels(walk, root));
    let notify = notify::receivers(walk, root, time_zone);
    let always = [("bronze", &bronze.path), ("quarantine", &quarantine.path), ("days", &days.path)];
    paths::report_overlaps(walk, always, &silver, &late, &state, &gold);
    let silver = silver.into_iter().map(|table| table.checked).collect::<Option<Vec<_>>>()?;
    let gold = gold.into_iter().map(|table| table.checked).collect::<Option<Vec<_>>>()?;
    let panels = panels.into_iter().collect::<Option<Vec<_>>>()?;
    let notify = notify.into_iter().collect::<Option<Vec<_>>>()?;
    let alerts = alerts.into_iter().collect::<Option<Vec<_>>>()?;
    Some(Pipeline {
        time_zone,
        source: source?,
        bronze,
        silver,
        quarantine,
        late,
        days,
        state,
        commit,
        limits,
        sql_limits,
        maintenance,
        reload,
        gold,
        panels,
        notify,
        built_in_alerts,
        alerts,
        http,
    })
}

fn bronze(walk: &mut Walk, root: &Root) -> Bronze {
    let section = root.section(walk, "bronze");
    Bronze {
        path: section.path_or(walk, "path", "data/bronze/events"),
        compression: section.optional(walk, "compression", read::compression).unwrap_or_default(),
    }
}

fn quarantine(walk: &mut Walk, root: &Root) -> Quarantine {
    let section = root.section(walk, "quarantine");
    let choices = [("count", Unrouted::Count), ("quarantine", Unrouted::Quarantine)];
    Quarantine {
        path: section.path_or(walk, "path", "data/quarantine"),
        unrouted: section.optional(walk, "unrouted", read::choice("unrouted", choices)).unwrap_or_default(),
    }
}

fn late(walk: &mut Walk, root: &Root) -> Late {
    let section = root.section(walk, "late");
    Late { path: section.path_or(walk, "path", "data/silver/late") }
}

fn state(walk: &mut Walk, root: &Root) -> State {
    let section = root.section(walk, "state");
    State { path: section.path_or(walk, "path", "data/.silverd") }
}

fn commit(walk: &mut Walk, root: &Root) -> Commit {
    let section = root.section(walk, "commit");
    let default = Commit::default();
    Commit {
        interval_ms: section.optional(walk, "interval", read::duration(10..=600_000)).unwrap_or(default.interval_ms),
        rows_max: section.optional(walk, "rows_max", read::count(1..=5_000_000)).unwrap_or(default.rows_max),
        bytes_max: section.optional(walk, "bytes_max", read::size(64 * KIB..=GIB)).unwrap_or(default.bytes_max),
        fsync: section.optional(walk, "fsync", read::boolean).unwrap_or(default.fsync),
    }
}

fn limits(walk: &mut Walk, root: &Root) -> (Limits, SqlLimits) {
    let section = root.section(walk, "limits");
    let (default, sql) = (Limits::default(), SqlLimits::default());
    let sql = SqlLimits {
        memory_bytes_max: section
            .optional(walk, "sql_memory_max", read::size(64 * MIB..=64 * GIB))
            .unwrap_or(sql.memory_bytes_max),
        seconds_max: section
            .optional(walk, "sql_seconds_max", read::count(1..=86_400))
            .map_or(sql.seconds_max, |seconds| seconds as u64),
    };
    // A 32-bit guest addresses 4 GiB in pages of 64 KiB; the last page would make the size overflow 32 bits.
    let memory = 2 * MIB..=4 * GIB - 64 * KIB;
    let limits = Limits {
        memory_bytes_max: section
            .optional(walk, "memory_bytes_max", read::size(memory))
            .unwrap_or(default.memory_bytes_max),
        transform_ms_max: section
            .optional(walk, "transform_time_max", read::duration(1..=600_000))
            .unwrap_or(default.transform_ms_max),
        output_bytes_max: section
            .optional(walk, "output_bytes_max", read::size(64 * KIB..=2 * GIB))
            .unwrap_or(default.output_bytes_max),
        batch_rows_max: section
            .optional(walk, "batch_rows_max", read::count(1..=1_000_000))
            .unwrap_or(default.batch_rows_max),
        batch_bytes_max: section
            .optional(walk, "batch_bytes_max", read::size(KIB..=GIB))
            .unwrap_or(default.batch_bytes_max),
        log_lines_per_second: section
            .optional(walk, "log_lines_per_second", read::count(1..=10_000))
            .unwrap_or(default.log_lines_per_second),
    };
    (limits, sql)
}

fn reload(walk: &mut Walk, root: &Root) -> Reload {
    let section = root.section(walk, "reload");
    let default = Reload::default();
    let modes = [("watch", ReloadMode::Watch), ("manual", ReloadMode::Manual)];
    Reload {
        mode: section.optional(walk, "mode", read::choice("mode", modes)).unwrap_or(default.mode),
        shadow_events: section
            .optional(walk, "shadow_events", read::count(0..=100_000))
            .unwrap_or(default.shadow_events),
        max_new_rejects: section.optional(walk, "max_new_rejects", read::percent).unwrap_or(default.max_new_rejects),
    }
}
