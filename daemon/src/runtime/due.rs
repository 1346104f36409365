//! When jobs are due: a loop sleeps until the earliest of them, runs it, and says when it is due again.

use std::time::{Duration, Instant};

/// When each job of a list is due. A job is its index in the list.
///
/// ```text
///   due at an instant ──next(), take_due()──▶ taken ──set(job, at)──▶ due at an instant
/// ```
#[derive(Debug)]
pub(crate) struct Schedule {
    /// `None`: the job was taken, and nobody has set when it is due again.
    due_at: Vec<Option<Instant>>,
}

impl Schedule {
    /// So many jobs, all of them due at `first`.
    pub(crate) fn new(count: usize, first: Instant) -> Self {
        Self { due_at: vec![Some(first); count] }
    }

    pub(crate) fn set(&mut self, job: usize, at: Instant) {
        self.due_at[job] = Some(at);
    }

    /// When the earliest job is due; `None` if no job is scheduled.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.due_at.iter().flatten().min().copied()
    }

    /// Takes the jobs that are due, in the order of the list.
    pub(crate) fn take_due(&mut self, now: Instant) -> Vec<usize> {
        let is_due = |job: &usize| self.due_at[*job].is_some_and(|at| at <= now);
        let jobs: Vec<usize> = (0..self.due_at.len()).filter(is_due).collect();
        jobs.iter().for_each(|job| self.due_at[*job] = None);
        jobs
    }

    /// Waits until the earliest job is due, and takes it. `None` if no job is scheduled.
    ///
    /// Cancel safe: a job is only taken when this returns.
    pub(crate) async fn next(&mut self) -> Option<usize> {
        let at = self.next_due()?;
        tokio::time::sleep_until(at.into()).await;
        let job = self.due_at.iter().position(|due_at| *due_at == Some(at))?;
        self.due_at[job] = None;
        Some(job)
    }
}

/// How long to wait after a job that took `took`: the interval, or longer for a slow job, so that it runs for at most
/// one part in `1 + rest_factor` of the time.
pub(crate) fn rest(interval: Duration, took: Duration, rest_factor: u32) -> Duration {
    interval.max(took * rest_factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn jobs_that_are_due_are_taken_once() {
        let start = Instant::now();
        let mut schedule = Schedule::new(3, start);
        schedule.set(1, start + SECOND);
        assert_eq!(schedule.take_due(start), [0, 2]);
        assert!(schedule.take_due(start).is_empty());
        assert_eq!(schedule.next_due(), Some(start + SECOND));
        schedule.set(0, start + SECOND * 2);
        assert_eq!(schedule.take_due(start + SECOND * 2), [0, 1]);
        assert_eq!(schedule.next_due(), None);
    }

    #[tokio::test]
    async fn the_earliest_job_comes_first() {
        let start = Instant::now();
        let mut schedule = Schedule::new(2, start);
        schedule.set(0, start + Duration::from_millis(20));
        assert_eq!(schedule.next().await, Some(1));
        assert_eq!(schedule.next().await, Some(0));
        assert!(start.elapsed() >= Duration::from_millis(20));
        assert_eq!(schedule.next().await, None);
    }

    #[test]
    fn a_slow_job_rests_longer() {
        assert_eq!(rest(SECOND, SECOND / 10, 4), SECOND);
        assert_eq!(rest(SECOND, SECOND, 4), SECOND * 4);
    }
}
