//! Events of one size, for measuring: page views with what the table needs, and a field of letters up to the size.

use super::Outgoing;

/// What the smallest event takes.
const HEAD: &str = r#"{"event_type":"page_view","user_id":"u","url":"/","ts":"2025-08-16T14:50Z","event_id":""#;

/// Gives events of so many bytes, or of the fewest that hold an id.
pub(super) struct Sizes {
    bytes: usize,
    number: u64,
    state: u64,
}

impl Sizes {
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

    /// One of 32 letters, at random: a compressor finds in them what is in ids and texts, a little.
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
            let mut sizes = Sizes::new(bytes);
            let (first, second) = (sizes.next(), sizes.next());
            let value: serde_json::Value = serde_json::from_slice(&first.value).expect("an event is JSON");
            assert_eq!(value["event_id"].as_str(), first.key.as_deref());
            assert_ne!(first.key, second.key);
            let least = HEAD.len() + 9 + 2;
            assert_eq!(first.value.len(), if bytes < least + 10 { least } else { bytes });
        }
    }
}
