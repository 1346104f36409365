//! Secrets of receivers: read when they are needed, so that a file can be replaced at any time, and hidden in messages.

use std::path::Path;

use silverd_core::config::SecretText;

use super::SendError;

/// Shorter texts are part of too many words to be hidden.
const BYTES_MIN: usize = 4;

/// The secret without blanks around it.
pub(super) async fn read(secret: &SecretText, base_dir: &Path) -> Result<String, SendError> {
    let path = match secret {
        SecretText::Here(secret) => return Ok(secret.expose().to_owned()),
        SecretText::File(path) => base_dir.join(path),
    };
    let text = tokio::fs::read_to_string(&path).await;
    let text = text.map_err(|failure| SendError::retry(format!("read {}: {failure}", path.display())))?;
    match text.trim() {
        "" => Err(SendError::retry(format!("{} is empty: write the secret into it", path.display()))),
        text => Ok(text.to_owned()),
    }
}

/// The text with `***` instead of each secret.
pub(super) fn hide(text: &str, secrets: &[&str]) -> String {
    let long = secrets.iter().filter(|secret| secret.len() >= BYTES_MIN);
    long.fold(text.to_owned(), |text, secret| text.replace(*secret, "***"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::config::Secret;

    use super::*;

    #[tokio::test]
    async fn a_secret_is_read_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let here = SecretText::Here(Secret::new("hunter2".to_owned()));
        assert_eq!(read(&here, folder.path()).await, Ok("hunter2".to_owned()));
        let file = SecretText::File("secret".to_owned());
        let missing = read(&file, folder.path()).await.unwrap_err().to_string();
        assert!(missing.starts_with("read ") && missing.contains("secret"), "{missing}");
        for (content, expected) in [("one\n", Some("one")), ("two", Some("two")), (" \n", None)] {
            std::fs::write(folder.path().join("secret"), content).unwrap();
            assert_eq!(read(&file, folder.path()).await.ok().as_deref(), expected);
        }
    }

    #[test]
    fn secrets_are_hidden() {
        assert_eq!(hide("POST /hunter2 with hunter2", &["hunter2", ""]), "POST /*** with ***");
        assert_eq!(hide("a cat", &["a"]), "a cat");
    }
}
