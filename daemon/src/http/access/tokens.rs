//! The tokens of `[http]`, as digests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};
use silverd_core::config::{Role, SecretText, Token};

use super::Identity;

pub(super) struct Tokens(Vec<Known>);

struct Known {
    name: Arc<str>,
    role: Role,
    digest: [u8; 32],
    /// What a browser stores instead of the token. The name differs from token to token, since browsers share cookies
    /// between the ports of a host.
    cookie: (String, String),
}

impl Tokens {
    pub(super) fn read(tokens: &[Token], base_dir: &Path) -> anyhow::Result<Self> {
        let known = |token: &Token| Ok(Known::new(token.name.as_str().into(), token.role, &text(token, base_dir)?));
        tokens.iter().map(known).collect::<anyhow::Result<_>>().map(Self)
    }

    pub(super) fn files(tokens: &[Token], base_dir: &Path) -> Vec<PathBuf> {
        let file = |token: &Token| match &token.text {
            SecretText::File(path) => Some(base_dir.join(path)),
            SecretText::Here(_) => None,
        };
        tokens.iter().filter_map(file).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn of_text(&self, text: &str) -> Option<Identity> {
        self.known(text).map(|known| known.identity(false))
    }

    pub(super) fn of_cookies(&self, headers: &HeaderMap) -> Option<Identity> {
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = cookies.flat_map(|cookies| cookies.split("; ")).filter_map(|cookie| cookie.split_once('='));
        let known = cookies.find_map(|(name, value)| {
            self.0.iter().find(|known| name == known.cookie.0 && is_equal(value.as_bytes(), known.cookie.1.as_bytes()))
        });
        known.map(|known| known.identity(true))
    }

    pub(super) fn cookie_of(&self, text: &str) -> Option<(String, String)> {
        self.known(text).map(|known| known.cookie.clone())
    }

    pub(super) fn cookie_names(&self) -> Vec<String> {
        self.0.iter().map(|known| known.cookie.0.clone()).collect()
    }

    fn known(&self, text: &str) -> Option<&Known> {
        let digest = digest(&[text.as_bytes()]);
        self.0.iter().find(|known| is_equal(&digest, &known.digest))
    }
}

impl Known {
    fn new(name: Arc<str>, role: Role, text: &str) -> Self {
        let token = digest(&[text.as_bytes()]);
        let hex = |label: &str| digest(&[label.as_bytes(), &token]).map(|byte| format!("{byte:02x}")).concat();
        let cookie = (format!("silverd-{}", &hex("cookie name")[..12]), hex("cookie"));
        Self { name, role, digest: token, cookie }
    }

    fn identity(&self, can_log_out: bool) -> Identity {
        Identity { name: Some(self.name.clone()), role: self.role, can_log_out, is_known: true }
    }
}

fn text(token: &Token, base_dir: &Path) -> anyhow::Result<String> {
    let path = match &token.text {
        SecretText::Here(secret) => return Ok(secret.expose().to_owned()),
        SecretText::File(path) => base_dir.join(path),
    };
    let what = || format!("[http] token `{}`: read {}", token.name, path.display());
    let text = std::fs::read_to_string(&path).with_context(what)?;
    match Token::fault(text.trim()) {
        None => Ok(text.trim().to_owned()),
        Some(fault) => bail!("{}: {fault}; generate one with `openssl rand -hex 16`", what()),
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), |digest, part| digest.chain_update(part)).finalize().into()
}

/// In constant time.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |different, (a, b)| different | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::config::Secret;

    use super::*;

    fn token(name: &str, role: Role, text: SecretText) -> Token {
        Token { name: name.to_owned(), role, text }
    }

    fn here(text: &str) -> SecretText {
        SecretText::Here(Secret::new(text.to_owned()))
    }

    fn cookies(text: &str) -> HeaderMap {
        [(header::COOKIE, text.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_token_is_accepted_as_text_and_as_cookie() {
        let all = [
            token("token", Role::Operate, here("0123456789abcdef")),
            token("wall", Role::View, here("fedcba9876543210")),
        ];
        let tokens = Tokens::read(&all, Path::new("")).unwrap();
        let role = |identity: Option<Identity>| identity.map(|identity| (identity.role, identity.can_log_out));
        assert_eq!(role(tokens.of_text("0123456789abcdef")), Some((Role::Operate, false)));
        assert_eq!(role(tokens.of_text("fedcba9876543210")), Some((Role::View, false)));
        assert_eq!(role(tokens.of_text("0123456789abcdeg")), None);
        let (name, value) = tokens.cookie_of("fedcba9876543210").unwrap();
        assert_eq!(role(tokens.of_cookies(&cookies(&format!("a=b; {name}={value}")))), Some((Role::View, true)));
        let (other_name, _) = tokens.cookie_of("0123456789abcdef").unwrap();
        assert_eq!(role(tokens.of_cookies(&cookies(&format!("{other_name}={value}")))), None);
        assert_eq!(role(tokens.of_cookies(&cookies(&format!("{name}=fedcba9876543210")))), None);
        assert_eq!(role(tokens.of_cookies(&HeaderMap::new())), None);
    }

    #[test]
    fn a_token_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("good"), "0123456789abcdef\n").unwrap();
        std::fs::write(folder.path().join("short"), "0123\n").unwrap();
        let read =
            |name: &str| Tokens::read(&[token("wall", Role::View, SecretText::File(name.to_owned()))], folder.path());
        assert!(read("good").unwrap().of_text("0123456789abcdef").is_some());
        for name in ["short", "absent"] {
            let error = format!("{:#}", read(name).err().unwrap());
            assert!(error.contains("`wall`") && error.contains(name), "{error}");
        }
    }
}
