//! Fills the Silver table `page_view`: normalizes the path, and adds the channel, the browser and the device.

mod agent;
mod url;

#[cfg(test)]
mod tests;

use silverd_plugin::{Config, Reject, Transform, not_blank, required, trimmed};

silverd_plugin::export! {
    plugin: PageView,
    types: "../../wit/types.wit",
    table: "../../wit/silver/page-view.wit",
    world: "shop:silver/page-view-plugin",
    interface: shop::silver::page_view::{Input, Row, Channel, Device},
}

/// The plugin. It has no settings.
pub struct PageView {
    agents: agent::Parser,
}

impl Transform for PageView {
    type Input = Input;
    type Rows = Option<Row>;

    fn configure(_: &Config) -> Result<Self, String> {
        Ok(Self { agents: agent::Parser::default() })
    }

    fn transform(&self, input: Input) -> Result<Option<Row>, Reject> {
        let url = required("url", input.url)?;
        let referrer = not_blank(input.referrer);
        let agent = self.agents.parse(input.ua.as_deref().unwrap_or_default().trim());
        Ok(Some(Row {
            event_id: trimmed(input.event_id),
            user_id: trimmed(input.user_id),
            ts: input.ts,
            url: url::normalize(url.trim()),
            channel: channel(referrer.as_deref()),
            referrer,
            browser: agent.browser,
            os: agent.os,
            device: agent.device,
            session_hint: not_blank(input.session_hint),
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
