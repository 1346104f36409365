//! The body for an incoming webhook of Slack: blocks, and a text for devices that do not show them.
//! <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>

use serde_json::{Value, json};

use super::Notification;
use crate::plain_text::one_line;
use crate::zone::Zone;

/// Slack's limits.
const HEADER_CHARS_MAX: usize = 150;
const FIELDS_MAX: usize = 10;

pub fn body(notification: &Notification, zone: Zone) -> Value {
    let headline = notification.headline();
    let mut blocks = vec![json!({ "type": "header", "text": plain(&one_line(&headline, HEADER_CHARS_MAX)) })];
    for text in [&notification.summary, &notification.description] {
        // Slack refuses empty texts.
        if !text.trim().is_empty() {
            blocks.push(json!({ "type": "section", "text": plain(text) }));
        }
    }
    let facts = notification.facts();
    let fields: Vec<Value> =
        facts.iter().take(FIELDS_MAX).map(|(name, value)| plain(&format!("{name}: {value}"))).collect();
    if !fields.is_empty() {
        blocks.push(json!({ "type": "section", "fields": fields }));
    }
    blocks.push(json!({ "type": "context", "elements": [plain(&notification.times(zone))] }));
    if let Some(url) = &notification.url {
        let link = format!("<{}|Open the dashboard>", escaped(&url.replace('|', "%7C")));
        blocks.push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": link } }));
    }
    let text = escaped(&format!("{headline}: {}", notification.summary));
    // Mattermost and Rocket.Chat show this text, and notify a whole channel of `@all`: a space without width follows
    // the `@`.
    json!({ "text": text.replace('@', "@\u{200b}"), "blocks": blocks })
}

/// Nothing in it is a link, a mention or formatting.
fn plain(text: &str) -> Value {
    json!({ "type": "plain_text", "text": text, "emoji": false })
}

/// Text in which nothing is a link or a mention.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::NotifiedState;
    use super::super::tests::{berlin, notification};
    use super::*;

    #[test]
    fn a_message_has_blocks_and_a_text() {
        let plain = |text: &str| json!({ "type": "plain_text", "text": text, "emoji": false });
        let expected = json!({
            "text": "Critical: no_orders: no orders for 15 minutes",
            "blocks": [
                { "type": "header", "text": plain("Critical: no_orders") },
                { "type": "section", "text": plain("no orders for 15 minutes") },
                { "type": "section", "text": plain("See the runbook.\nCall the shop.") },
                { "type": "section", "fields": [plain("orders: 0"), plain("shop: A & B <x>")] },
                { "type": "context", "elements": [plain("firing since 2026-11-29 10:45:00 +01:00 (Europe/Berlin)")] },
                {
                    "type": "section",
                    "text": {
                        "type": "mrkdwn",
                        "text": "<https://silverd.example/alerts#no_orders|Open the dashboard>",
                    },
                },
            ],
        });
        assert_eq!(body(&notification(NotifiedState::Firing), berlin()), expected);
    }

    #[test]
    fn no_text_is_a_mention_and_none_is_empty() {
        let mut odd = notification(NotifiedState::Firing);
        odd.summary = "<!channel> & <https://a|b> @all".to_owned();
        odd.description = String::new();
        odd.values = (0..30).map(|at| (format!("v{at}"), json!(at))).collect();
        odd.url = Some("https://a/?b=1&c=<|>".to_owned());
        let body = body(&odd, Zone::UTC);
        assert_eq!(body["text"], "Critical: no_orders: &lt;!channel&gt; &amp; &lt;https://a|b&gt; @\u{200b}all");
        assert_eq!(body["blocks"][1]["text"], plain(&odd.summary));
        assert_eq!(body["blocks"][2]["fields"].as_array().map(Vec::len), Some(FIELDS_MAX));
        assert_eq!(body["blocks"][4]["text"]["text"], "<https://a/?b=1&amp;c=&lt;%7C&gt;|Open the dashboard>");
    }
}
