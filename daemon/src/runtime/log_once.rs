//! Logs a failure that repeats only once.

/// Remembers the last failure that was logged, so that the same failure is not logged again at each retry.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogOnce(Option<String>);

impl LogOnce {
    /// Remembers the text, and says whether it differs from the last one: then it is to be logged.
    pub(crate) fn is_new(&mut self, text: &str) -> bool {
        let is_new = self.0.as_deref() != Some(text);
        if is_new {
            self.0 = Some(text.to_owned());
        }
        is_new
    }

    /// Forgets the failure, and says whether there was one: then the recovery is to be logged.
    pub(crate) fn clear(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_new_until_it_repeats() {
        let mut last_error = LogOnce::default();
        assert!(!last_error.clear());
        assert!(last_error.is_new("disk full"));
        assert!(!last_error.is_new("disk full"));
        assert!(last_error.is_new("no such table"));
        assert!(last_error.clear());
        assert!(last_error.is_new("no such table"));
    }
}
