//! Memory that chunks have let go of, for the chunks to come: a page that is new costs more than the copy into it.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow_buffer::Buffer;

/// Buffers that wait. As many as chunks are let go of at once.
const SPARE_MAX: usize = 3;
/// A buffer that has room for so many times what is wanted is given up: what came in a rush may not stay for ever.
const TOO_LARGE: usize = 4;
/// Buffers of less are not worth the trouble.
const SMALL_BYTES: usize = 64 << 10;

/// Where the buffers of one column come from, and come back to.
#[derive(Clone, Debug, Default)]
pub struct Spares(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    buffers: Vec<Vec<u8>>,
    wanted: usize,
}

/// Bytes that somebody reads, and whose memory comes back afterwards.
struct Lent {
    bytes: Vec<u8>,
    spares: Weak<Mutex<Waiting>>,
}

impl Spares {
    /// An empty buffer with room for about so many bytes.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.wanted = bytes;
        waiting.buffers.retain(|buffer| fits(buffer, bytes));
        let mut buffer = waiting.buffers.pop().unwrap_or_default();
        drop(waiting);
        buffer.clear();
        buffer.reserve(bytes);
        buffer
    }

    /// Hands bytes out, to be read for as long as anybody does.
    pub fn lend(&self, bytes: Vec<u8>) -> Buffer {
        if bytes.capacity() < SMALL_BYTES {
            return Buffer::from_vec(bytes);
        }
        Buffer::from(bytes::Bytes::from_owner(Lent { bytes, spares: Arc::downgrade(&self.0) }))
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(spares) = self.spares.upgrade() else { return };
        let mut waiting = spares.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.buffers.len() < SPARE_MAX && fits(&self.bytes, waiting.wanted) {
            waiting.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

fn fits(buffer: &Vec<u8>, wanted: usize) -> bool {
    buffer.capacity() <= wanted.saturating_mul(TOO_LARGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(spares: &Spares) -> usize {
        spares.0.lock().expect("no test panics in there").buffers.len()
    }

    #[test]
    fn memory_comes_back_when_nobody_reads_it() {
        let spares = Spares::default();
        let mut bytes = spares.take(1 << 20);
        let place = bytes.as_ptr();
        bytes.extend_from_slice(b"abc");
        let lent = spares.lend(bytes);
        let read = lent.slice(1);
        drop(lent);
        let other = spares.take(1 << 20);
        assert_ne!(other.as_ptr(), place, "somebody reads it still");
        assert_eq!(read.as_slice(), b"bc");
        drop(read);
        let again = spares.take(1 << 20);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
    }

    #[test]
    fn what_a_rush_left_is_given_up() {
        let spares = Spares::default();
        let lent: Vec<_> = (0..SPARE_MAX + 2).map(|_| spares.lend(spares.take(1 << 20))).collect();
        drop(lent);
        assert_eq!(waiting(&spares), SPARE_MAX);
        assert!(spares.take(1 << 10).capacity() < 1 << 20);
        assert_eq!(waiting(&spares), 0);
    }

    #[test]
    fn what_comes_back_after_a_rush_is_given_up() {
        let spares = Spares::default();
        let lent = spares.lend(spares.take(1 << 20));
        let _small = spares.take(1 << 10);
        drop(lent);
        assert_eq!(waiting(&spares), 0);
    }

    #[test]
    fn bytes_outlive_their_owner() {
        let spares = Spares::default();
        let lent = spares.lend(vec![7; SMALL_BYTES]);
        drop(spares);
        assert!(lent.iter().all(|byte| *byte == 7));
    }
}
