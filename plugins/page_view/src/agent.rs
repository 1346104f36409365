//! Detects the browser, the operating system and the device from the user agent.
//!
//! The woothee parser searches every user agent for some fifty texts, one after the other; in WebAssembly this takes five
//! times as long as the rest of the plugin. User agents differ mostly in versions and languages, which do not affect the
//! browser's name. So this module replaces these with placeholders first (the outline), and caches woothee's result per
//! outline. woothee sees only the outline, so the cache cannot change a row.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::iter::zip;

use woothee::woothee::VALUE_UNKNOWN;

use crate::Device;

/// A longer user agent is cut, because parsing takes time for every byte.
const AGENT_BYTES_MAX: usize = 512;

/// The cache is cleared when it has this many outlines. A shop's visitors have a few hundred.
const OUTLINES_MAX: usize = 4_096;

/// The properties that a user agent reveals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Agent {
    pub(crate) browser: Option<String>,
    pub(crate) os: Option<String>,
    pub(crate) device: Device,
}

#[derive(Default)]
pub(crate) struct Parser {
    woothee: woothee::parser::Parser,
    cache: RefCell<Cache>,
}

struct Cache {
    /// Keyed by the hash of the outline. On a collision the later outline replaces the earlier one.
    agents: HashMap<u64, (Box<[u8]>, Agent), BuildHasherDefault<IdentityHasher>>,
    outline: [u8; AGENT_BYTES_MAX],
}

impl Default for Cache {
    fn default() -> Self {
        Self { agents: HashMap::default(), outline: [0; AGENT_BYTES_MAX] }
    }
}

