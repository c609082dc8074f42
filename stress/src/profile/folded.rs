//! Folded stacks: each whole stack once, with its weight, as lines of text.
//!
//! Format: the README of Brendan Gregg's `FlameGraph`, "Fold stacks": functions from the outermost to the innermost with
//! semicolons between them, a space, the weight.

use std::collections::{BTreeMap, HashMap};

use super::samples::{Frame, Record, UNKNOWN};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Folded {
    weights: BTreeMap<String, u64>,
}

impl Folded {
    pub(super) fn on_cpu(records: &[Record<'_>], has_kernel: bool) -> Folded {
        let mut folded = Folded::default();
        for record in records {
            if let Record::Sample { stack, .. } = record {
                folded.add(stack_line(stack, has_kernel), 1);
            }
        }
        folded
    }

    /// Weighs each stack by the microseconds from the moment its thread lost the processor to the moment it got one
    /// again. Below the stacks stands why: the thread slept, or another one was put in its place.
    pub(super) fn off_cpu(records: &[Record<'_>], has_kernel: bool) -> Folded {
        let mut places: HashMap<u32, &[Frame<'_>]> = HashMap::new();
        let mut departures: HashMap<u32, (u64, &str)> = HashMap::new();
        let mut waits_ns: BTreeMap<String, u64> = BTreeMap::new();
        for record in records {
            match record {
                // The stack is told just before the switch.
                Record::Sample { thread, stack } => {
                    places.insert(*thread, stack);
                }
                Record::Off { thread, at_ns, is_displaced } => {
                    let why = if *is_displaced { DISPLACED } else { ASLEEP };
                    departures.insert(*thread, (*at_ns, why));
                }
                Record::On { thread, at_ns } => {
                    if let (Some((since_ns, why)), Some(stack)) =
                        (departures.remove(thread), places.remove(thread))
                    {
                        let line = format!("{why};{}", stack_line(stack, has_kernel));
                        *waits_ns.entry(line).or_default() += at_ns.saturating_sub(since_ns);
                    }
                }
            }
        }
        let mut folded = Folded::default();
        for (line, wait_ns) in waits_ns {
            folded.add(line, wait_ns / 1_000);
        }
        folded
    }

    /// Reads the text of an earlier one. `None` if a line of it is no stack with a weight.
    pub fn parse(text: &str) -> Option<Folded> {
        let mut folded = Folded::default();
        for line in text.lines() {
            let (stack, weight) = line.rsplit_once(' ')?;
            folded.add(stack.to_owned(), weight.parse().ok()?);
        }
        Some(folded)
    }

    pub fn text(&self) -> String {
        let lines = self.weights.iter().map(|(stack, weight)| format!("{stack} {weight}\n"));
        lines.collect::<Vec<_>>().concat()
    }

    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    pub fn total(&self) -> u64 {
        self.weights.values().sum()
    }

    /// The weight of the stacks that pass through a function whose name ends so, from the start of a word on.
    pub fn weight_of(&self, function: &str) -> u64 {
        let passes = |stack: &str| stack.split(';').any(|frame| is_named(frame, function));
        self.weights.iter().filter(|(stack, _)| passes(stack)).map(|(_, weight)| weight).sum()
    }

    fn add(&mut self, stack: String, weight: u64) {
        if weight > 0 && !stack.is_empty() {
            *self.weights.entry(stack).or_default() += weight;
        }
    }
}

/// `rinha::server::Server::wait` is named `Server::wait`, `wait`, but not `ait`.
fn is_named(frame: &str, function: &str) -> bool {
    frame.strip_suffix(function).is_some_and(|before| before.is_empty() || before.ends_with("::"))
}

/// A stack from its outermost function on, without those that start every program.
fn stack_line(stack: &[Frame<'_>], has_kernel: bool) -> String {
    let frames = || stack.iter().filter(|frame| has_kernel || !frame.is_kernel);
    let ours = frames().take_while(|frame| !frame.symbol.contains(START));
    let mut names: Vec<String> = ours.map(name).collect();
    // Where the walk of the stack has lost its way.
    while names.last().is_some_and(|name| name == UNKNOWN) {
        names.pop();
    }
    names.reverse();
    names.join(";")
}

/// Marked as inferno and its kin know the kernel's functions, and without what separates frames.
fn name(frame: &Frame<'_>) -> String {
    let suffix = if frame.is_kernel { "_[k]" } else { "" };
    format!("{}{suffix}", frame.symbol.replace(';', ","))
}

const ASLEEP: &str = "asleep";
const DISPLACED: &str = "displaced by another thread";
/// What Rust's runtime calls the function from which `main`, or that of a thread, is called.
const START: &str = "__rust_begin_short_backtrace";

#[cfg(test)]
mod tests {
    use super::super::samples::records;
    use super::super::samples::tests::SCRIPT;
    use super::*;

    #[test]
    fn counts_samples_from_the_outermost_function_on() {
        let text = Folded::on_cpu(&records(SCRIPT), true).text();
        let outermost = "rinha::main;rinha::server::Server::run;rinha::server::Server::turn;";
        assert!(text.starts_with(outermost) && text.contains(";rinha::http::parse_head 1\n"), "{text}");
        assert!(text.contains(";tcp_sendmsg_[k];tcp_sendmsg_locked_[k] 1\n"), "{text}");
        // Without the kernel its time is its callers'.
        let text = Folded::on_cpu(&records(SCRIPT), false).text();
        assert!(!text.contains("_[k]") && text.contains(";rinha::server::Server::send;__send 1\n"), "{text}");
    }

    #[test]
    fn weighs_a_wait_from_its_begin_to_its_end() {
        let folded = Folded::off_cpu(&records(SCRIPT), false);
        assert_eq!((folded.weight_of("Server::wait"), folded.weight_of("Server::receive")), (13, 7));
        assert_eq!((folded.weight_of(ASLEEP), folded.weight_of(DISPLACED)), (13, 7));
        assert!(folded.text().starts_with("asleep;rinha::"), "{}", folded.text());
        // Without its begin or its end it is left out.
        let records = records(SCRIPT);
        let position = records.iter().position(|record| matches!(record, Record::Off { .. })).unwrap();
        assert!(Folded::off_cpu(&records[position + 1..=position + 1], true).is_empty());
        assert!(Folded::off_cpu(&records[..=position], true).is_empty());
    }

    #[test]
    fn is_read_as_it_is_written_and_names_functions_by_whole_words() {
        let folded = Folded::on_cpu(&records(SCRIPT), true);
        assert_eq!(Folded::parse(&folded.text()), Some(folded));
        assert_eq!((Folded::parse("{\"format\": 1}"), Folded::parse("")), (None, Some(Folded::default())));
        let waits =
            Folded::parse("a::run;a::S::wait 3\na::run;a::S::await 4\na::run;a::S::wait;b 5\n").unwrap();
        assert_eq!((waits.weight_of("S::wait"), waits.weight_of("run"), waits.total()), (8, 12, 12));
    }
}
