//! Reads events from a file of JSON lines.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::Outgoing;

/// A file without any JSON must not fill the screen with warnings.
const WARNINGS_MAX: u64 = 10;

/// The lines of a file, byte for byte without their `\n`. Blank lines are skipped.
pub(super) struct EventFile {
    path: PathBuf,
    reader: BufReader<File>,
    /// Read the file again at its end. From the second pass on, every event gets a new `event_id`.
    repeat: bool,
    first_pass: bool,
    line: Vec<u8>,
    line_number: u64,
    events_in_pass: u64,
    not_json: u64,
}

impl EventFile {
    pub(super) fn open(path: &Path, repeat: bool) -> anyhow::Result<Self> {
        let file = File::open(path)
            .with_context(|| format!("open {} (--file takes a file with one JSON event per line)", path.display()))?;
        if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
            bail!("{} is a folder; --file takes a file with one JSON event per line", path.display());
        }
        Ok(Self {
            path: path.to_owned(),
            reader: BufReader::new(file),
            repeat,
            first_pass: true,
            line: Vec::new(),
            line_number: 0,
            events_in_pass: 0,
            not_json: 0,
        })
    }

    pub(super) fn next(&mut self) -> anyhow::Result<Option<Outgoing>> {
        loop {
            self.line.clear();
            let read = self.reader.read_until(b'\n', &mut self.line);
            if read.with_context(|| format!("read {}, line {}", self.path.display(), self.line_number + 1))? == 0 {
                if !self.start_next_pass()? {
                    return Ok(None);
                }
                continue;
            }
            self.line_number += 1;
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            }
            if !self.line.trim_ascii().is_empty() {
                self.events_in_pass += 1;
                return Ok(Some(self.event()));
            }
        }
    }

    /// The last line that was read, as FILE:LINE.
    pub(super) fn position(&self) -> String {
        format!("{}:{}", self.path.display(), self.line_number)
    }

    fn event(&mut self) -> Outgoing {
        let event_id = find_event_id(&self.line).unwrap_or_else(|error| {
            self.warn(&error);
            None
        });
        let value = self.line.clone();
        match event_id {
            None => Outgoing { key: None, value, duplicate: false },
            Some(EventId { text, .. }) if self.first_pass => Outgoing { key: Some(text), value, duplicate: false },
            Some(EventId { range, .. }) => {
                let event_id = Uuid::new_v4().to_string();
                let value = with_event_id(value, range, &event_id);
                Outgoing { key: Some(event_id), value, duplicate: false }
            }
        }
    }

    /// Starts the next pass, if the file is to be sent again.
    fn start_next_pass(&mut self) -> anyhow::Result<bool> {
        if self.first_pass && self.not_json > WARNINGS_MAX {
            let path = self.path.display();
            tracing::warn!("{path}: {} lines in total are not JSON; they were sent unchanged", self.not_json);
        }
        if !self.repeat {
            return Ok(false);
        }
        if self.events_in_pass == 0 {
            bail!("{} has no event to repeat: every line is blank", self.path.display());
        }
        self.reader.rewind().with_context(|| format!("go back to the start of {}", self.path.display()))?;
        (self.first_pass, self.line_number, self.events_in_pass) = (false, 0, 0);
        Ok(true)
    }

    fn warn(&mut self, error: &serde_json::Error) {
        self.not_json += u64::from(self.first_pass);
        if self.first_pass && self.not_json <= WARNINGS_MAX {
            tracing::warn!("{}: not JSON, sent unchanged: {error}", self.position());
        }
    }
}

/// The top-level `event_id` of an event.
#[derive(Debug, PartialEq, Eq)]
struct EventId {
    text: String,
    /// Its bytes in the line, between the quotes; `None` if it is written with escapes.
    range: Option<Range<usize>>,
}

/// `Ok(None)`: the line is JSON, but has no string as its `event_id`.
fn find_event_id(line: &[u8]) -> Result<Option<EventId>, serde_json::Error> {
    /// Borrowed from the line, so that its address gives its range.
    #[derive(Deserialize)]
    struct Plain<'a> {
        event_id: &'a str,
    }
    // serde would also accept a list as the struct.
    if line.trim_ascii_start().starts_with(b"{")
        && let Ok(Plain { event_id }) = serde_json::from_slice(line)
    {
        let start = event_id.as_ptr().addr() - line.as_ptr().addr();
        return Ok(Some(EventId { text: event_id.to_owned(), range: Some(start..start + event_id.len()) }));
    }
    let value: Value = serde_json::from_slice(line)?;
    Ok(value.get("event_id").and_then(Value::as_str).map(|text| EventId { text: text.to_owned(), range: None }))
}

