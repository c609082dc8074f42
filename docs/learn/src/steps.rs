//! The twelve steps: their pages, their programs, their exercises.

use crate::arena::{Arena, Verdict};
use crate::{calls, echo, http};

pub struct Step {
    /// The name of its page and program in `docs/learn/path`, beginning with its number.
    pub name: &'static str,
    pub title: &'static str,
    /// The program that this step mends, if it is none of the step before.
    pub bug: Option<&'static str>,
    pub api: Api,
    pub exercises: &'static [Exercise],
}

/// What a program answers from PostgreSQL. All but the first have the path of its socket as their second argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// It needs none.
    None,
    /// `POST /clientes/1/c/1000`, and `GET /` without PostgreSQL.
    Short,
    /// That of the challenge.
    Challenge,
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
const SILENT: Exercise = exercise("a silent client delays no other", "the-program", echo::a_silent_client);
const SLEEPS: Exercise = exercise("it sleeps while nothing happens", "the-program", echo::sleeps);
const THREAD: Exercise = exercise("one thread for 50 clients", "the-program", echo::one_thread);
const BYTES: Exercise =
    exercise("32 KiB in one edge", "read-until-it-would-block", echo::one_edge_for_many_bytes);
const CLIENTS: Exercise = exercise("20 clients in one edge", "accept-too", echo::one_edge_for_many_clients);

