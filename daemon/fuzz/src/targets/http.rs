//! Requests to the server of the dashboard, where a token is asked for and where none is.

use memchr::memmem::find;
use silverd::fuzzing::{self, Answer, TOKEN, TOPIC};

use super::planted;

/// More than an answer to each of the shortest requests.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The server answers or closes the connection, and shows nothing to those without a token.
pub fn http(requests: &[u8]) {
    let [open, guarded] = [false, true].map(|asks_for_token| fuzzing::http(requests, asks_for_token));
    // A stream has no end, and a wrong token is answered later.
    let may_wait = has(requests, "/api/stream") || has(requests, "/login");
    let statuses_of = |Answer { bytes, is_closed }: &Answer| {
        assert!(*is_closed || may_wait, "the connection stays open after {}", String::from_utf8_lossy(bytes));
        assert!(bytes.len() <= ANSWER_BYTES_MAX, "an answer of {} bytes", bytes.len());
        statuses(bytes, may_wait)
    };
    let (statuses, _) = (statuses_of(&open), statuses_of(&guarded));
    let may_see = has(requests, TOKEN) || has(requests, TOPIC);
    assert!(may_see || !has(&guarded.bytes, TOPIC), "{}", String::from_utf8_lossy(&guarded.bytes));
    planted(|| statuses.contains(&404) && statuses.contains(&405));
}

fn has(bytes: &[u8], text: &str) -> bool {
    find(bytes, text.as_bytes()).is_some()
}

/// The statuses of all responses, which have to be whole.
fn statuses(mut rest: &[u8], may_wait: bool) -> Vec<u16> {
    let mut statuses = Vec::new();
    while !rest.is_empty() {
        let end = find(rest, b"\r\n\r\n").expect("the end of the headers");
        let head = String::from_utf8_lossy(&rest[..end]).to_ascii_lowercase();
        rest = &rest[end + 4..];
        let status = head.strip_prefix("http/1.").and_then(|line| line.get(2..5)?.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("no status: {head}"));
        assert!((100..600).contains(&status) && status != 500, "{head}");
        // What the HTTP library refuses has none of silverd's headers.
        let is_of_library = matches!(status, 100 | 400 | 408 | 414 | 431);
        assert!(is_of_library || head.contains("\r\nx-content-type-options: nosniff"), "{head}");
        statuses.push(status);
        // Nothing follows an interim response, and the headers that answer HEAD.
        if rest.is_empty() || rest.starts_with(b"HTTP/1.") {
            continue;
        }
        let header = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        rest = match header("content-length") {
            Some(bytes) => &rest[bytes.parse::<usize>().expect("a length")..],
            // The response is the last one.
            None if head.starts_with("http/1.0") => &rest[rest.len()..],
            None => {
                assert_eq!(header("transfer-encoding"), Some("chunked"), "{head}");
                after_chunks(rest).unwrap_or_else(|| {
                    assert!(may_wait, "the body has no end: {head}");
                    &rest[rest.len()..]
                })
            }
        };
    }
    statuses
}

/// What follows the last chunk; `None` if it is not there.
fn after_chunks(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let line = find(rest, b"\r\n")?;
        let bytes = std::str::from_utf8(&rest[..line]).ok()?;
        let bytes = usize::from_str_radix(bytes, 16).expect("the length of a chunk");
        rest = rest.get(line + 2 + bytes + 2..)?;
        if bytes == 0 {
            return Some(rest);
        }
    }
}