/// The event with another `event_id`. Its other bytes stay unchanged unless the id is written with escapes.
fn with_event_id(mut line: Vec<u8>, range: Option<Range<usize>>, event_id: &str) -> Vec<u8> {
    if let Some(range) = range {
        line.splice(range, event_id.bytes());
        return line;
    }
    match serde_json::from_slice(&line) {
        Ok(Value::Object(mut event)) => {
            event.insert("event_id".to_owned(), event_id.into());
            Value::Object(event).to_string().into_bytes()
        }
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(contents: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(contents).expect("write");
        file
    }

    fn check(contents: &[u8], expected: &[(Option<&str>, &[u8])]) {
        let file = file(contents);
        let mut events = EventFile::open(file.path(), false).expect("open");
        let mut found = Vec::new();
        while let Some(event) = events.next().expect("read") {
            found.push((event.key, event.value));
        }
        let expected: Vec<_> = expected.iter().map(|(key, value)| (key.map(str::to_owned), value.to_vec())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_keep_their_bytes() {
        check(b"", &[]);
        check(b"\n \n", &[]);
        check(
            b"{\"event_id\": \"a\",  \"n\": 1.50}\r\n\n  {\"n\":{\"event_id\":\"b\"}, \"event_id\":\"c\"}",
            &[
                (Some("a"), b"{\"event_id\": \"a\",  \"n\": 1.50}\r"),
                (Some("c"), b"  {\"n\":{\"event_id\":\"b\"}, \"event_id\":\"c\"}"),
            ],
        );
    }

    #[test]
    fn an_event_without_event_id_has_no_key() {
        for line in ["{\"n\":{\"event_id\":\"b\"}}", "[\"a\"]", "{\"event_id\":7}", "{\"event_id\":null}", "\"a\"", "7"]
        {
            check(line.as_bytes(), &[(None, line.as_bytes())]);
        }
        check(b"{\"event_id\":\"a\\u0062\"}", &[(Some("ab"), b"{\"event_id\":\"a\\u0062\"}")]);
    }

    #[test]
    fn a_line_that_is_not_json_is_sent_unchanged() {
        check(
            b"{\"event_id\":\nnonsense\n\xff\xfe\n",
            &[(None, b"{\"event_id\":"), (None, b"nonsense"), (None, b"\xff\xfe")],
        );
    }

    #[test]
    fn the_second_pass_has_new_event_ids() {
        let file =
            file(b"{\"x\": 1.0, \"event_id\": \"one\", \"y\": \"one\"}\n{\"event_id\":\"t\\u0077o\"}\n{\"n\":3}\n");
        let mut events = EventFile::open(file.path(), true).expect("open");
        let mut next = || events.next().expect("read").expect("a repeated file has no end");
        let first: Vec<_> = (0..3).map(|_| next()).collect();
        assert_eq!(first[0].key.as_deref(), Some("one"));
        for _ in 0..2 {
            let [one, two, three] = [next(), next(), next()];
            let (one_key, two_key) = (one.key.expect("a key"), two.key.expect("a key"));
            assert!(one_key.len() == 36 && two_key.len() == 36 && one_key != two_key);
            let expected = format!("{{\"x\": 1.0, \"event_id\": \"{one_key}\", \"y\": \"one\"}}");
            assert_eq!(String::from_utf8(one.value).expect("UTF-8"), expected);
            assert_eq!(two.value, format!("{{\"event_id\":\"{two_key}\"}}").as_bytes());
            assert_eq!(three, first[2]);
        }
    }

    #[test]
    fn a_blank_file_cannot_be_repeated() {
        let file = file(b"\n\n");
        let error = EventFile::open(file.path(), true).expect("open").next().expect_err("nothing to repeat");
        assert!(error.to_string().ends_with("has no event to repeat: every line is blank"), "{error}");
    }

    #[test]
    fn a_missing_file_is_an_error_with_its_name() {
        let error = EventFile::open(Path::new("no/such.jsonl"), false).err().expect("missing");
        assert_eq!(error.to_string(), "open no/such.jsonl (--file takes a file with one JSON event per line)");
    }
}
