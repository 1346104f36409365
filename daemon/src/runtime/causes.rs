//! An error with its causes, for people.

/// The error and its causes in one line. What an error already repeats of its cause is not written a second time.
pub(crate) fn causes(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string).filter(|cause| !cause.is_empty()) {
        if !text.contains(&cause) {
            text += ": ";
            text += &cause;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_cause_that_the_error_repeats_is_written_once() {
        let cause = || Err::<(), _>(anyhow!("disk full"));
        let check = |failed: anyhow::Result<()>, expected: &str| assert_eq!(causes(&failed.unwrap_err()), expected);
        check(cause(), "disk full");
        check(cause().context("write the file").context("append"), "append: write the file: disk full");
        check(cause().context("store: disk full").context("append: store: disk full"), "append: store: disk full");
        check(cause().context("store: disk full").context("append"), "append: store: disk full");
    }
}
