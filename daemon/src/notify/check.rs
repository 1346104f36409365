//! What `silverd check` looks at: else, a file that is missing would be noticed only when an alert fires.

use std::path::Path;

use anyhow::{Context, anyhow, bail};
use silverd_core::config::{NotifyKind, NotifyReceiver, SecretText, Webhook};

use super::{authority, command, secret, smtp};

/// Reads the files that the receivers name.
pub(crate) async fn check_files(receivers: &[NotifyReceiver], base_dir: &Path) -> anyhow::Result<()> {
    for receiver in receivers {
        check(&receiver.kind, base_dir).await.with_context(|| format!("[notify.{}]", receiver.name))?;
    }
    Ok(())
}

async fn check(kind: &NotifyKind, base_dir: &Path) -> anyhow::Result<()> {
    let (secrets, tls_ca) = match kind {
        NotifyKind::Webhook(webhook) => {
            let url = secret::read(&webhook.url, base_dir).await?;
            if let (SecretText::File(path), Some(fault)) = (&webhook.url, Webhook::fault(&url, webhook.insecure)) {
                bail!("the URL in {path} cannot be used: {fault}");
            }
            (webhook.secret.as_ref(), &webhook.tls_ca)
        }
        NotifyKind::Smtp(smtp) => {
            for address in std::iter::once(&smtp.from).chain(&smtp.to) {
                smtp::mailbox(address)?;
            }
            (smtp.login.as_ref().map(|login| &login.password), &smtp.tls_ca)
        }
        NotifyKind::Command(notify) => {
            let program = command::program(&notify.program, base_dir);
            let is_missing = program.is_absolute() && !program.is_file();
            return if is_missing { Err(anyhow!("{} is not a file", program.display())) } else { Ok(()) };
        }
    };
    if let Some(text) = secrets {
        secret::read(text, base_dir).await?;
    }
    if let Some(path) = tls_ca {
        authority::read(path, base_dir).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use silverd_core::config;

    use super::*;

    #[tokio::test]
    async fn files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let check = async |keys: &str| {
            let text = format!("[source]\nbrokers = \"b\"\ntopic = \"t\"\n[notify.shop]\n{keys}");
            let pipeline = config::check(&text, &|_| None).unwrap();
            check_files(&pipeline.notify, folder.path()).await.map_err(|error| format!("{error:#}"))
        };
        for (name, content) in [("url", "http://example.com/x"), ("empty", ""), ("run", ""), ("text", "text")] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let mail = "smtp = \"localhost\"\nfrom = \"a@b.example\"\nto = [\"N <c@d>\"]\n";
        let login = format!("{mail}user = \"u\"\npassword_file");
        for (keys, expected) in [
            ("command = [\"no_such_program\"]", None),
            ("command = [\"./run\"]", None),
            ("command = [\"./none\"]", Some("is not a file")),
            ("webhook_file = \"none\"", Some("[notify.shop]: read ")),
            ("webhook_file = \"url\"", Some("expected https://")),
            ("webhook_file = \"url\"\ninsecure = true", None),
            ("webhook = \"https://a.example\"\nsecret_file = \"empty\"", Some("is empty")),
            ("webhook = \"https://a.example\"\ntls_ca = \"text\"", Some("has no certificate")),
            (mail, None),
            (&format!("{login} = \"text\""), None),
            (&format!("{login} = \"none\""), Some("read ")),
        ] {
            let result = check(keys).await;
            let as_expected = match (&result, expected) {
                (Ok(()), None) => true,
                (Err(error), Some(expected)) => error.contains(expected),
                _ => false,
            };
            assert!(as_expected, "{keys}: {result:?}");
        }
    }
}
