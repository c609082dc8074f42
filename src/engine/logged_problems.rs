//! CORE: which problems were logged a short time ago, so that the log does not repeat them.

use crate::now::Now;

/// The problems that were logged within the last `INTERVAL_MS`, at most `PROBLEMS_MAX` of them.
#[derive(Debug, Default)]
pub struct LoggedProblems {
    /// Oldest first, each with the end of its interval.
    problems: Vec<(String, u64)>,
}

impl LoggedProblems {
    /// Whether to log this problem now. If so, the same text is no news for `INTERVAL_MS`.
    pub fn is_news(&mut self, problem: &str, now: Now) -> bool {
        self.problems.retain(|(_, repeat_at_us)| !now.is_past(*repeat_at_us));
        if self.problems.iter().any(|(said, _)| said == problem) {
            return false;
        }
        if self.problems.len() == PROBLEMS_MAX {
            self.problems.remove(0);
        }
        self.problems.push((problem.to_owned(), now.after_ms(INTERVAL_MS)));
        true
    }

    /// All is well: from now on every problem is news.
    pub fn forget(&mut self) {
        self.problems.clear();
    }
}

/// How often the log repeats a problem that stays.
const INTERVAL_MS: u64 = 10_000;
/// Enough for several hosts with several addresses, each of which fails for its own reason.
const PROBLEMS_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn at_ms(ms: u64) -> Now {
        Now::at_us(ms * 1_000)
    }

    #[test]
    fn problems_that_alternate_are_each_said_once_per_interval() {
        let mut problems = LoggedProblems::default();
        let mut said = Vec::new();
        for ms in (0..=INTERVAL_MS + 200).step_by(100) {
            let problem = if ms % 200 == 0 { "first host: refused" } else { "second host: no such name" };
            if problems.is_news(problem, at_ms(ms)) {
                said.push(ms);
            }
        }
        assert_eq!(said, [0, 100, INTERVAL_MS, INTERVAL_MS + 100]);
    }

    #[test]
    fn after_a_session_that_served_everything_is_news() {
        let mut problems = LoggedProblems::default();
        assert!(problems.is_news("closed", at_ms(0)) && !problems.is_news("closed", at_ms(1)));
        problems.forget();
        assert!(problems.is_news("closed", at_ms(2)));
    }

    #[test]
    fn it_remembers_so_many_and_forgets_the_oldest() {
        let mut problems = LoggedProblems::default();
        for number in 0..=PROBLEMS_MAX {
            assert!(problems.is_news(&number.to_string(), at_ms(0)));
        }
        assert_eq!(problems.problems.len(), PROBLEMS_MAX);
        assert!(!problems.is_news("1", at_ms(0)) && problems.is_news("0", at_ms(0)));
    }
}
