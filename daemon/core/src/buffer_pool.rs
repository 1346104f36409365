//! A pool of buffers: a chunk reuses the memory of earlier chunks, because new memory costs page faults.

use std::sync::{Arc, Weak};

use arrow_buffer::Buffer;
use parking_lot::Mutex;

/// Free buffers that a pool keeps: about as many chunks are freed at once.
const FREE_BUFFERS_MAX: usize = 3;
/// A buffer that is this many times larger than requested is freed, so that a burst does not pin memory.
const OVERSIZE_FACTOR: usize = 4;
/// Smaller buffers are not pooled.
const POOLED_BYTES_MIN: usize = 64 << 10;

/// The buffers of one column.
#[derive(Clone, Debug, Default)]
pub struct BufferPool(Arc<Mutex<FreeBuffers>>);

#[derive(Debug, Default)]
struct FreeBuffers {
    buffers: Vec<Vec<u8>>,
    /// The size of the last request.
    requested: usize,
}

/// Shared, read-only bytes that return to their pool when they are dropped.
struct PooledBuffer {
    bytes: Vec<u8>,
    pool: Weak<Mutex<FreeBuffers>>,
}

impl BufferPool {
    /// An empty buffer with a capacity of at least `bytes`.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        let mut free = self.0.lock();
        free.requested = bytes;
        free.buffers.retain(|buffer| is_right_size(buffer, bytes));
        let mut buffer = free.buffers.pop().unwrap_or_default();
        drop(free);
        buffer.clear();
        buffer.reserve(bytes);
        buffer
    }

    /// Turns bytes into a shared buffer; its memory returns to the pool after the last reader has dropped it.
    pub fn share(&self, bytes: Vec<u8>) -> Buffer {
        if bytes.capacity() < POOLED_BYTES_MIN {
            return Buffer::from_vec(bytes);
        }
        Buffer::from(bytes::Bytes::from_owner(PooledBuffer { bytes, pool: Arc::downgrade(&self.0) }))
    }
}

impl AsRef<[u8]> for PooledBuffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PooledBuffer {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        let mut free = pool.lock();
        if free.buffers.len() < FREE_BUFFERS_MAX && is_right_size(&self.bytes, free.requested) {
            free.buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

fn is_right_size(buffer: &Vec<u8>, requested: usize) -> bool {
    buffer.capacity() <= requested.saturating_mul(OVERSIZE_FACTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_buffers(pool: &BufferPool) -> usize {
        pool.0.lock().buffers.len()
    }

    #[test]
    fn memory_returns_after_the_last_reader() {
        let pool = BufferPool::default();
        let mut bytes = pool.take(1 << 20);
        let address = bytes.as_ptr();
        bytes.extend_from_slice(b"abc");
        let shared = pool.share(bytes);
        let slice = shared.slice(1);
        drop(shared);
        let other = pool.take(1 << 20);
        assert_ne!(other.as_ptr(), address, "a reader still uses it");
        assert_eq!(slice.as_slice(), b"bc");
        drop(slice);
        let again = pool.take(1 << 20);
        assert_eq!((again.as_ptr(), again.len()), (address, 0));
    }

    #[test]
    fn free_buffers_are_bounded_and_oversized_ones_are_freed() {
        let pool = BufferPool::default();
        let shared: Vec<_> = (0..FREE_BUFFERS_MAX + 2).map(|_| pool.share(pool.take(1 << 20))).collect();
        drop(shared);
        assert_eq!(free_buffers(&pool), FREE_BUFFERS_MAX);
        assert!(pool.take(1 << 10).capacity() < 1 << 20);
        assert_eq!(free_buffers(&pool), 0);
    }

    #[test]
    fn an_oversized_buffer_is_freed_when_it_returns() {
        let pool = BufferPool::default();
        let shared = pool.share(pool.take(1 << 20));
        let _small = pool.take(1 << 10);
        drop(shared);
        assert_eq!(free_buffers(&pool), 0);
    }

    #[test]
    fn bytes_outlive_their_pool() {
        let pool = BufferPool::default();
        let shared = pool.share(vec![7; POOLED_BYTES_MIN]);
        drop(pool);
        assert!(shared.iter().all(|byte| *byte == 7));
    }
}
