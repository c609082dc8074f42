//! The twelve steps: their pages, their programs, their exercises.

use crate::arena::{Arena, Verdict};
use crate::echo;

pub struct Step {
    /// The name of its page and program in `docs/learn/path`, beginning with its number.
    pub name: &'static str,
    pub title: &'static str,
    /// The program that this step mends, if it is none of the step before.
    pub bug: Option<&'static str>,
    pub exercises: &'static [Exercise],
}

/// One thing that a program has to do.
pub struct Exercise {
    pub title: &'static str,
    /// The section of the step's page that explains it.
    pub section: &'static str,
    pub run: fn(&Arena) -> Verdict,
}

impl Step {
    /// The page of a step, from the root of the repository.
    pub fn page(&self) -> String {
        format!("docs/learn/path/{}.md", self.name)
    }
}

const fn exercise(title: &'static str, section: &'static str, run: fn(&Arena) -> Verdict) -> Exercise {
    Exercise { title, section, run }
}

const ONE: Exercise = exercise("one client gets back what it sends", "the-program", echo::one_client);
const LEAVE: Exercise = exercise("clients leave, the others stay", "the-program", echo::clients_leave);
const MANY: Exercise = exercise("64 clients at once", "the-program", echo::many_clients);
const SILENT: Exercise = exercise("a silent client holds nobody up", "the-program", echo::a_silent_client);
const SLEEPS: Exercise = exercise("it sleeps while nothing happens", "the-program", echo::sleeps);
const THREAD: Exercise = exercise("one thread for 50 clients", "the-program", echo::one_thread);
const BYTES: Exercise =
    exercise("32 KiB in one edge", "read-until-it-would-block", echo::one_edge_for_many_bytes);
const CLIENTS: Exercise = exercise("20 clients in one edge", "accept-too", echo::one_edge_for_many_clients);

pub const STEPS: [Step; 6] = [
    Step {
        name: "01-threads",
        title: "a thread for each client",
        bug: Some("01-one-at-a-time"),
        exercises: &[
            ONE,
            exercise("a silent client holds nobody up", "what-breaks", echo::a_silent_client),
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "02-poll",
        title: "one thread, and poll",
        bug: None,
        exercises: &[
            ONE,
            exercise("one thread for 50 clients", "what-breaks", echo::one_thread),
            exercise("it sleeps while nothing happens", "ask-the-kernel", echo::sleeps),
            SILENT,
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "03-epoll",
        title: "epoll, level-triggered",
        bug: None,
        exercises: &[
            ONE,
            exercise(
                "each client is registered once",
                "the-kernel-keeps-the-list",
                echo::registered_by_level,
            ),
            THREAD,
            SLEEPS,
            SILENT,
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "04-edge-triggered",
        title: "epoll, edge-triggered",
        bug: Some("04-bug"),
        exercises: &[
            ONE,
            BYTES,
            CLIENTS,
            exercise("each client is registered by its edges", "one-flag", echo::registered_by_edge),
            THREAD,
            SLEEPS,
            SILENT,
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "05-short-writes",
        title: "short writes and back-pressure",
        bug: Some("05-bug"),
        exercises: &[
            ONE,
            exercise("a slow reader gets every byte", "an-outbox", echo::slow_reader),
            exercise("who does not read is not read", "back-pressure", echo::back_pressure),
            BYTES_LATER,
            CLIENTS_LATER,
            THREAD,
            SLEEPS,
            SILENT,
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "06-timers",
        title: "timers",
        bug: None,
        exercises: &[
            ONE,
            exercise(
                "an idle client leaves, a busy one stays",
                "a-deadline-for-each",
                echo::idle_clients_leave,
            ),
            exercise("a stuck client leaves", "a-deadline-for-each", echo::stuck_clients_leave),
            exercise("a slow reader gets every byte", "the-program", echo::slow_reader),
            exercise("who does not read is not read", "the-program", echo::back_pressure),
            BYTES_LATER,
            CLIENTS_LATER,
            THREAD,
            SLEEPS,
            SILENT,
            MANY,
            LEAVE,
        ],
    },
];

const BYTES_LATER: Exercise = exercise("32 KiB in one edge", "the-program", echo::one_edge_for_many_bytes);
const CLIENTS_LATER: Exercise =
    exercise("20 clients in one edge", "the-program", echo::one_edge_for_many_clients);
