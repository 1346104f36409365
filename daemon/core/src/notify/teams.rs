//! The body for a workflow of Microsoft Teams ("when a Teams webhook request is received"): a message with an Adaptive Card.
//! <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
//!
//! Texts are `TextRun`s: unlike a `TextBlock`, nothing in them is Markdown.

use serde_json::{Value, json};

use super::{Notification, NotifiedState, Severity};
use crate::zone::Zone;

pub fn body(notification: &Notification, zone: Zone) -> Value {
    let style = match (notification.state, notification.severity) {
        (NotifiedState::Resolved, _) => "good",
        (NotifiedState::Test, _) => "accent",
        (NotifiedState::Firing, Severity::Warning) => "warning",
        (NotifiedState::Firing, Severity::Critical) => "attention",
    };
    let headline = json!({ "type": "TextRun", "text": notification.headline(), "size": "large", "weight": "bolder" });
    let mut parts = vec![json!({ "type": "Container", "style": style, "items": [rich(&[headline])] })];
    for text in [&notification.summary, &notification.description] {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            parts.push(rich(&[run(line)]));
        }
    }
    for (name, value) in notification.facts() {
        let name = json!({ "type": "TextRun", "text": format!("{name}: "), "weight": "bolder" });
        parts.push(rich(&[name, run(&value)]));
    }
    parts.push(rich(&[json!({ "type": "TextRun", "text": notification.times(zone), "isSubtle": true })]));
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "fallbackText": format!("{}: {}", notification.headline(), notification.summary),
        "body": parts,
    });
    if let Some(url) = &notification.url {
        card["actions"] = json!([{ "type": "Action.OpenUrl", "title": "Open the dashboard", "url": url }]);
    }
    let attachment = json!({
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": null,
        "content": card,
    });
    json!({ "type": "message", "attachments": [attachment] })
}

fn rich(inlines: &[Value]) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

fn run(text: &str) -> Value {
    json!({ "type": "TextRun", "text": text })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{berlin, notification};
    use super::*;

    #[test]
    fn a_message_is_a_card() {
        let rich = |inlines: Value| json!({ "type": "RichTextBlock", "inlines": inlines });
        let bold = |text: &str| json!({ "type": "TextRun", "text": text, "weight": "bolder" });
        let times = "fired at 2026-11-29 10:45:00 +01:00, resolved at 2026-11-29 11:00:00 +01:00 (Europe/Berlin)";
        let expected = json!({
            "type": "message",
            "attachments": [{
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": null,
                "content": {
                    "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                    "type": "AdaptiveCard",
                    "version": "1.4",
                    "fallbackText": "Resolved: no_orders: no orders for 15 minutes",
                    "body": [
                        {
                            "type": "Container",
                            "style": "good",
                            "items": [rich(json!([{
                                "type": "TextRun",
                                "text": "Resolved: no_orders",
                                "size": "large",
                                "weight": "bolder",
                            }]))],
                        },
                        rich(json!([run("no orders for 15 minutes")])),
                        rich(json!([run("See the runbook.")])),
                        rich(json!([run("Call the shop.")])),
                        rich(json!([bold("orders: "), run("0")])),
                        rich(json!([bold("shop: "), run("A & B <x>")])),
                        rich(json!([{ "type": "TextRun", "text": times, "isSubtle": true }])),
                    ],
                    "actions": [{
                        "type": "Action.OpenUrl",
                        "title": "Open the dashboard",
                        "url": "https://silverd.example/alerts#no_orders",
                    }],
                },
            }],
        });
        assert_eq!(body(&notification(NotifiedState::Resolved), berlin()), expected);
    }

    #[test]
    fn the_style_is_that_of_the_state() {
        for (state, severity, expected) in [
            (NotifiedState::Firing, Severity::Warning, "warning"),
            (NotifiedState::Firing, Severity::Critical, "attention"),
            (NotifiedState::Resolved, Severity::Critical, "good"),
            (NotifiedState::Test, Severity::Critical, "accent"),
        ] {
            let body = body(&Notification { severity, url: None, ..notification(state) }, Zone::UTC);
            let card = &body["attachments"][0]["content"];
            assert_eq!(card["body"][0]["style"], expected);
            assert!(card.get("actions").is_none());
        }
    }
}
