//! `silverd plugin new --from-events`: the parts of a plugin, made of the newest events of its kind.

use std::path::{Path, PathBuf};

use silverd_core::infer::{self, By, KindOfEvent, PluginParts, Report, Values};
use tokio_util::sync::CancellationToken;

use super::scaffold::Names;
use crate::app::setup::Setup;
use crate::app::wrong_use;
use crate::cli::infer::{EventSource, Events, look_by};
use crate::delta::is_table;

/// How many of the newest events are looked at.
const EVENTS: usize = 1_000;

/// The parts for the kind of event that the names say. `file`: where the events are, if not in Bronze or the topic.
pub(super) async fn parts_of_events(
    config: &Path,
    file: Option<PathBuf>,
    names: &Names<'_>,
    values: Values,
    stop: CancellationToken,
) -> anyhow::Result<PluginParts> {
    let from = match file {
        Some(file) => EventSource::File(file),
        None => bronze_or_topic(config)?,
    };
    let events = Events::read(config, &from, EVENTS, stop).await?;
    let by = infer::field_named(names.field, &events.events).map_or(By::Auto, By::Field);
    let report = look_by(&events, &by, values);
    let Some(kind) = kind_of(&report, names) else {
        let kinds: Vec<_> = report.kinds.iter().filter_map(|kind| kind.value.as_deref()).collect();
        wrong_use!(
            "{} has no events of kind `{}`: name one with --event-type. {}",
            events.origin,
            names.event_type,
            if kinds.is_empty() {
                "No field splits its events into kinds".to_owned()
            } else {
                format!("The kinds are {}", kinds.join(", "))
            }
        );
    };
    Ok(PluginParts::of(kind, &events.events, values))
}

/// Bronze if there is one, since it needs no broker.
fn bronze_or_topic(config: &Path) -> anyhow::Result<EventSource> {
    let setup = Setup::read(config)?;
    Ok(match is_table(&setup.base_dir.join(&**setup.pipeline.bronze.path)) {
        true => EventSource::Bronze { topic: None },
        false => EventSource::Topic { topic: None, brokers: None },
    })
}

/// The kind of this value, or the only one.
fn kind_of<'r>(report: &'r Report, names: &Names<'_>) -> Option<&'r KindOfEvent> {
    let of_value = report.kinds.iter().find(|kind| kind.value.as_deref() == Some(names.event_type));
    match &report.kinds[..] {
        [only] if only.field.is_none() => Some(only),
        _ => of_value,
    }
}
