//! Files that are valid but for some edits: random bytes are seldom the beginning of any file.

/// More edits leave nothing of a file.
const EDITS_MAX: usize = 64;

/// Applies edits of four bytes each: a place in the file, what is done there, and a byte.
pub fn edited(valid: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut bytes = valid.to_vec();
    for edit in edits.chunks_exact(4).take(EDITS_MAX) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % (bytes.len() + 1);
        let rest = bytes.len() - at;
        match (edit[2] % 8, edit[3]) {
            (0..=3, byte) if rest > 0 => bytes[at] = byte,
            (4, byte) if rest > 0 => bytes[at] ^= byte,
            (5, byte) => bytes.insert(at, byte),
            (6, count) => drop(bytes.drain(at..at + rest.min(usize::from(count)))),
            (7, _) => bytes.truncate(at),
            _ => {}
        }
    }
    bytes
}
