//! Texts of a typed input.

/// The text without white space at its ends. It is copied only if there is some.
///
/// ```
/// assert_eq!(silverd_plugin::trimmed(" ann ".to_owned()), "ann");
/// ```
#[inline]
pub fn trimmed(text: String) -> String {
    let trimmed = silverd_values::trim(&text);
    if trimmed.len() == text.len() { text } else { trimmed.to_owned() }
}

/// The text without white space at its ends; `None` if nothing is left.
///
/// ```
/// assert_eq!(silverd_plugin::not_blank(Some(" ".to_owned())), None);
/// assert_eq!(silverd_plugin::not_blank(Some("ann ".to_owned())).as_deref(), Some("ann"));
/// ```
#[inline]
pub fn not_blank(text: Option<String>) -> Option<String> {
    text.map(trimmed).filter(|text| !text.is_empty())
}
