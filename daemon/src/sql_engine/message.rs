//! Messages over a pipe: JSON, then any number of attachments in bytes, each with its length before it.

use std::io::{self, Read, Write};
use std::sync::mpsc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes of one part. What is longer is no message of silverd.
const PART_BYTES_MAX: u32 = 1 << 30;
const PARTS_MAX: u32 = 1 << 16;

/// One message.
#[derive(Debug, Default)]
pub(crate) struct Message {
    json: Vec<u8>,
    pub attachments: Vec<Vec<u8>>,
}

impl Message {
    pub(crate) fn new(content: &impl Serialize) -> io::Result<Self> {
        Ok(Self { json: serde_json::to_vec(content)?, attachments: Vec::new() })
    }

    pub(crate) fn content<T: DeserializeOwned>(&self) -> io::Result<T> {
        Ok(serde_json::from_slice(&self.json)?)
    }

    fn encoded(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.json.len() + 8);
        bytes.extend_from_slice(&length(1 + self.attachments.len())?.to_le_bytes());
        for part in std::iter::once(&self.json).chain(&self.attachments) {
            bytes.extend_from_slice(&length(part.len())?.to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Ok(bytes)
    }

    fn from_parts(mut parts: Vec<Vec<u8>>) -> io::Result<Self> {
        if parts.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let json = parts.remove(0);
        Ok(Self { json, attachments: parts })
    }

    pub(crate) fn write_to(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(&self.encoded()?)?;
        out.flush()
    }

    pub(crate) fn read_from(mut input: impl Read) -> io::Result<Self> {
        let next_length = |input: &mut dyn Read, max| {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            checked(u32::from_le_bytes(length), max)
        };
        let count = next_length(&mut input, PARTS_MAX)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let mut part = vec![0; next_length(&mut input, PART_BYTES_MAX)?];
            input.read_exact(&mut part)?;
            parts.push(part);
        }
        Self::from_parts(parts)
    }

    pub(crate) async fn send(&self, out: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        out.write_all(&self.encoded()?).await?;
        out.flush().await
    }

    pub(crate) async fn receive(input: &mut (impl AsyncRead + Unpin)) -> io::Result<Self> {
        let count = checked(input.read_u32_le().await?, PARTS_MAX)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            let mut part = vec![0; checked(input.read_u32_le().await?, PART_BYTES_MAX)?];
            input.read_exact(&mut part).await?;
            parts.push(part);
        }
        Self::from_parts(parts)
    }
}

/// The messages of the process that started this one, which a thread reads. When they end, this process ends at once, whatever
/// it does: nobody waits for it any more.
pub(crate) fn messages_of(mut input: impl Read + Send + 'static) -> io::Result<mpsc::Receiver<Message>> {
    let (sender, messages) = mpsc::channel();
    std::thread::Builder::new().name("messages".to_owned()).spawn(move || {
        while let Ok(message) = Message::read_from(&mut input) {
            if sender.send(message).is_err() {
                return;
            }
        }
        // SAFETY: ends the process without anything else.
        unsafe { libc::_exit(0) }
    })?;
    Ok(messages)
}

fn length(length: usize) -> io::Result<u32> {
    u32::try_from(length)
        .ok()
        .filter(|length| *length <= PART_BYTES_MAX)
        .ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn checked(length: u32, max: u32) -> io::Result<usize> {
    if length <= max { Ok(length as usize) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn both_ends_read_what_the_other_wrote() {
        let mut message = Message::new(&("a", 1)).unwrap();
        message.attachments = vec![vec![1, 2, 3], Vec::new()];
        let mut bytes = Vec::new();
        message.write_to(&mut bytes).unwrap();
        let mut sent = Vec::new();
        message.send(&mut sent).await.unwrap();
        assert_eq!(bytes, sent);
        for read in [Message::read_from(&bytes[..]).unwrap(), Message::receive(&mut &bytes[..]).await.unwrap()] {
            assert_eq!(read.content::<(String, i32)>().unwrap(), ("a".to_owned(), 1));
            assert_eq!(read.attachments, message.attachments);
        }
        // Cut off anywhere, or no message at all: an error, and no large allocation.
        for end in 0..bytes.len() {
            Message::read_from(&bytes[..end]).unwrap_err();
            Message::receive(&mut &bytes[..end]).await.unwrap_err();
        }
        Message::read_from(&[0xff; 64][..]).unwrap_err();
        Message::read_from(&[0; 4][..]).unwrap_err();
    }
}
