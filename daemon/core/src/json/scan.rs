//! The inner loop: where a string ends, sixteen bytes at a time.

/// The first byte from `at` on that a string cannot have as it is: a quote, a backslash or a control character. The
/// length of the text if there is none.
#[inline]
pub(super) fn plain_end(text: &[u8], mut at: usize) -> usize {
    while let Some(block) = text.get(at..at + WIDTH) {
        let special = special_bytes(block);
        if special != 0 {
            return at + special.trailing_zeros() as usize / BITS_PER_BYTE;
        }
        at += WIDTH;
    }
    while at < text.len() && !is_special(text[at]) {
        at += 1;
    }
    at
}

#[inline]
fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

#[cfg(target_arch = "x86_64")]
use sse2::{BITS_PER_BYTE, WIDTH, special_bytes};
#[cfg(not(target_arch = "x86_64"))]
use words::{BITS_PER_BYTE, WIDTH, special_bytes};

/// Every x86-64 processor has SSE2.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_max_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };

    pub(super) const WIDTH: usize = 16;
    pub(super) const BITS_PER_BYTE: usize = 1;

    /// A bit for each special byte of a block.
    #[inline]
    pub(super) fn special_bytes(block: &[u8]) -> u32 {
        assert!(block.len() == WIDTH);
        // SAFETY: SSE2 is part of x86-64, and the block has the sixteen bytes that the unaligned load reads.
        unsafe {
            let bytes = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
            let quote = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
            let backslash = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
            // The greater of a byte and 0x1f is 0x1f: the byte is a control character.
            let control = _mm_cmpeq_epi8(_mm_max_epu8(bytes, _mm_set1_epi8(0x1f)), _mm_set1_epi8(0x1f));
            _mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)) as u32
        }
    }
}

/// Eight bytes at a time, as one number.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
mod words {
    pub(super) const WIDTH: usize = 8;
    pub(super) const BITS_PER_BYTE: usize = 8;

    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    /// The high bit of each special byte of a block; the lowest one is exact, those above it may be too many.
    #[inline]
    pub(super) fn special_bytes(block: &[u8]) -> u64 {
        let mut bytes = [0; WIDTH];
        bytes.copy_from_slice(block);
        let word = u64::from_le_bytes(bytes);
        let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGH;
        let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
        below(word, 0x20) | equal(b'"') | equal(b'\\')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_byte_is_found_at_every_place() {
        for special in (0..=255).filter(|byte| is_special(*byte)) {
            for length in 0..40 {
                for at in 0..length {
                    for filler in [b'a', b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xff] {
                        let mut text = vec![filler; length];
                        text[at] = special;
                        assert_eq!(plain_end(&text, 0), at, "{special:#x} in {length} of {filler:#x}");
                        assert_eq!(plain_end(&text, at + 1), length);
                    }
                }
            }
        }
    }

    #[test]
    fn words_find_the_same_first_byte() {
        for special in 0..=255 {
            for at in 0..words::WIDTH {
                let mut block = [b'a'; words::WIDTH];
                block[at] = special;
                let found = words::special_bytes(&block);
                let first = (found != 0).then(|| found.trailing_zeros() as usize / words::BITS_PER_BYTE);
                assert_eq!(first, is_special(special).then_some(at), "{special:#x}");
            }
        }
    }
}