/// Passes a key that is already a hash through unchanged.
#[derive(Default)]
struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = hash(bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Hashes eight bytes at a time. The standard hasher takes several times as long, because it resists keys that are chosen
/// to collide. Here a collision only costs one call of the parser, like a new outline.
fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in zip(&mut last, rest) {
        *to = *from;
    }
    let step = |hash: u64, word: u64| (hash.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = words.iter().fold(bytes.len() as u64, |hash, word| step(hash, u64::from_le_bytes(*word)));
    let hash = step(hash, u64::from_le_bytes(last));
    hash ^ hash.rotate_left(32)
}

/// Whether they are equal, by eight bytes at a time: WebAssembly's own comparison takes one after the other.
fn same(a: &[u8], b: &[u8]) -> bool {
    let ((a_words, a_rest), (b_words, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    a.len() == b.len() && zip(a_words, b_words).all(|(a, b)| a == b) && zip(a_rest, b_rest).all(|(a, b)| a == b)
}

impl Parser {
    pub(crate) fn parse(&self, agent: &str) -> Agent {
        let agent = &agent[..agent.floor_char_boundary(AGENT_BYTES_MAX)];
        let Cache { agents, outline } = &mut *self.cache.borrow_mut();
        let len = write_outline(agent.as_bytes(), outline);
        let outline = &outline[..len];
        let hash = hash(outline);
        if let Some((_, known)) = agents.get(&hash).filter(|(known, _)| same(known, outline)) {
            return known.clone();
        }
        let found = self.parse_outline(&String::from_utf8_lossy(outline));
        if agents.len() == OUTLINES_MAX {
            agents.clear();
        }
        agents.insert(hash, (outline.into(), found.clone()));
        found
    }

    fn parse_outline(&self, outline: &str) -> Agent {
        let Some(found) = self.woothee.parse(outline) else {
            return Agent { browser: None, os: None, device: Device::Other };
        };
        let known = |name: &str| Some(name.to_owned()).filter(|name| name != VALUE_UNKNOWN);
        Agent { browser: known(found.name), os: known(found.os), device: device(found.category, found.os, outline) }
    }
}

/// The kind of device for woothee's category. woothee does not distinguish tablets from phones.
fn device(category: &str, os: &str, agent: &str) -> Device {
    match category {
        "crawler" => Device::Bot,
        "pc" => Device::Desktop,
        "smartphone" if is_tablet(os, agent) => Device::Tablet,
        "smartphone" | "mobilephone" => Device::Mobile,
        _ => Device::Other,
    }
}

/// Browsers on Android write `Mobile` on phones; on tablets they omit it or write `Tablet`.
fn is_tablet(os: &str, agent: &str) -> bool {
    os == "iPad" || (os == "Android" && (agent.contains("Tablet") || !agent.contains("Mobile")))
}

/// Writes the outline: the user agent with placeholders for versions and languages. Returns the outline's length, which is
/// at most that of the user agent:
///
/// | in the user agent | in the outline |
/// |---|---|
/// | `Chrome/57.0.849.0`, `rv:1.9.5` | `Chrome/0.0.0.0`, `rv:0.0.0` |
/// | `OS 17_1_2`, `7582-11-04` | `OS 17_0_0`, `7582-0-0` |
/// | `Mobile/28J829`, `FxiOS/18.9x77` | `Mobile/0`, `FxiOS/0.0` |
/// | `; fr-CH)` | `; xx-XX)` |
/// | `Windows NT 10.0`, `PlayStation 4`, `BB10`, `Win98` | unchanged: the number is part of the name |
///
/// Of woothee's own test agents and of ten thousand others, one loses its name: the crawler `rogerbot/1.0`, which is then
/// reported as an unnamed crawler.
fn write_outline(agent: &[u8], outline: &mut [u8; AGENT_BYTES_MAX]) -> usize {
    let (mut at, mut len) = (0, 0);
    while at < agent.len() && len < AGENT_BYTES_MAX {
        // Copies eight bytes at a time while there is nothing to replace. Later writes overwrite the surplus bytes.
        while let (Some(word), Some(target)) = (agent[at..].first_chunk::<8>(), outline[len..].first_chunk_mut::<8>()) {
            *target = *word;
            let copied = plain_bytes(*word);
            (at, len) = (at + copied, len + copied);
            if copied < word.len() {
                break;
            }
        }
        let Some(byte) = agent.get(at).copied() else { break };
        outline[len] = byte;
        at += 1;
        len += 1;
        if !matches!(byte, b'/' | b':' | b'_' | b'-') {
            continue;
        }
        match language(&outline[..len], &agent[at..]) {
            Some(letters) => {
                let start = len - 1 - letters;
                len = start + b"xx-XX".len();
                let Some(target) = outline.get_mut(start..len) else { return start };
                target.copy_from_slice(b"xx-XX");
                at += 2;
            }
            None => (at, len) = write_version(agent, at, outline, len),
        }
    }
    len
}

/// The number of bytes before the first `/`, `-`, `:` or `_`, after which a version or a language may follow.
fn plain_bytes(word: [u8; 8]) -> usize {
    const fn all(byte: u8) -> u64 {
        u64::from_le_bytes([byte; 8])
    }
    // Sets the highest bit of the first byte that is zero; bits of later bytes may be set as well.
    let zero = |word: u64| word.wrapping_sub(all(0x01)) & !word & all(0x80);
    let word = u64::from_le_bytes(word);
    // `-` and `/` differ in one bit.
    let found = zero((word | all(b'-' ^ b'/')) ^ all(b'/')) | zero(word ^ all(b':')) | zero(word ^ all(b'_'));
    found.trailing_zeros() as usize / 8
}

/// Writes each number of the version at `at` as `0`. Returns the positions after the version. Letters inside a number
/// belong to it; letters after it may be a name.
fn write_version(agent: &[u8], mut at: usize, outline: &mut [u8], mut len: usize) -> (usize, usize) {
    let is_digit = |at: usize| agent.get(at).is_some_and(u8::is_ascii_digit);
    while is_digit(at) && len + 1 < outline.len() {
        outline[len] = b'0';
        len += 1;
        while is_digit(at) || (agent.get(at).is_some_and(u8::is_ascii_alphabetic) && is_digit(at + 1)) {
            at += 1;
        }
        if agent.get(at) == Some(&b'.') && is_digit(at + 1) {
            outline[len] = b'.';
            len += 1;
            at += 1;
        }
    }
    (at, len)
}

/// The number of letters before the hyphen at the end of `before`, if the hyphen is part of a language such as `fr-CH` or
/// `sat-IN`.
fn language(before: &[u8], after: &[u8]) -> Option<usize> {
    let [before @ .., b'-'] = before else { return None };
    let country = after.len() > 2 && after[..2].iter().all(u8::is_ascii_uppercase) && b";)".contains(&after[2]);
    if !country {
        return None;
    }
    let letters = before.iter().rev().take_while(|byte| byte.is_ascii_lowercase()).count();
    let begins = before.len() > letters && before[before.len() - letters - 1] == b' ';
    ((2..=3).contains(&letters) && begins).then_some(letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outline_keeps_names_and_replaces_versions() {
        let check = |agent: &str, expected: &str| {
            let mut outline = [0; AGENT_BYTES_MAX];
            let len = write_outline(agent.as_bytes(), &mut outline);
            assert_eq!(String::from_utf8_lossy(&outline[..len]), expected);
        };
        check("Chrome/57.0.849.0 Safari/537.36", "Chrome/0.0.0.0 Safari/0.0");
        check("(Windows NT 10.0; fr-CH; rv:1.9.5.20)", "(Windows NT 10.0; xx-XX; rv:0.0.0.0)");
        check("; sat-IN) CPU OS 17_1_2 like", "; xx-XX) CPU OS 17_0_0 like");
        check("Gecko/7582-11-04 10:03:17", "Gecko/0-0-0 10:0:0");
        check("FxiOS/18.9x7766.0 Mobile/28J829 x", "FxiOS/0.0.0 Mobile/0 x");
        check("a/1.0Mobile b/1.bot c/2. /", "a/0.0Mobile b/0.bot c/0. /");
        check("PlayStation 4 BB10 Win98 SGH-E250", "PlayStation 4 BB10 Win98 SGH-E250");
        check("fr-CH; frfr-CH; fr-CHE; é-CH; -", "fr-CH; frfr-CH; fr-CHE; é-CH; -");
    }

    /// woothee must return the same for the outline as for the user agent.
    #[test]
    fn outline_identifies_the_agent() {
        let parser = Parser::default();
        let check = |agent: &str, browser: Option<&str>, os: Option<&str>, device: Device| {
            let expected = Agent { browser: browser.map(str::to_owned), os: os.map(str::to_owned), device };
            assert_eq!(parser.parse_outline(agent), expected, "{agent}");
            assert_eq!(parser.parse(agent), expected, "outline of {agent}");
            assert_eq!(parser.parse(agent), expected, "cached, {agent}");
        };
        check(
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            Some("Chrome"),
            Some("Windows 10"),
            Device::Desktop,
        );
        check(
            "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
            Some("Firefox"),
            Some("Linux"),
            Device::Desktop,
        );
        check(
            "Opera/9.65.(X11; Linux i686; kok-IN) Presto/2.9.170 Version/12.00",
            Some("Opera"),
            Some("Linux"),
            Device::Desktop,
        );
        check(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
            Some("Safari"),
            Some("iPhone"),
            Device::Mobile,
        );
        check(
            "Mozilla/5.0 (iPad; CPU iPad OS 17_1 like Mac OS X) AppleWebKit/535.1 (KHTML, like Gecko) FxiOS/18.9x7766.0 Mobile/28J829 Safari/535.1",
            Some("Firefox"),
            Some("iPad"),
            Device::Tablet,
        );
        check(
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
            Some("Chrome"),
            Some("Android"),
            Device::Mobile,
        );
        check(
            "Mozilla/5.0 (Linux; Android 13; SM-X200) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            Some("Chrome"),
            Some("Android"),
            Device::Tablet,
        );
        check(
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            Some("Googlebot"),
            None,
            Device::Bot,
        );
        check(
            "Mozilla/5.0 (PlayStation 4 5.55) AppleWebKit/601.2 (KHTML, like Gecko)",
            Some("PlayStation 4"),
            Some("PlayStation 4"),
            Device::Other,
        );
        check("curl/8.5.0", Some("HTTP Library"), None, Device::Other);
        check("Shop app", None, None, Device::Other);
        check("", None, None, Device::Other);
    }

    #[test]
    fn long_agent_is_cut_and_cache_is_bounded() {
        let parser = Parser::default();
        let long = format!("é{}Googlebot", "é".repeat(1_000_000));
        assert_eq!(parser.parse(&long), Agent { browser: None, os: None, device: Device::Other });
        for number in 0..=OUTLINES_MAX {
            parser.parse(&format!("agent {number}"));
        }
        assert!(parser.cache.borrow().agents.len() <= OUTLINES_MAX);
    }
}