pub const STEPS: [Step; 12] = [
    Step {
        name: "01-threads",
        title: "a thread for each client",
        bug: Some("01-one-at-a-time"),
        api: Api::None,
        exercises: &[
            ONE,
            exercise("a silent client delays no other", "what-breaks", echo::a_silent_client),
            MANY,
            LEAVE,
        ],
    },
    Step {
        name: "02-poll",
        title: "one thread, and poll",
        bug: None,
        api: Api::None,
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
        api: Api::None,
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
        api: Api::None,
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
        api: Api::None,
        exercises: &[
            ONE,
            exercise("a slow reader gets every byte", "an-outbox", echo::slow_reader),
            exercise("a client that does not read is not read", "back-pressure", echo::back_pressure),
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
        api: Api::None,
        exercises: &[
            ONE,
            exercise(
                "an idle client leaves, a busy one stays",
                "a-deadline-for-each",
                echo::idle_clients_leave,
            ),
            exercise("a stuck client leaves", "a-deadline-for-each", echo::stuck_clients_leave),
            exercise("a slow reader gets every byte", "the-program", echo::slow_reader),
            exercise("a client that does not read is not read", "the-program", echo::back_pressure),
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
        name: "07-http",
        title: "HTTP",
        bug: None,
        api: Api::None,
        exercises: &[
            exercise("a request and its answer", "the-program", http::one_request),
            exercise("byte by byte", "partial-is-not-an-error", http::byte_by_byte),
            exercise("three requests in one packet", "the-next-one-is-here-already", http::two_in_one),
            exercise("a slow reader gets every answer", "the-next-one-is-here-already", http::slow_reader),
            MALFORMED,
            TOO_LONG,
            HALF_CLOSED,
            HTTP_IDLE,
            HTTP_SLEEPS,
        ],
    },
    Step {
        name: "08-postgresql",
        title: "a call to PostgreSQL, by hand",
        bug: None,
        api: Api::Short,
        exercises: &[TRANSACTION, LIMIT, MALFORMED_LATER, HALF_CLOSED_LATER],
    },
    Step {
        name: "09-pipelining",
        title: "pipelining",
        bug: None,
        api: Api::Short,
        exercises: &[
            TRANSACTION,
            exercise("the loop goes on while PostgreSQL works", "one-more-socket", calls::the_loop_goes_on),
            exercise("calls do not wait for answers", "do-not-wait", calls::calls_overtake_no_answer),
            exercise("a client that left gets no answer", "who-gets-it", calls::who_left_gets_nothing),
            LIMIT,
            MALFORMED_LATER,
            HALF_CLOSED_LATER,
        ],
    },
    Step {
        name: "10-group-commit",
        title: "group commit",
        bug: None,
        api: Api::Short,
        exercises: &[
            TRANSACTION,
            exercise("calls that gather share one Sync", "one-sync-for-all", calls::one_sync_for_all),
            exercise(
                "answers wait for the commit",
                "answers-wait-for-the-commit",
                calls::answers_wait_for_the_commit,
            ),
            exercise(
                "one failure fails no other",
                "one-failure-fails-no-other",
                calls::one_failure_fails_no_other,
            ),
            exercise("batches are sorted", "sorted", calls::batches_are_sorted),
            LOOP,
            LEFT,
            LIMIT,
            MALFORMED_LATER,
            HALF_CLOSED_LATER,
        ],
    },
    Step {
        name: "11-api",
        title: "the API of the challenge",
        bug: None,
        api: Api::Challenge,
        exercises: &[
            TRANSACTION,
            exercise("the rules", "the-rules", calls::the_rules),
            exercise("a statement", "a-statement-is-json-already", calls::the_statement),
            AT_ONCE,
            ONE_SYNC,
            COMMIT,
            CULPRIT,
            SORTED,
            LOOP,
            LEFT,
            LIMIT,
            MALFORMED_LATER,
        ],
    },
    Step {
        name: "12-miniature",
        title: "a miniature of the server",
        bug: None,
        api: Api::Challenge,
        exercises: &[
            TRANSACTION,
            exercise("300 lines of code", "three-hundred-lines", calls::small),
            exercise("a lost connection leaves a call in doubt", "in-doubt", calls::in_doubt),
            exercise("the queue has a limit", "everything-has-a-limit", calls::the_queue_is_bounded),
            RULES,
            STATEMENT,
            AT_ONCE,
            ONE_SYNC,
            COMMIT,
            CULPRIT,
            SORTED,
            LOOP,
            LEFT,
            LIMIT,
            MALFORMED_LATER,
        ],
    },
];

const MALFORMED: Exercise = exercise("a malformed request is refused", "refuse-and-close", http::malformed);
const TOO_LONG: Exercise =
    exercise("a request that is too long is refused", "refuse-and-close", http::too_long);
const HALF_CLOSED: Exercise =
    exercise("a half-closed client gets its answer", "the-program", http::half_closed);
const HTTP_IDLE: Exercise =
    exercise("an idle client leaves, a busy one stays", "the-program", http::idle_clients_leave);
const HTTP_SLEEPS: Exercise = exercise("it sleeps while nothing happens", "the-program", http::sleeps);
const MALFORMED_LATER: Exercise = exercise("a malformed request is refused", "the-program", http::malformed);
const HALF_CLOSED_LATER: Exercise =
    exercise("a half-closed client gets its answer", "the-program", http::half_closed);
const TRANSACTION: Exercise = exercise("a credit and a debit", "the-program", calls::a_transaction);
const LIMIT: Exercise = exercise("the limit", "the-program", calls::the_limit);
const LOOP: Exercise =
    exercise("the loop goes on while PostgreSQL works", "the-program", calls::the_loop_goes_on);
const LEFT: Exercise =
    exercise("a client that left gets no answer", "the-program", calls::who_left_gets_nothing);
const AT_ONCE: Exercise = exercise("25 transactions at once", "the-program", calls::at_once);
const ONE_SYNC: Exercise =
    exercise("calls that gather share one Sync", "the-program", calls::one_sync_for_all);
const COMMIT: Exercise =
    exercise("answers wait for the commit", "the-program", calls::answers_wait_for_the_commit);
const CULPRIT: Exercise =
    exercise("one failure fails no other", "the-program", calls::one_failure_fails_no_other);
const SORTED: Exercise = exercise("batches are sorted", "the-program", calls::batches_are_sorted);
const RULES: Exercise = exercise("the rules", "the-program", calls::the_rules);
const STATEMENT: Exercise = exercise("a statement", "the-program", calls::the_statement);
const BYTES_LATER: Exercise = exercise("32 KiB in one edge", "the-program", echo::one_edge_for_many_bytes);
const CLIENTS_LATER: Exercise =
    exercise("20 clients in one edge", "the-program", echo::one_edge_for_many_clients);
