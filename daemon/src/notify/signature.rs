//! The signature of a webhook's requests: HMAC-SHA256 (RFC 2104) over the time and the body.

use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = 64;

/// The value of the header `Silverd-Signature`: `t=<seconds since the epoch>,v1=<hex>`. What is signed is `<seconds>.<body>`.
pub(super) fn signature(key: &str, at_s: i64, body: &str) -> String {
    let mac = hmac_sha256(key.as_bytes(), &[at_s.to_string().as_bytes(), b".", body.as_bytes()]);
    format!("t={at_s},v1={}", mac.map(|byte| format!("{byte:02x}")).concat())
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let digest = |first: &[u8], parts: &[&[u8]]| -> [u8; 32] {
        let digest = Sha256::new().chain_update(first);
        parts.iter().fold(digest, |digest, part| digest.chain_update(part)).finalize().into()
    };
    let mut block = [0; BLOCK_BYTES];
    match key.len() {
        ..=BLOCK_BYTES => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&digest(key, &[])),
    }
    let inner = digest(&block.map(|byte| byte ^ 0x36), parts);
    digest(&block.map(|byte| byte ^ 0x5c), &[&inner[..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(key: &[u8], text: &[u8], expected: &str) {
        let mac = hmac_sha256(key, &[&text[..1], &text[1..]]);
        assert_eq!(mac.map(|byte| format!("{byte:02x}")).concat(), expected);
    }

    /// Cases 1, 2 and 6 of RFC 4231.
    #[test]
    fn codes_are_those_of_the_rfc() {
        check(&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }

    #[test]
    fn the_time_is_signed_too() {
        let [one, other] = [1, 2].map(|at_s| signature("0123456789abcdef", at_s, "{}"));
        assert!(one.starts_with("t=1,v1=") && one.len() == "t=1,v1=".len() + 64, "{one}");
        assert_ne!(one[7..], other[7..]);
    }
}
