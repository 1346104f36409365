//! The small languages inside strings: sizes, compressions, brokers, topics, one of a few words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::nearest;
use super::pipeline::Compression;

/// What is wrong with a literal; its place is that of the whole value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) message: String,
    pub(super) label: String,
    pub(super) help: Option<String>,
}

impl Fault {
    fn new(message: impl Into<String>, label: impl Into<String>, help: impl Into<String>) -> Self {
        Fault { message: message.into(), label: label.into(), help: Some(help.into()) }
    }
}

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `"64MiB"`: a whole number and a unit of 1024.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let factor = match unit {
        "" => Some(1),
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor),
    };
    let broken = digits == 0 || unit.starts_with(['.', ',', '_']);
    // Too much is out of every bound, and the caller tells the bounds.
    match ((!broken).then(|| number.parse().unwrap_or(u64::MAX)), factor) {
        (Some(number), Some(factor)) => Ok(number.saturating_mul(factor)),
        (Some(number), None) => {
            let initial = unit.chars().next().unwrap_or('B').to_ascii_uppercase();
            let near = UNITS.iter().map(|(name, _)| *name).find(|name| name.starts_with(initial)).unwrap_or("MiB");
            let help = format!("the units are B, KiB, MiB and GiB, each 1024 of the former: write \"{number}{near}\"");
            Err(Fault::new(format!("`{unit}` is not a unit of size"), "expected a size such as \"64MiB\"", help))
        }
        (None, _) => {
            let help = "write a whole number and one of B, KiB, MiB and GiB";
            Err(Fault::new(format!("`{text}` is not a size"), "expected a size such as \"64MiB\"", help))
        }
    }
}

/// The largest unit that leaves a whole number.
pub(super) fn format_size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    let (unit, factor) = whole.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

const SPANS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `"10m"`: a whole number and a unit of time, in milliseconds.
pub(super) fn duration(text: &str) -> Result<u64, Fault> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let factor = SPANS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (digits > 0, factor) {
        // Too much is out of every bound, and the caller tells the bounds.
        (true, Some(factor)) => Ok(number.parse().unwrap_or(u64::MAX).saturating_mul(factor)),
        _ => {
            let help = "write a whole number and one of ms, s, m, h and d";
            Err(Fault::new(format!("`{text}` is not a span of time"), "expected a span such as \"10m\"", help))
        }
    }
}

/// `"5%"`, as a share of one.
pub(super) fn percent(text: &str) -> Result<f64, Fault> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        Some(_) => Err(Fault::new("this share is out of bounds", "expected 0% to 100%", "100% allows everything")),
        None => {
            let help = "write a number from 0 to 100, and %";
            Err(Fault::new(format!("`{text}` is not a share"), "expected a share such as \"5%\"", help))
        }
    }
}

/// The largest unit that leaves a whole number.
pub(super) fn format_duration(ms: u64) -> String {
    let whole = SPANS.iter().find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor));
    let (unit, factor) = whole.unwrap_or(&("ms", 1));
    format!("{}{unit}", ms / factor)
}

pub(super) fn compression(text: &str) -> Result<Compression, Fault> {
    let level = text.strip_prefix("zstd(").and_then(|rest| rest.strip_suffix(')'));
    match (text, level) {
        ("zstd", _) => Ok(Compression::default()),
        ("snappy", _) => Ok(Compression::Snappy),
        ("lz4", _) => Ok(Compression::Lz4),
        ("none", _) => Ok(Compression::Uncompressed),
        (_, Some(level)) => match level.trim().parse() {
            Ok(level @ 1..=22) => Ok(Compression::Zstd(level)),
            _ => {
                let help = "write \"zstd(1)\" for speed, \"zstd(9)\" for small files";
                Err(Fault::new(format!("`{level}` is not a zstd level"), "expected a level from 1 to 22", help))
            }
        },
        _ => Err(not_among(
            text,
            format!("`{text}` is not a compression"),
            &["zstd", "zstd(3)", "snappy", "lz4", "none"],
        )),
    }
}

pub(super) fn choice<T: Copy>(key: &str, text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    found.ok_or_else(|| not_among(text, format!("`{key}` cannot be `{text}`"), &words()))
}

