//! A secret in the file, in a variable, or in a file of its own.

use super::error::ConfigError;
use super::pipeline::Secret;
use super::read;
use super::section::Section;
use super::value::Value;
use super::walk::Walk;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretText {
    Here(Secret),
    /// The path of a file that holds it.
    File(String),
}

/// `<key>` as `read` returns it, or the path in `<key>_file`; `None` if the section has neither.
pub(super) fn secret_text<'t>(
    walk: &mut Walk,
    section: &Section<'t>,
    key: &str,
    read: impl FnOnce(&mut Walk, Value<'t>) -> Option<SecretText>,
) -> Option<SecretText> {
    let file_key = format!("{key}_file");
    if let (Some(_), Some((span, _))) = (section.key(key), section.key(&file_key)) {
        let what = format!("[{}] has `{key}` and `{file_key}`", section.title());
        let help = format!("keep the one of the two that holds the {key}");
        walk.report(ConfigError::new(span, what, format!("a second {key}"), Some(help)));
    }
    let file = section.optional(walk, &file_key, read::expanded).map(SecretText::File);
    section.optional(walk, key, read).or(file)
}

/// Any text that is not empty.
pub(super) fn any_secret(walk: &mut Walk, value: Value) -> Option<SecretText> {
    read::expanded(walk, value).map(|text| SecretText::Here(Secret::new(text)))
}
