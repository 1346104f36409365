//! Parsers for the values that are written as text: sizes, durations, percentages, compressions, brokers, topics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::nearest;
use super::pipeline::{Compression, Network};

/// What is wrong with a value; its place is that of the whole value.
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

pub(super) const A_SIZE: &str = "a size such as \"64MiB\"";
pub(super) const SIZE_HELP: &str = "write a whole number and one of B, KiB, MiB and GiB";
pub(super) const A_DURATION: &str = "a duration such as \"10m\"";
pub(super) const DURATION_HELP: &str = "write a whole number and one of ms, s, m, h and d";
pub(super) const A_PERCENTAGE: &str = "a percentage such as \"5%\"";
pub(super) const PERCENTAGE_HELP: &str = "write a number from 0 to 100, and %";

const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// `"64MiB"`: a whole number and a unit of 1024.
pub(super) fn size(text: &str) -> Result<u64, Fault> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    if digits == 0 || unit.starts_with(['.', ',', '_']) {
        return Err(Fault::new(format!("`{text}` is not a size"), format!("expected {A_SIZE}"), SIZE_HELP));
    }
    // A number that is too large for the type is out of every bound, and the caller reports the bounds.
    let bytes = number.parse().unwrap_or(u64::MAX);
    if unit.is_empty() {
        return Err(size_without_unit(bytes));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let initial = unit.chars().next().unwrap_or('B').to_ascii_uppercase();
        let near = UNITS.iter().map(|(name, _)| *name).find(|name| name.starts_with(initial)).unwrap_or("MiB");
        let help = format!("the units are B, KiB, MiB and GiB (1 KiB is 1024 B): write \"{number}{near}\"");
        return Err(Fault::new(format!("`{unit}` is not a unit of size"), format!("expected {A_SIZE}"), help));
    };
    Ok(bytes.saturating_mul(*factor))
}

/// A bare number of bytes, which silverd accepted before every size had a unit.
pub(super) fn size_without_unit(bytes: u64) -> Fault {
    let help = format!("write \"{}\"; `silverd check --fix` rewrites the file", format_size(bytes));
    Fault::new("this size has no unit", format!("expected {A_SIZE}"), help)
}

/// In the largest unit that gives a whole number.
pub(super) fn format_size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    let (unit, factor) = whole.unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / factor)
}

const DURATIONS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// `"10m"`: a whole number and a unit of time, in milliseconds.
pub(super) fn duration(text: &str) -> Result<u64, Fault> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = (&text[..digits], text[digits..].trim());
    let factor = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (digits > 0, factor) {
        // A number that is too large for the type is out of every bound, and the caller reports the bounds.
        (true, Some(factor)) => Ok(number.parse().unwrap_or(u64::MAX).saturating_mul(factor)),
        (true, None) if unit.is_empty() => Err(duration_without_unit(number)),
        _ => Err(Fault::new(format!("`{text}` is not a duration"), format!("expected {A_DURATION}"), DURATION_HELP)),
    }
}

/// A bare number: it could be seconds or anything else.
pub(super) fn duration_without_unit(number: &str) -> Fault {
    let help = format!("write \"{number}s\" for seconds; the units are ms, s, m, h and d");
    Fault::new("this duration has no unit", format!("expected {A_DURATION}"), help)
}

/// `"5%"`, as a number from 0 to 1.
pub(super) fn percent(text: &str) -> Result<f64, Fault> {
    let number = text.strip_suffix('%').and_then(|number| number.trim_end().parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        Some(_) => Err(Fault {
            message: "this percentage is out of bounds".to_owned(),
            label: "expected \"0%\" to \"100%\"".to_owned(),
            help: None,
        }),
        None => {
            let what = format!("`{text}` is not a percentage");
            Err(Fault::new(what, format!("expected {A_PERCENTAGE}"), PERCENTAGE_HELP))
        }
    }
}

/// In the largest unit that gives a whole number.
pub(super) fn format_duration(ms: u64) -> String {
    let whole = DURATIONS.iter().find(|(_, factor)| ms != 0 && ms.is_multiple_of(*factor));
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

/// One of a few words.
pub(super) fn choice<T: Copy>(key: &str, text: &str, choices: &[(&str, T)]) -> Result<T, Fault> {
    let found = choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice);
    let words = || choices.iter().map(|(word, _)| *word).collect::<Vec<_>>();
    found.ok_or_else(|| not_among(text, format!("`{key}` cannot be `{text}`"), &words()))
}

