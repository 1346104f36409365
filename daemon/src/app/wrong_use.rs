//! Errors of the command line and of what it names.

/// A command that was called wrongly: it names what does not exist, or contradicts itself. The exit code says so.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUse(String);

impl WrongUse {
    pub(crate) fn error(text: impl Into<String>) -> anyhow::Error {
        Self(text.into()).into()
    }
}

/// Returns a [`WrongUse`].
macro_rules! wrong_use {
    ($($text:tt)*) => {
        return Err($crate::app::WrongUse::error(format!($($text)*)))
    };
}
pub(crate) use wrong_use;
