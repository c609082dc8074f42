//! SHELL: writes the log on a thread of its own, so that the loop never waits for the reader of stderr.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A bounded queue of log lines in front of a slow or blocked output. Clones share the queue.
///
/// Each call of `write` takes one line, never waits for the output and never fails. A line that does not fit is dropped and
/// counted; the thread writes the count as soon as the output takes bytes again.
#[derive(Clone, Debug)]
pub struct LogWriter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Lines were queued, or the thread has written what it took.
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    lines: Vec<u8>,
    /// The limit of `lines`. What the thread is writing may be as long again.
    len_max_bytes: usize,
    /// Lines dropped since the thread last took some.
    dropped_lines: u64,
    /// The thread has taken lines and not written all of them.
    is_writing: bool,
}

impl LogWriter {
    /// Starts the thread, which writes to `out` until the process ends. At most `len_max_bytes` wait for it.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn start(out: impl Write + Send + 'static, len_max_bytes: usize) -> io::Result<LogWriter> {
        let queue = Queue { lines: Vec::new(), len_max_bytes, dropped_lines: 0, is_writing: false };
        let shared = Arc::new(Shared { queue: Mutex::new(queue), changed: Condvar::new() });
        let of_thread = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || of_thread.write_for_ever(out))?;
        Ok(LogWriter { shared })
    }

    /// Queues a line that is no record of the log. As `write`, it never waits for the output.
    pub fn say(&self, line: impl fmt::Display) {
        self.queue(format!("{line}\n").as_bytes());
    }

    /// Waits until every line was written, or `timeout` is over.
    pub fn flush_within(&self, timeout: Duration) {
        let is_behind = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), timeout, is_behind);
        drop(waited);
    }

    fn queue(&self, line: &[u8]) {
        let mut queue = self.shared.lock();
        if queue.lines.len() + line.len() > queue.len_max_bytes {
            queue.dropped_lines += 1;
        } else {
            queue.lines.extend_from_slice(line);
            self.shared.changed.notify_all();
        }
    }
}

impl Write for LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.queue(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    /// A panic elsewhere leaves no half-done change behind: each is one statement.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_for_ever(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let dropped_lines = self.take(&mut lines);
            if dropped_lines > 0 {
                // The newest lines were dropped, so the note goes where they would have been.
                let note = format!(
                    "rinha: {dropped_lines} lines of the log were dropped: it was not read in time\n"
                );
                lines.extend_from_slice(note.as_bytes());
            }
            let unwritten = write_all(&mut out, &lines);
            let lost_lines = unwritten.split_inclusive(|&byte| byte == b'\n').count() as u64;
            lines.clear();
            let mut queue = self.lock();
            queue.dropped_lines += lost_lines;
            queue.is_writing = false;
            self.changed.notify_all();
        }
    }

    /// Waits for lines and takes all of them. Returns how many were dropped behind them.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        let queue = self.changed.wait_while(self.lock(), |queue| queue.lines.is_empty());
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut queue.lines, lines);
        queue.is_writing = true;
        mem::take(&mut queue.dropped_lines)
    }
}

/// Writes as much as the output takes before it fails; returns the rest.
fn write_all<'a>(out: &mut impl Write, mut bytes: &'a [u8]) -> &'a [u8] {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => break,
            Ok(len_bytes) => bytes = &bytes[len_bytes..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A process that shares this stderr has made it non-blocking.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(RETRY_WAIT),
            Err(_) => break,
        }
    }
    bytes
}

/// Between two attempts to write to a non-blocking output that is full.
const RETRY_WAIT: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    use super::*;

    /// Takes one write for each permission; tells what it has taken.
    struct Gate {
        permissions: Receiver<io::Result<()>>,
        written: SyncSender<String>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // The test may be over.
            self.permissions.recv().map_err(|_| ErrorKind::BrokenPipe)??;
            let text = String::from_utf8(bytes.to_vec()).unwrap();
            self.written.send(text).map_err(|_| ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Output {
        permit: SyncSender<io::Result<()>>,
        written: Receiver<String>,
    }

    fn gated(len_max_bytes: usize) -> (LogWriter, Output) {
        let (permit, permissions) = sync_channel(16);
        let (written, output) = sync_channel(16);
        let log = LogWriter::start(Gate { permissions, written }, len_max_bytes).unwrap();
        (log, Output { permit, written: output })
    }

    impl Output {
        fn take(&self) -> String {
            self.permit.send(Ok(())).unwrap();
            self.written.recv().unwrap()
        }
    }

    /// Waits until the thread has taken what is queued and is stuck with it.
    fn wait_taken(log: &LogWriter) {
        while !log.shared.lock().lines.is_empty() {
            thread::yield_now();
        }
    }

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_counted_in_their_place() {
        let (log, output) = gated(8);
        log.say("one");
        wait_taken(&log);
        // Nothing takes the bytes, and nothing waits.
        for line in ["two", "six", "ten", "any"] {
            log.say(line);
        }
        assert_eq!(output.take(), "one\n");
        let dropped = "rinha: 2 lines of the log were dropped: it was not read in time\n";
        assert_eq!(output.take(), format!("two\nsix\n{dropped}"));
        log.say("end");
        assert_eq!(output.take(), "end\n");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_dropped() {
        let (log, output) = gated(8);
        log.say("longer than that");
        log.say("end");
        assert!(output.take().starts_with("end\nrinha: 1 lines"));
    }

    #[test]
    fn lines_that_the_output_refuses_are_counted_and_said_once_it_takes_more() {
        let (log, output) = gated(100);
        log.say("to a full disk");
        output.permit.send(Err(ErrorKind::StorageFull.into())).unwrap();
        log.flush_within(Duration::MAX);
        log.say("end");
        assert!(output.take().starts_with("end\nrinha: 1 lines"));
    }

    #[test]
    fn an_output_that_would_block_or_was_interrupted_is_tried_again() {
        let (log, output) = gated(100);
        log.say("whole");
        for kind in [ErrorKind::WouldBlock, ErrorKind::Interrupted] {
            output.permit.send(Err(kind.into())).unwrap();
        }
        assert_eq!(output.take(), "whole\n");
    }

    #[test]
    fn a_flush_waits_for_the_output_or_for_its_timeout() {
        let (log, output) = gated(100);
        log.say("end");
        log.flush_within(Duration::from_millis(1));
        assert!(output.written.try_recv().is_err());
        output.permit.send(Ok(())).unwrap();
        log.flush_within(Duration::MAX);
        assert_eq!(output.written.try_recv().unwrap(), "end\n");
    }
}