/// Kafka's own rule for the names of topics.
pub(super) fn topic(text: &str) -> Result<String, Fault> {
    let what = || format!("`{text}` cannot be the name of a Kafka topic");
    let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    if let Some(odd) = odd {
        let help = match odd {
            ',' => "silverd reads one topic: run a second silverd for a second one".to_owned(),
            _ => format!("take out the {odd:?}; silverd reads one topic, by its exact name"),
        };
        return Err(Fault::new(what(), "expected letters, digits, `.`, `_` and `-`", help));
    }
    match text {
        "." | ".." => Err(Fault::new(what(), "Kafka refuses this name", "take the name that the producers write to")),
        _ if text.len() > 249 => {
            let label = format!("expected 249 characters at most, found {}", text.len());
            Err(Fault::new("this name is too long for a Kafka topic", label, "take a shorter name"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// A list of `host`, `host:port` or `[ipv6]:port`, parted by commas.
pub(super) fn brokers(text: &str) -> Result<String, Fault> {
    let brokers: Vec<_> = text.split(',').map(str::trim).collect();
    for broker in &brokers {
        broker_fault(broker).map_or(Ok(()), Err)?;
    }
    Ok(brokers.join(","))
}

fn broker_fault(broker: &str) -> Option<Fault> {
    const LABEL: &str = "expected host:port, parted by commas";
    if broker.is_empty() {
        return Some(Fault::new("an empty place in the list of brokers", LABEL, "take out the comma too many"));
    }
    // Someone may have put a password before the host: do not repeat it.
    let shown = if broker.contains('@') { "this".to_owned() } else { format!("`{broker}`") };
    let fault = |help: &str| Some(Fault::new(format!("{shown} is not the address of a broker"), LABEL, help));
    if let Some((protocol, _)) = broker.split_once("://") {
        let protocol = if shown == "this" { "protocol" } else { protocol };
        return fault(&format!("take out `{protocol}://`, and set \"security.protocol\" in [source.kafka]"));
    }
    let (host, port) = match (broker.strip_prefix('['), broker.split_once(':')) {
        (Some(rest), _) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, rest)) if rest.starts_with(':') => (address, Some(&rest[1..])),
            _ => return fault("write an IPv6 address as [address]:port"),
        },
        (None, Some((host, port))) => (host, Some(port)),
        (None, None) => (broker, None),
    };
    if broker.starts_with('[') {
        let address = host.split_once('%').map_or(host, |(address, _zone)| address);
        if address.parse::<Ipv6Addr>().is_err() {
            return fault("write an IPv6 address between the brackets");
        }
    } else if broker.parse::<Ipv6Addr>().is_ok() {
        return fault(&format!("put the IPv6 address in brackets: [{broker}]:9092"));
    } else if host.is_empty() || !host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')) {
        return fault("write the name or the address of a host, such as localhost:9092");
    }
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port {
        Some(port) if !digits(port) || !matches!(port.parse::<u16>(), Ok(1..)) => {
            fault("the port is a number from 1 to 65535, such as 9092")
        }
        _ => None,
    }
}

/// `"127.0.0.1:8080"`, or `"off"` for no page at all.
pub(super) fn listen(text: &str) -> Result<Option<SocketAddr>, Fault> {
    if text == "off" {
        return Ok(None);
    }
    let localhost = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = localhost {
        return Ok(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
    }
    text.parse().map(Some).map_err(|_| {
        let what = format!("`{text}` is not an address to listen on");
        let help = "write \"127.0.0.1:8080\" for this machine alone, \"0.0.0.0:8080\" for others, too, or \"off\"";
        Fault::new(what, "expected an IP address and a port", help)
    })
}

/// What was meant, as far as the letters allow, in the form of a table's name.
pub(super) fn as_table_name(text: &str) -> String {
    let small = text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    let name: String = small.skip_while(|c| !c.is_ascii_lowercase()).take(63).collect();
    let name = name.trim_end_matches('_');
    if name.is_empty() { "page_view".to_owned() } else { name.to_owned() }
}

fn not_among(text: &str, message: String, words: &[&str]) -> Fault {
    let label = format!("expected \"{}\"", words.join("\" or \""));
    let help = nearest::nearest(text, words).map(|word| format!("did you mean \"{word}\"?"));
    Fault { message, label, help }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("7B", 7),
            ("64KiB", 65_536),
            (" 1 GiB", 1 << 30),
            ("99999999999GiB", u64::MAX),
            ("99999999999999999999B", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5MiB", "64MB", "64mib", "1 2", "１MiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        for (bytes, text) in [(0, "0B"), (1 << 30, "1GiB"), (65_536, "64KiB"), (1_025, "1025B")] {
            assert_eq!(format_size(bytes), text);
        }
    }

    #[test]
    fn addresses_of_brokers() {
        let good =
            ["a", "a:1", "a.b-c_d:65535", "10.0.0.1:9092", "a:1, b:2", "[::1]:9092", "[fe80::1%eth0]:1", "[::1]"];
        for text in good {
            assert_eq!(brokers(text), Ok(text.replace(", ", ",")), "{text}");
        }
        let bad = [
            "a,",
            ",",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "::1",
            "[::1",
            "[x]:1",
            "[::1]9",
            "a b",
            ":9092",
            "SSL://a:1",
            "a:1;b:2",
            "ü",
        ];
        for text in bad {
            assert!(brokers(text).is_err(), "{text}");
        }
        assert!(!format!("{:?}", brokers("hunter2@host:1")).contains("hunter2"));
        assert!(!format!("{:?}", brokers("ssl://u:hunter2@host:1")).contains("hunter2"));
        assert!(!format!("{:?}", brokers("hunter2://u@host:1")).contains("hunter2"));
    }

    #[test]
    fn addresses_to_listen_on() {
        for (text, loopback) in
            [("127.0.0.1:8080", true), ("[::1]:0", true), ("localhost:80", true), ("0.0.0.0:1", false)]
        {
            assert_eq!(
                listen(text).map(|address| address.is_some_and(|a| a.ip().is_loopback())),
                Ok(loopback),
                "{text}"
            );
        }
        assert_eq!(listen("off"), Ok(None));
        for text in ["8080", ":8080", "localhost", "localhost:x", "example.org:80", "127.0.0.1", "127.0.0.1:65536"] {
            assert!(listen(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_topics() {
        let longest = "x".repeat(249);
        for text in ["events.raw", "a_b-C9", "...", &longest] {
            assert_eq!(topic(text), Ok(text.to_owned()), "{text}");
        }
        for text in [".", "..", "a b", "^a.*", "a,b", "ä", &"x".repeat(250)] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn proposed_names_are_names() {
        for text in ["Page-View", "9 lives", "", "___", "ü", &"X9".repeat(99)] {
            let name = as_table_name(text);
            assert!(super::super::TableName::new(&name).is_some(), "{text} gave {name}");
        }
    }
}
