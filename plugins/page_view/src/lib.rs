//! Fills the Silver table `page_view`: normalizes the path, and adds the channel, the browser and the device.

mod agent;
mod url;

#[cfg(test)]
mod tests;

use serde::Deserialize;
use silverd_plugin::{Config, Event, Reject, Text, Transform, required};

silverd_plugin::export! {
    plugin: PageView,
    types: "../../wit/types.wit",
    table: "../../wit/silver/page-view.wit",
    world: "shop:silver/page-view-plugin",
    interface: shop::silver::page_view::{Row, Channel, Device},
}

/// The fields of the raw event.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Input<'a> {
    #[serde(borrow)]
    event_id: Text<'a>,
    #[serde(borrow)]
    user_id: Text<'a>,
    #[serde(borrow)]
    ts: Text<'a>,
    // An empty path is the front page; an absent path is an error.
    #[serde(borrow)]
    url: Option<Text<'a>>,
    #[serde(borrow)]
    referrer: Text<'a>,
    #[serde(borrow)]
    ua: Text<'a>,
    #[serde(borrow)]
    session_hint: Text<'a>,
}

/// The plugin. It has no settings.
pub struct PageView {
    agents: agent::Parser,
}

impl Transform for PageView {
    type Rows = Option<Row>;

    fn configure(_: &Config) -> Result<Self, String> {
        Ok(Self { agents: agent::Parser::default() })
    }

    fn transform(&self, event: &Event<'_>) -> Result<Option<Row>, Reject> {
        let input: Input<'_> = event.json()?;
        let event_id = input.event_id.required("event_id")?;
        let user_id = input.user_id.required("user_id")?;
        let ts = input.ts.timestamp("ts")?;
        let url = required("url", input.url)?;
        let referrer = input.referrer.optional();
        let agent = self.agents.parse(input.ua.trimmed());
        Ok(Some(Row {
            event_id: event_id.to_owned(),
            user_id: user_id.to_owned(),
            ts,
            url: url::normalize(url.trimmed()),
            referrer: referrer.map(str::to_owned),
            channel: channel(referrer),
            browser: agent.browser,
            os: agent.os,
            device: agent.device,
            session_hint: input.session_hint.optional().map(str::to_owned),
        }))
    }
}

/// The channel of a referrer. Letter case does not matter.
fn channel(referrer: Option<&str>) -> Channel {
    const CHANNELS: [(Channel, &[&str]); 5] = [
        (Channel::Search, &["google", "bing", "yahoo", "duckduckgo", "ecosia", "baidu", "yandex"]),
        (
            Channel::Social,
            &["facebook", "twitter", "x", "instagram", "linkedin", "pinterest", "reddit", "tiktok", "youtube"],
        ),
        (Channel::Email, &["newsletter", "email"]),
        (Channel::Affiliate, &["affiliate"]),
        (Channel::Direct, &["direct"]),
    ];
    let Some(referrer) = referrer else { return Channel::Direct };
    CHANNELS
        .iter()
        .find(|(_, names)| names.iter().any(|name| name.eq_ignore_ascii_case(referrer)))
        .map_or(Channel::Other, |(channel, _)| *channel)
}
