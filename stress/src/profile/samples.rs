//! Reads what `perf script` prints: stacks, and when threads lost and got the processor.
//!
//! Format: the manual page perf-script(1) with `--fields tid,time,event,ip,sym,dso --ns --show-switch-events`. A sample
//! is a line with thread, time and event, one line for each function from the innermost on, and an empty line.

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Sample {
        thread: u32,
        /// From the innermost function to the outermost.
        stack: Vec<Frame<'a>>,
    },
    /// A thread lost the processor: it sleeps, or another was put in its place.
    Off {
        thread: u32,
        at_ns: u64,
        is_displaced: bool,
    },
    On {
        thread: u32,
        at_ns: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// `[unknown]` where there is none.
    pub(super) symbol: &'a str,
    pub(super) is_kernel: bool,
}

/// All that the text tells, in order. Lines of any other kind are passed over.
pub(super) fn records(text: &str) -> Vec<Record<'_>> {
    let mut records = Vec::new();
    for line in text.lines() {
        if let Some(line) = line.strip_prefix('\t') {
            if let (Some(Record::Sample { stack, .. }), Some(frame)) = (records.last_mut(), frame(line)) {
                stack.push(frame);
            }
        } else {
            records.extend(head(line));
        }
    }
    records
}

/// `13891 13455.620393123: PERF_RECORD_SWITCH OUT preempt`, `13891 13455.620544123: cpu-clock: `
fn head(line: &str) -> Option<Record<'_>> {
    let (thread, rest) = line.trim_start().split_once(' ')?;
    let thread = thread.parse().ok()?;
    let (time, what) = rest.trim_start().split_once(':')?;
    let at_ns = nanoseconds(time)?;
    Some(match what.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["PERF_RECORD_SWITCH", "IN", ..] => Record::On { thread, at_ns },
        ["PERF_RECORD_SWITCH", "OUT", rest @ ..] => {
            Record::Off { thread, at_ns, is_displaced: rest.first() == Some(&"preempt") }
        }
        [event, ..] if event.ends_with(':') => Record::Sample { thread, stack: Vec::new() },
        [..] => return None,
    })
}

/// `13455.620393123`, with nine digits behind the point.
fn nanoseconds(time: &str) -> Option<u64> {
    let (seconds, fraction) = time.split_once('.')?;
    if fraction.len() != 9 {
        return None;
    }
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(fraction.parse().ok()?)
}

/// `ffffffff821fb643 schedule ([kernel.kallsyms])`, `55d1c0a0f2e1 rinha::server::Server::wait (/path/to/rinha)`
fn frame(line: &str) -> Option<Frame<'_>> {
    let (address, rest) = line.trim_start().split_once(' ')?;
    // A symbol may hold parentheses, and a path may end in " (deleted)": the file is the last that starts as one.
    let file_start = rest.rfind(" (/").max(rest.rfind(" (["))?;
    let symbol = rest[..file_start].trim();
    // The kernel has the upper half of the addresses, on every processor of 64 bits that it runs on. An address that is
    // in no file at all is where the walk of a stack has ended.
    let is_kernel = address.len() == 16 && address.starts_with("ffff") && !rest.ends_with("([unknown])");
    Some(Frame { symbol: if symbol.is_empty() { UNKNOWN } else { symbol }, is_kernel })
}

pub(super) const UNKNOWN: &str = "[unknown]";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Two samples of `cpu-clock`, and a sleep and a displacement of `context-switches`.
    pub(in crate::profile) const SCRIPT: &str = include_str!("samples.txt");

    #[test]
    fn reads_samples_and_when_a_thread_lost_and_got_the_processor() {
        let records = records(SCRIPT);
        let [Record::Sample { thread: 14_201, stack: first }, Record::Sample { stack: second, .. }, ..] =
            &records[..]
        else {
            panic!("{records:?}")
        };
        assert_eq!(first[0], Frame { symbol: "rinha::http::parse_head", is_kernel: false });
        assert_eq!(second[0], Frame { symbol: "tcp_sendmsg_locked", is_kernel: true });
        assert!(second.iter().any(|frame| frame.symbol == "rinha::server::Server::send"), "{second:?}");
        let switches = records.into_iter().filter(|record| !matches!(record, Record::Sample { .. }));
        let expected = [
            Record::Off { thread: 14_201, at_ns: 13_455_620_549_000, is_displaced: false },
            Record::On { thread: 14_201, at_ns: 13_455_620_562_000 },
            Record::Off { thread: 14_201, at_ns: 13_455_620_600_000, is_displaced: true },
            Record::On { thread: 14_201, at_ns: 13_455_620_607_500 },
        ];
        assert!(switches.eq(expected));
    }

    #[test]
    fn a_file_may_be_gone_and_a_symbol_may_hold_anything() {
        for (line, symbol) in [
            ("  55d1 core::FnOnce<fn (u8)>::call (/t/rinha (deleted))", Some("core::FnOnce<fn (u8)>::call")),
            ("     0 [unknown] ([unknown])", Some("[unknown]")),
            ("7f0c  (/usr/lib/libc.so.6)", Some("[unknown]")),
            ("ffffffffffffffff [unknown] ([unknown])", Some("[unknown]")),
            ("of another kind", None),
        ] {
            assert_eq!(frame(line), symbol.map(|symbol| Frame { symbol, is_kernel: false }));
        }
    }
}