/// Kafka's rule for the names of topics.
pub(super) fn topic(text: &str) -> Result<String, Fault> {
    let what = || format!("`{text}` is not a valid Kafka topic name");
    let odd = text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')));
    if let Some(odd) = odd {
        let help = match odd {
            ',' => "for several topics, write topics = [\"a\", \"b\"]".to_owned(),
            _ => format!("remove the {odd:?}; a regular expression is written as `topic_pattern`"),
        };
        return Err(Fault::new(what(), "expected letters, digits, `.`, `_` and `-`", help));
    }
    match text {
        "." | ".." => Err(Fault::new(what(), "Kafka refuses this name", "use the name that the producers write to")),
        _ if text.len() > 249 => {
            let label = format!("expected at most 249 characters, found {}", text.len());
            Err(Fault::new("this name is too long for a Kafka topic", label, "use a shorter name"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// A list of `host`, `host:port` or `[ipv6]:port`, separated by commas.
pub(super) fn brokers(text: &str) -> Result<String, Fault> {
    let brokers: Vec<_> = text.split(',').map(str::trim).collect();
    for broker in &brokers {
        broker_fault(broker).map_or(Ok(()), Err)?;
    }
    Ok(brokers.join(","))
}

fn broker_fault(broker: &str) -> Option<Fault> {
    const LABEL: &str = "expected host:port, separated by commas";
    if broker.is_empty() {
        return Some(Fault::new("an empty entry in the list of brokers", LABEL, "remove the extra comma"));
    }
    // The text may contain a password before the host: do not repeat it.
    let shown = if broker.contains('@') { "this".to_owned() } else { format!("`{broker}`") };
    let fault = |help: &str| Some(Fault::new(format!("{shown} is not the address of a broker"), LABEL, help));
    if let Some((protocol, _)) = broker.split_once("://") {
        let protocol = if shown == "this" { "protocol" } else { protocol };
        return fault(&format!("remove `{protocol}://`, and set \"security.protocol\" in [source.kafka]"));
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

/// `"127.0.0.1:8080"`, or `"off"` for no dashboard.
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
        let help = "write \"127.0.0.1:8080\" for this machine only, \"0.0.0.0:8080\" for all interfaces, or \"off\"";
        Fault::new(what, "expected an IP address and a port", help)
    })
}

/// `/silverd` for `/silverd` and `/silverd/`; empty for `/`.
pub(super) fn base_path(text: &str) -> Result<String, Fault> {
    let path = text.strip_suffix('/').unwrap_or(text);
    let is_segment = |segment: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain)
    };
    let is_path = path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_segment));
    if text.starts_with('/') && is_path {
        return Ok(path.to_owned());
    }
    let help = "write the path that the proxy serves silverd under, such as \"/silverd\"";
    Err(Fault::new(format!("`{text}` is not the path of a URL"), "expected `/` and letters, digits, `-._~`", help))
}

/// An IP address, or a range of them.
pub(super) fn network(text: &str) -> Result<Network, Fault> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse().ok())),
        None => (text, None),
    };
    let address = address.parse().ok();
    let network = match (address, prefix) {
        (Some(address), None) => Network::new(address, None),
        (Some(address), Some(Some(prefix))) => Network::new(address, Some(prefix)),
        _ => None,
    };
    network.ok_or_else(|| {
        let help = "write the address that the proxy connects from, such as \"127.0.0.1\" or \"10.0.0.0/8\"";
        Fault::new(format!("`{text}` is not an IP address or a range"), "expected an IP address", help)
    })
}

/// The valid table name that is closest to the text.
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
    fn sizes_need_a_whole_number_and_a_unit() {
        for (text, bytes) in [
            ("0B", 0),
            ("7B", 7),
            ("64KiB", 65_536),
            (" 1 GiB", 1 << 30),
            ("99999999999GiB", u64::MAX),
            ("99999999999999999999B", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "MiB", "-1MiB", "1.5MiB", "64MB", "64mib", "1 2", "１MiB", "0", "65536"] {
            assert!(size(text).is_err(), "{text}");
        }
        for (bytes, text) in [(0, "0B"), (1 << 30, "1GiB"), (65_536, "64KiB"), (1_025, "1025B")] {
            assert_eq!(format_size(bytes), text);
        }
        let help = size("65536").expect_err("a size without a unit").help;
        assert!(help.is_some_and(|help| help.contains("\"64KiB\"")));
    }

    #[test]
    fn durations_need_a_whole_number_and_a_unit() {
        for (text, ms) in
            [("0ms", 0), ("250ms", 250), ("1s", 1_000), ("10 m", 600_000), ("99999999999999999999d", u64::MAX)]
        {
            assert_eq!(duration(text), Ok(ms), "{text}");
        }
        for text in ["", "s", "-1s", "1.5s", "10 minutes", "1S", "1000"] {
            assert!(duration(text).is_err(), "{text}");
        }
        for (ms, text) in [(0, "0ms"), (250, "250ms"), (1_000, "1s"), (90_000, "90s"), (86_400_000, "1d")] {
            assert_eq!(format_duration(ms), text);
        }
    }

    #[test]
    fn broker_addresses_are_checked() {
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
    fn listen_addresses_are_checked() {
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
    fn base_paths_are_checked() {
        for (text, path) in [("/", ""), ("/silverd", "/silverd"), ("/a/b-1.x_~/", "/a/b-1.x_~")] {
            assert_eq!(base_path(text), Ok(path.to_owned()), "{text}");
        }
        for text in ["", "silverd", "//", "/a//b", "/a/../b", "/a b", "/ä", "/a?b", "https://a/b"] {
            assert!(base_path(text).is_err(), "{text}");
        }
    }

    #[test]
    fn networks_contain_their_addresses() {
        for (text, address, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("0.0.0.0/0", "11.0.0.1", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe80::1", false),
        ] {
            let network = network(text).expect(text);
            assert_eq!(network.contains(address.parse().expect(address)), expected, "{address} in {text}");
        }
        for text in ["", "proxy", "10.0.0.0/33", "::1/129", "10.0.0.0/", "10.0.0.0/-1", "127.0.0.1:80"] {
            assert!(network(text).is_err(), "{text}");
        }
    }

    #[test]
    fn topic_names_are_checked() {
        let longest = "x".repeat(249);
        for text in ["events.raw", "a_b-C9", "...", &longest] {
            assert_eq!(topic(text), Ok(text.to_owned()), "{text}");
        }
        for text in [".", "..", "a b", "^a.*", "a,b", "ä", &"x".repeat(250)] {
            assert!(topic(text).is_err(), "{text}");
        }
    }

    #[test]
    fn suggested_table_names_are_valid() {
        for text in ["Page-View", "9 lives", "", "___", "ü", &"X9".repeat(99)] {
            let name = as_table_name(text);
            assert!(super::super::TableName::new(&name).is_some(), "{text} gave {name}");
        }
    }
}
