//! Events of a fixed size for benchmarks: page views with the fields that the table needs, padded with random letters.

use super::Outgoing;

/// The fields of the smallest event.
const HEAD: &str = r#"{"event_type":"page_view","user_id":"u","url":"/","ts":"2025-08-16T14:50Z","event_id":""#;

/// Creates events of so many bytes, or of the smallest size that has an id.
pub(super) struct SizedEvents {
    bytes: usize,
    number: u64,
    state: u64,
}

impl SizedEvents {
    pub(super) fn new(bytes: usize) -> Self {
        Self { bytes, number: 0, state: 1 }
    }

    pub(super) fn next(&mut self) -> Outgoing {
        self.number += 1;
        let id = format!("{:09x}", self.number);
        let mut value = format!("{HEAD}{id}\"").into_bytes();
        const PAD: &[u8] = br#","pad":""#;
        if let Some(letters) = self.bytes.checked_sub(value.len() + PAD.len() + 2) {
            value.extend_from_slice(PAD);
            for _ in 0..letters {
                value.push(self.letter());
            }
            value.push(b'"');
        }
        value.push(b'}');
        Outgoing { key: Some(id), value, duplicate: false }
    }

    /// One of 32 letters at random, so that the padding compresses about as badly as ids and texts.
    fn letter(&mut self) -> u8 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b"abcdefghijklmnopqrstuvwxyz012345"[(self.state >> 59) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_their_size_and_are_json() {
        for bytes in [1, 100, 120, 1_000, 10_000] {
            let mut events = SizedEvents::new(bytes);
            let (first, second) = (events.next(), events.next());
            let value: serde_json::Value = serde_json::from_slice(&first.value).expect("an event is JSON");
            assert_eq!(value["event_id"].as_str(), first.key.as_deref());
            assert_ne!(first.key, second.key);
            let smallest = HEAD.len() + 9 + 2;
            assert_eq!(first.value.len(), if bytes < smallest + 10 { smallest } else { bytes });
        }
    }
}
