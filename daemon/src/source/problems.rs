//! Why records are not read, for those who show the pipeline's state.

use std::collections::BTreeMap;
use std::time::Instant;

use parking_lot::Mutex;
use silverd_core::offsets::LogPartition;

/// The problems of a source, by what has them. Empty while everything is read.
#[derive(Default)]
pub(crate) struct SourceProblems(Mutex<BTreeMap<ProblemOf, SourceProblem>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ProblemOf {
    Broker,
    /// The consumer fails again and again.
    Consumer,
    Topic(String),
    Partition(LogPartition),
    /// A transaction of a partition that does not end.
    Transaction(LogPartition),
}

/// Why records are not read.
#[derive(Clone, Debug)]
pub struct SourceProblem {
    pub(crate) text: String,
    pub(crate) since: Instant,
}

impl SourceProblems {
    /// A problem that is known keeps its beginning.
    pub(crate) fn set(&self, of: ProblemOf, text: impl Into<String>) {
        let text = text.into();
        let mut problems = self.0.lock();
        match problems.get_mut(&of) {
            Some(known) => known.text = text,
            None => drop(problems.insert(of, SourceProblem { text, since: Instant::now() })),
        }
    }

    pub(super) fn resolve(&self, of: &ProblemOf) {
        self.0.lock().remove(of);
    }

    /// Forgets the problems of what is not read any more.
    pub(super) fn retain(&self, is_read: impl Fn(&ProblemOf) -> bool) {
        self.0.lock().retain(|of, _| is_read(of));
    }

    pub(crate) fn list(&self) -> Vec<SourceProblem> {
        self.0.lock().values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_keeps_its_beginning_and_ends_with_what_has_it() {
        let (problems, topic) = (SourceProblems::default(), ProblemOf::Topic("a".to_owned()));
        problems.set(topic.clone(), "first");
        let since = problems.list()[0].since;
        problems.set(topic.clone(), "second");
        problems.set(ProblemOf::Broker, "no broker");
        let of_topic = problems.list().into_iter().find(|problem| problem.text == "second");
        assert_eq!(of_topic.map(|problem| problem.since), Some(since));
        problems.retain(|of| *of != topic);
        assert_eq!(problems.list().len(), 1);
        problems.resolve(&ProblemOf::Broker);
        assert!(problems.list().is_empty());
    }
}
