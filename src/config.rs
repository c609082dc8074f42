//! CORE: every limit and setting of the server in one place, read from the environment and checked once.

use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

use log::LevelFilter;
use proto_pg::{AuthenticationPolicy, ChannelConfig, ConnectorConfig, Session, TargetSessionAttrs, Url};

use crate::http::head;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`; the host is an address, or a name for all of its addresses. Port 0 lets the system choose.
    Tcp(String),
    /// The path of a Unix socket.
    Unix(String),
}

impl fmt::Display for Address {
    /// As it stands in `LISTEN`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => f.write_str(address),
            Address::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// What a connection string says: who logs in to which servers, and how.
#[derive(Clone, Debug)]
pub struct Database {
    /// The servers, which sessions of them will do, and how they are tried.
    pub connector: ConnectorConfig,
    /// How their bytes travel: as they are, or through TLS.
    pub channel: ChannelConfig,
    /// How they may ask for our password.
    pub authentication: AuthenticationPolicy,
    /// Who logs in, and where. Its `Debug` shows no password.
    pub session: Session,
}

/// A setting that cannot be used. One line: the setting, what is wrong, what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Declares the numeric settings once: field, variable, default, range, unit and text.
macro_rules! settings {
    ($($field:ident: $type:ty, $variable:literal = $default:literal in $min:literal..=$max:literal, $unit:literal, $help:literal;)*) => {
        /// Every setting. [`Config::from_environment`] is the only way to one, so each value is within its range.
        #[derive(Clone, Debug)]
        #[expect(clippy::doc_markdown, reason = "the help of a setting is plain text")]
        pub struct Config {
            /// `LISTEN`: where the bank listens.
            pub listen: Vec<Address>,
            /// `METRICS_LISTEN`: where the metrics are; nowhere by default.
            pub metrics_listen: Vec<Address>,
            /// `DATABASE_URL`: where the lanes go.
            pub database: Database,
            /// `DATABASE_URL_READ`: where the reader goes; there is none by default.
            pub database_read: Option<Database>,
            /// `RUST_LOG`: the least severe lines of the log.
            pub log_level: LevelFilter,
            /// What a lane sets in its session after the log-in, as (name, value).
            pub session_settings: Vec<(&'static str, String)>,
            $(#[doc = $help] #[doc = ""] #[doc = concat!("`", $variable, "`, ", $unit, ".")] pub $field: $type,)*
        }

        impl Config {
            /// Reads the settings through `variable`, which returns what the environment holds under a name.
            ///
            /// # Errors
            /// The first setting that is missing, malformed or out of its range.
            pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
                Config::with_files(variable, |_| Err(ErrorKind::Unsupported.into()))
            }

            /// The same, and reads the files that the settings of TLS name through `read`.
            ///
            /// # Errors
            /// As above, and a file that cannot be used.
            pub fn with_files(
                variable: impl Fn(&str) -> Option<String>,
                read: impl Fn(&Path) -> io::Result<Vec<u8>>,
            ) -> Result<Config, ConfigError> {
                let text = Text::read(&variable, read)?;
                let mut config = Config {
                    $($field: number(&variable, $variable, $default, $min, $max)?,)*
                    listen: text.listen,
                    metrics_listen: text.metrics_listen,
                    database: text.database,
                    database_read: text.database_read,
                    log_level: text.log_level,
                    session_settings: Vec::new(),
                };
                for Database { connector, .. } in [&mut config.database].into_iter().chain(&mut config.database_read) {
                    // The URL is more specific than the environment variable.
                    connector.connect_timeout.get_or_insert(Duration::from_millis(config.connect_timeout_ms));
                    connector.wait_min = Duration::from_millis(config.reconnect_min_ms);
                    connector.wait_max = Duration::from_millis(config.reconnect_max_ms);
                }
                config.check_together()?;
                Ok(config.with_session_settings())
            }
        }

        const SETTINGS: &[Setting] = &[$(Setting {
            variable: $variable, default: $default, min: $min, max: $max, unit: $unit, help: $help,
        },)*];
    };
}

struct Setting {
    variable: &'static str,
    default: u64,
    min: u64,
    max: u64,
    unit: &'static str,
    help: &'static str,
}

settings! {
    lanes: usize, "LANES" = 1 in 1..=16, "connections",
        "Connections to PostgreSQL. With several, all calls of one account use the same one.";
    batch_calls_max: usize, "BATCH_CALLS_MAX" = 64 in 1..=256, "calls",
        "Maximum calls in one transaction. 1 sends each call by itself.";
    group_calls_min: usize, "GROUP_CALLS_MIN" = 4 in 2..=257, "calls",
        "Minimum transactions sent as one set-based call, and minimum size of a batch after which the next one waits for GATHER_MS; 257 disables both.";
    gather_ms: u64, "GATHER_MS" = 1 in 0..=100, "ms",
        "Maximum time that a batch waits to become as large as the one before, if that had GROUP_CALLS_MIN calls; less than QUEUE_TIMEOUT_MS. 0 sends at once.";
    batches_in_flight_max: usize, "BATCHES_IN_FLIGHT_MAX" = 1 in 1..=8, "batches",
        "Maximum unanswered batches per lane.";
    queue_calls_max: usize, "QUEUE_CALLS_MAX" = 1024 in 1..=65_536, "calls",
        "Maximum calls waiting for a lane. Beyond it, new requests get 503. Below CLIENTS_MAX it may refuse clients that wait for their answers.";
    queue_wait_max_ms: u64, "QUEUE_WAIT_MAX_MS" = 1_000 in 1..=60_000, "ms",
        "Maximum expected queueing delay. Beyond it, new requests get 503 at once. Below QUEUE_TIMEOUT_MS it may refuse calls that would be served in time.";
    queue_timeout_ms: u64, "QUEUE_TIMEOUT_MS" = 1_000 in 1..=60_000, "ms",
        "Maximum time that a call waits for a lane, also while the database is down. After it, 503.";
    answer_timeout_ms: u64, "ANSWER_TIMEOUT_MS" = 4_000 in 10..=600_000, "ms",
        "Maximum time until PostgreSQL answers a batch or a log-in. After it, the lane reconnects.";
    statement_timeout_ms: u64, "STATEMENT_TIMEOUT_MS" = 2_000 in 1..=600_000, "ms",
        "statement_timeout of each session; less than ANSWER_TIMEOUT_MS, so that PostgreSQL gives up first.";
    lock_timeout_ms: u64, "LOCK_TIMEOUT_MS" = 500 in 1..=600_000, "ms",
        "lock_timeout of each session: maximum wait for a row that another session has locked.";
    attempts_max: u8, "ATTEMPTS_MAX" = 3 in 2..=100, "runs",
        "Maximum runs of a call that PostgreSQL rolls back: one with the others of its batch, then alone.";
    connect_timeout_ms: u64, "CONNECT_TIMEOUT_MS" = 2_000 in 10..=60_000, "ms",
        "Maximum time to look the name of a database host up, and to connect to each of its addresses.";
    reconnect_min_ms: u64, "RECONNECT_MIN_MS" = 20 in 1..=60_000, "ms",
        "Maximum wait before a lane reconnects; doubled after each round of all hosts without a session.";
    reconnect_max_ms: u64, "RECONNECT_MAX_MS" = 200 in 1..=60_000, "ms",
        "Where RECONNECT_MIN_MS stops doubling.";
    probe_interval_ms: u64, "PROBE_INTERVAL_MS" = 1_000 in 10..=600_000, "ms",
        "Interval at which each lane calls the procedures without effect, for /healthz, and one lane reads the accounts.";
    read_staleness_max_ms: u64, "READ_STALENESS_MAX_MS" = 1_000 in 10..=600_000, "ms",
        "Maximum age of what a statement from DATABASE_URL_READ shows. One that may be older is answered by DATABASE_URL.";
    lane_inbox_len_bytes: usize, "LANE_INBOX_LEN_BYTES" = 65_536 in 8_192..=16_777_216, "bytes",
        "Receive buffer of a lane, and the longest message it accepts, errors and notices excepted.";
    lane_text_len_max_bytes: usize, "LANE_TEXT_LEN_MAX_BYTES" = 67_108_864 in 65_536..=2_147_483_648, "bytes",
        "Longest error or notice accepted from PostgreSQL; its first 512 bytes are kept. A longer one closes the lane.";
    accounts_max: usize, "ACCOUNTS_MAX" = 10_000 in 1..=10_000_000, "accounts",
        "Maximum accounts read from the database, those with the lowest ids first. The others are answered 404, with a warning in the log.";
    clients_max: u32, "CLIENTS_MAX" = 1_024 in 1..=1_000_000, "connections",
        "Maximum HTTP connections; fewer, with a warning, if the limit of open files is lower. Beyond it, new ones wait in the backlog of the kernel.";
    listen_backlog: i32, "LISTEN_BACKLOG" = 4_096 in 1..=65_535, "connections",
        "Maximum connections waiting in the kernel to be accepted, per listener.";
    socket_buffer_len_bytes: usize, "SOCKET_BUFFER_LEN_BYTES" = 16_384 in 4_096..=16_777_216, "bytes",
        "Kernel buffer of an HTTP connection over TCP, per direction (Linux doubles it).";
    inbox_len_bytes: usize, "INBOX_LEN_BYTES" = 2_048 in 256..=65_536, "bytes",
        "Initial receive buffer of an HTTP connection. It grows for a long request and shrinks after it.";
    outbox_len_max_bytes: usize, "OUTBOX_LEN_MAX_BYTES" = 16_384 in 1_024..=1_048_576, "bytes",
        "Maximum bytes waiting to be sent on an HTTP connection. Beyond it, its next request waits.";
    head_len_max_bytes: usize, "HEAD_LEN_MAX_BYTES" = 8_192 in 256..=65_536, "bytes",
        "Longest request head; beyond it, 431.";
    target_len_max_bytes: usize, "TARGET_LEN_MAX_BYTES" = 4_096 in 64..=65_536, "bytes",
        "Longest request target; beyond it, 414.";
    body_len_max_bytes: usize, "BODY_LEN_MAX_BYTES" = 16_384 in 256..=1_048_576, "bytes",
        "Longest request body; beyond it, 413.";
    head_timeout_ms: u64, "HEAD_TIMEOUT_MS" = 10_000 in 10..=600_000, "ms",
        "Maximum time from the first byte of a head to its last; after it, 408.";
    body_timeout_ms: u64, "BODY_TIMEOUT_MS" = 10_000 in 10..=600_000, "ms",
        "Maximum time from the end of a head to the end of its body; after it, 408.";
    idle_timeout_ms: u64, "IDLE_TIMEOUT_MS" = 75_000 in 10..=86_400_000, "ms",
        "Maximum time between two requests on a connection. Longer than that of nginx, so that nginx closes first.";
    send_timeout_ms: u64, "SEND_TIMEOUT_MS" = 10_000 in 10..=600_000, "ms",
        "Maximum time that a client may take to read a response.";
    linger_timeout_ms: u64, "LINGER_TIMEOUT_MS" = 1_000 in 1..=60_000, "ms",
        "Maximum time to read and drop input after a request was refused, so that no reset overtakes the response.";
    linger_len_max_bytes: usize, "LINGER_LEN_MAX_BYTES" = 1_048_576 in 0..=1_073_741_824, "bytes",
        "Maximum bytes read and dropped after a request was refused. Beyond it, nothing more is read; LINGER_TIMEOUT_MS closes.";
    turn_read_bytes: usize, "TURN_READ_BYTES" = 65_536 in 1_024..=16_777_216, "bytes",
        "Maximum bytes read from one socket per turn of the loop.";
    turn_accepts_max: usize, "TURN_ACCEPTS_MAX" = 64 in 1..=65_536, "connections",
        "Maximum connections accepted per listener and turn.";
    drain_timeout_ms: u64, "DRAIN_TIMEOUT_MS" = 8_000 in 0..=600_000, "ms",
        "After SIGTERM: maximum time to finish what is in flight.";
    drain_idle_ms: u64, "DRAIN_IDLE_MS" = 500 in 0..=600_000, "ms",
        "After SIGTERM: how long an idle connection stays open for a request that may be on its way.";
    log_queue_len_bytes: usize, "LOG_QUEUE_LEN_BYTES" = 65_536 in 1_024..=16_777_216, "bytes",
        "Maximum log bytes waiting for stderr. Beyond it, lines are dropped; the log counts them later.";
    log_lines_max: u64, "LOG_LINES_MAX" = 50 in 1..=1_000_000, "lines",
        "Maximum log lines of one kind per LOG_INTERVAL_MS. Beyond it, lines are withheld; the next one of the kind counts them.";
    log_interval_ms: u64, "LOG_INTERVAL_MS" = 10_000 in 1..=86_400_000, "ms",
        "Interval of LOG_LINES_MAX; it begins with the first line of a kind.";
    log_flush_timeout_ms: u64, "LOG_FLUSH_TIMEOUT_MS" = 500 in 0..=60_000, "ms",
        "At exit: maximum time to write the log lines that wait.";
}

impl Config {
    /// The first address of `LISTEN`, for a check that needs no other setting.
    ///
    /// # Errors
    /// `LISTEN` is missing or malformed.
    pub fn first_listen_address(variable: impl Fn(&str) -> Option<String>) -> Result<Address, ConfigError> {
        // `split` gives at least one entry, and `addresses` as many as it gives.
        Ok(addresses("LISTEN", &required(&variable, "LISTEN", "0.0.0.0:8080")?)?.swap_remove(0))
    }

    /// The wire limits of HTTP.
    pub fn http_limits(&self) -> head::Limits {
        head::Limits {
            head_len_max_bytes: self.head_len_max_bytes,
            target_len_max_bytes: self.target_len_max_bytes,
            body_len_max_bytes: self.body_len_max_bytes,
        }
    }

    /// The limits of a lane's PostgreSQL connection.
    pub fn lane_limits(&self) -> proto_pg::Limits {
        proto_pg::Limits {
            message_len_max_bytes: self.lane_inbox_len_bytes,
            text_len_max_bytes: self.lane_text_len_max_bytes,
            send_len_max_bytes: self.batch_calls_max * self.batches_in_flight_max * CALL_LEN_MAX_BYTES
                + STARTING_LEN_MAX_BYTES,
            // The reader asks for a position in each batch.
            in_flight_calls_max: (self.batch_calls_max + 1) * self.batches_in_flight_max + PROBE_CALLS_MAX,
        }
    }

    /// Sessions with PostgreSQL: the lanes, and the reader if there is one.
    pub fn sessions(&self) -> usize {
        self.lanes + usize::from(self.database_read.is_some())
    }

    /// How often each server is asked for its position, if there is a reader. Often enough that one known position of the primary
    /// is nearly as old as a statement may be: then a standby may be nearly that far behind.
    pub fn position_interval_ms(&self) -> u64 {
        self.read_staleness_max_ms / 4
    }

    /// A warning for each of these environment variables that is no setting and looks like a mistyped one. It is no error: the
    /// environment is shared with other programs.
    pub fn near_misses(names: impl Iterator<Item = String>) -> Vec<String> {
        let settings = || SETTINGS.iter().map(|setting| setting.variable).chain(TEXT_SETTINGS);
        names
            .filter(|name| !settings().any(|setting| setting == name))
            .filter_map(|name| {
                let meant = settings().find(|setting| is_near(&name, setting))?;
                Some(format!("the environment variable {name} is no setting; {meant} is one"))
            })
            .collect()
    }

    /// The text of `--help` about the settings.
    pub fn help() -> String {
        let mut out = String::from(
            "Required\n\
             \x20 DATABASE_URL  postgresql://user:password@host:port/database, or a Unix socket through ?host=/directory,\n\
             \x20               or host=... user=... as libpq takes it; several hosts are tried in this order;\n\
             \x20               TLS by sslmode=verify-full&sslrootcert=FILE and its like\n\
             \x20 LISTEN        comma-separated: 0.0.0.0:8080, [::1]:8080, unix:/path/to.sock;\n\
             \x20               a name stands for all of its addresses: localhost:8080\n\
             Optional\n\
             \x20 METRICS_LISTEN  where GET /metrics is answered, as LISTEN; nowhere by default\n\
             \x20 DATABASE_URL_READ  as DATABASE_URL, but of standbys, which answer statements at most READ_STALENESS_MAX_MS old;\n\
             \x20               target_session_attrs=standby or prefer-standby chooses among several hosts. Off by default\n\
             \x20 RUST_LOG        off, error, warn, info (default), debug or trace\n",
        );
        for Setting { variable, default, min, max, unit, help } in SETTINGS {
            let written = writeln!(out, "  {variable} = {default} {unit} ({min} to {max})\n      {help}");
            debug_assert!(written.is_ok(), "writing to memory does not fail");
        }
        out
    }

    fn check_together(&self) -> Result<(), ConfigError> {
        if self.target_len_max_bytes > self.head_len_max_bytes {
            return Err(ConfigError(format!(
                "TARGET_LEN_MAX_BYTES={} is more than HEAD_LEN_MAX_BYTES={}: a target is part of a head",
                self.target_len_max_bytes, self.head_len_max_bytes
            )));
        }
        if self.statement_timeout_ms >= self.answer_timeout_ms {
            return Err(ConfigError(format!(
                "STATEMENT_TIMEOUT_MS={} must be less than ANSWER_TIMEOUT_MS={}, so that PostgreSQL gives up first",
                self.statement_timeout_ms, self.answer_timeout_ms
            )));
        }
        if self.gather_ms >= self.queue_timeout_ms {
            return Err(ConfigError(format!(
                "GATHER_MS={} must be less than QUEUE_TIMEOUT_MS={}: a call would be given up while its batch gathers",
                self.gather_ms, self.queue_timeout_ms
            )));
        }
        if self.reconnect_min_ms > self.reconnect_max_ms {
            return Err(ConfigError(format!(
                "RECONNECT_MIN_MS={} is more than RECONNECT_MAX_MS={}",
                self.reconnect_min_ms, self.reconnect_max_ms
            )));
        }
        Ok(())
    }

    /// All session settings that correctness or timing rests on, whatever a role, a database or `postgresql.conf` says.
    ///
    /// A lane sets them after the log-in and not in its start-up message, which poolers refuse. Left to the database:
    /// `search_path`, which may say where the bank is; `synchronous_commit`, which decides on durability; and
    /// `default_transaction_read_only`, which fences a database off: such a session is refused.
    fn with_session_settings(mut self) -> Config {
        let text = |value: &str| value.to_owned();
        self.session_settings = vec![
            // PostgreSQL holds no row lock for a call that its client has given up.
            ("statement_timeout", self.statement_timeout_ms.to_string()),
            ("lock_timeout", self.lock_timeout_ms.to_string()),
            // Since PostgreSQL 17. The two above end a batch.
            ("transaction_timeout", text("0")),
            // A lane may be idle for as long as no client asks.
            ("idle_session_timeout", text("0")),
            ("idle_in_transaction_session_timeout", text("0")),
            // The procedures lock each row before they judge it, so nothing has to be serialized, or to fail for it.
            ("default_transaction_isolation", text("read committed")),
            ("default_transaction_deferrable", text("off")),
            // A lane runs the same few statements for ever. PostgreSQL would plan two of them anew each time, because their
            // estimated cost depends on the length of an array.
            ("plan_cache_mode", text("force_generic_plan")),
            // Statements of microseconds never repay compilation.
            ("jit", text("off")),
            // An error fails its batch; the session goes on.
            ("exit_on_error", text("off")),
            ("client_min_messages", text("notice")),
            // A session whose link dies in the middle of a batch keeps the row locks of its first half until PostgreSQL's kernel
            // reports the dead link: after 10 s, in place of two hours. PostgreSQL ignores these on a Unix socket.
            ("tcp_keepalives_idle", text("5")),
            ("tcp_keepalives_interval", text("1")),
            ("tcp_keepalives_count", text("5")),
            ("tcp_user_timeout", text("0")),
        ];
        self
    }
}

/// The settings that are no numbers.
struct Text {
    listen: Vec<Address>,
    metrics_listen: Vec<Address>,
    database: Database,
    database_read: Option<Database>,
    log_level: LevelFilter,
}

impl Text {
    fn read(
        variable: &impl Fn(&str) -> Option<String>,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Text, ConfigError> {
        let url = required(variable, "DATABASE_URL", "postgresql://rinha:rinha@localhost:5432/rinha")?;
        let database = Database::parse("DATABASE_URL", &url, variable, &read)?;
        if let attrs @ (TargetSessionAttrs::ReadOnly
        | TargetSessionAttrs::Standby
        | TargetSessionAttrs::PreferStandby) = database.connector.target_session_attrs
        {
            return Err(ConfigError(format!(
                "DATABASE_URL: target_session_attrs={} asks for sessions that cannot write; use read-write, primary or any",
                attrs.name()
            )));
        }
        let url = variable("DATABASE_URL_READ").filter(|url| !url.is_empty());
        let database_read = match url {
            Some(url) => Some(Database::parse("DATABASE_URL_READ", &url, variable, &read)?),
            None => None,
        };
        Ok(Text {
            listen: addresses("LISTEN", &required(variable, "LISTEN", "0.0.0.0:8080")?)?,
            metrics_listen: match variable("METRICS_LISTEN") {
                Some(list) if !list.is_empty() => addresses("METRICS_LISTEN", &list)?,
                Some(_) | None => Vec::new(),
            },
            database,
            database_read,
            log_level: log_level(variable)?,
        })
    }
}

impl Database {
    fn parse(
        name: &str,
        url: &str,
        variable: &impl Fn(&str) -> Option<String>,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Database, ConfigError> {
        let mut url = Url::parse(url).map_err(|error| ConfigError(format!("{name}: {error}")))?;
        // As libpq does: the name of the operating system's user where the URL gives none.
        let default_user = match url.user {
            Some(_) => String::new(),
            None => ["PGUSER", "USER"]
                .iter()
                .find_map(|name| variable(name).filter(|user| !user.is_empty()))
                .unwrap_or_default(),
        };
        if url.user.is_none() && default_user.is_empty() {
            return Err(ConfigError(format!("{name} names no user, and neither PGUSER nor USER is set")));
        }
        let channel =
            ChannelConfig::new(&url, read).map_err(|error| ConfigError(format!("{name}: {error}")))?;
        // One that is empty stays so: it asks for none.
        url.application_name.get_or_insert_with(|| env!("CARGO_PKG_NAME").to_owned());
        Ok(Database {
            session: url.session(&default_user),
            connector: ConnectorConfig::new(&url),
            channel,
            authentication: url.authentication,
        })
    }
}

fn required(
    variable: &impl Fn(&str) -> Option<String>,
    name: &str,
    example: &str,
) -> Result<String, ConfigError> {
    variable(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| ConfigError(format!("{name} is not set; for example {name}={example}")))
}

/// Whether a name is probably meant for this setting: in other letters, without its unit, or with one letter wrong.
fn is_near(name: &str, setting: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("RINHA_").unwrap_or(&name);
    let is_beginning = setting.strip_prefix(name).is_some_and(|rest| rest.starts_with('_'));
    let same_from_start = name.bytes().zip(setting.bytes()).take_while(|(a, b)| a == b).count();
    let same_from_end = name.bytes().rev().zip(setting.bytes().rev()).take_while(|(a, b)| a == b).count();
    let is_one_edit_away = name.len().abs_diff(setting.len()) <= 1
        && same_from_start + same_from_end + 1 >= name.len().max(setting.len());
    // Shorter names are one letter away from those of other programs: LINES, LISTEN_PID.
    name == setting || (is_beginning && name.contains('_')) || (is_one_edit_away && setting.len() >= 8)
}

/// The settings that are no numbers.
const TEXT_SETTINGS: [&str; 5] =
    ["DATABASE_URL", "DATABASE_URL_READ", "LISTEN", "METRICS_LISTEN", "RUST_LOG"];

fn log_level(variable: &impl Fn(&str) -> Option<String>) -> Result<LevelFilter, ConfigError> {
    let text = variable("RUST_LOG").unwrap_or_default();
    if text.is_empty() {
        return Ok(LevelFilter::Info);
    }
    text.parse()
        .map_err(|_| ConfigError(format!("RUST_LOG={text}: expected off, error, warn, info, debug or trace")))
}

fn addresses(name: &str, list: &str) -> Result<Vec<Address>, ConfigError> {
    list.split(',').map(|entry| address(name, entry.trim())).collect()
}

fn address(name: &str, entry: &str) -> Result<Address, ConfigError> {
    let malformed = |problem: &str| {
        ConfigError(format!("{name}: {entry:?} {problem}; expected host:port or unix:/path/to.sock"))
    };
    if let Some(path) = entry.strip_prefix("unix:") {
        return match path.len() {
            0 => Err(malformed("names no path")),
            1..=SOCKET_PATH_LEN_MAX_BYTES => Ok(Address::Unix(path.to_owned())),
            _ => Err(malformed("is longer than a socket path may be (107 bytes)")),
        };
    }
    let (host, port) = entry.rsplit_once(':').ok_or_else(|| malformed("has no port"))?;
    if host.is_empty() {
        return Err(malformed("has no host"));
    }
    port.parse::<u16>().map_err(|_| malformed("has no port from 0 to 65535"))?;
    Ok(Address::Tcp(entry.to_owned()))
}

/// The largest range of `BATCH_CALLS_MAX`, so that a batch fits an array on the stack.
pub const BATCH_CALLS_LIMIT: usize = 256;
/// A Bind and an Execute of the longest call take less.
const CALL_LEN_MAX_BYTES: usize = 160;
/// The calls of a probe, and those after the log-in, are at most as many.
const PROBE_CALLS_MAX: usize = 5;
/// What a lane sends besides calls: log-in and statements to prepare, settings, a probe, and a Sync per batch.
const STARTING_LEN_MAX_BYTES: usize = 16_384;
/// `sun_path` of unix(7), less its final NUL.
const SOCKET_PATH_LEN_MAX_BYTES: usize = 107;

fn number<T: TryFrom<u64>>(
    variable: &impl Fn(&str) -> Option<String>,
    name: &str,
    default: u64,
    min: u64,
    max: u64,
) -> Result<T, ConfigError> {
    let problem =
        |value: &str| ConfigError(format!("{name}={value}: expected a whole number from {min} to {max}"));
    let text = variable(name);
    let value = match &text {
        Some(text) => text.parse().map_err(|_| problem(text))?,
        None => default,
    };
    if value < min || value > max {
        return Err(problem(text.as_deref().unwrap_or_default()));
    }
    T::try_from(value).map_err(|_| problem(text.as_deref().unwrap_or_default()))
}

#[cfg(test)]
impl Config {
    /// The required settings and these.
    pub(crate) fn for_test(settings: &[(&str, &str)]) -> Config {
        tests::config(settings).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A configuration from the required settings and these.
    pub(super) fn config(settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let required =
            [("DATABASE_URL", "postgresql://ana:secret@10.0.0.1/rinha"), ("LISTEN", "127.0.0.1:0")];
        Config::from_environment(|name| {
            let find = |settings: &[(&str, &str)]| {
                settings.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            find(settings).or_else(|| find(&required))
        })
    }

    fn error(settings: &[(&str, &str)]) -> String {
        config(settings).unwrap_err().to_string()
    }

    #[test]
    fn defaults_are_within_their_ranges_and_make_a_configuration() {
        for Setting { variable, default, min, max, .. } in SETTINGS {
            assert!(min <= default && default <= max, "{variable}");
        }
        let config = config(&[]).unwrap();
        assert_eq!(config.body_len_max_bytes, 16_384);
        assert_eq!(config.listen, [Address::Tcp("127.0.0.1:0".to_owned())]);
        assert!(config.metrics_listen.is_empty());
    }

    #[test]
    fn a_batch_fits_the_arrays_made_for_it() {
        let batch = SETTINGS.iter().find(|setting| setting.variable == "BATCH_CALLS_MAX").unwrap();
        assert_eq!(batch.max, BATCH_CALLS_LIMIT as u64);
    }

    #[test]
    fn a_lane_has_room_for_its_batches_in_flight_and_a_probe() {
        let limits =
            config(&[("BATCH_CALLS_MAX", "5"), ("BATCHES_IN_FLIGHT_MAX", "3")]).unwrap().lane_limits();
        assert_eq!(limits.in_flight_calls_max, 15 + 3 + PROBE_CALLS_MAX);
        assert_eq!(limits.send_len_max_bytes, 15 * CALL_LEN_MAX_BYTES + STARTING_LEN_MAX_BYTES);
    }

    #[test]
    fn limits_that_belong_together_may_be_equal() {
        for pair in [["TARGET_LEN_MAX_BYTES", "HEAD_LEN_MAX_BYTES"], ["RECONNECT_MIN_MS", "RECONNECT_MAX_MS"]]
        {
            assert!(config(&pair.map(|name| (name, "1024"))).is_ok(), "{pair:?}");
        }
        for pair in [["STATEMENT_TIMEOUT_MS", "ANSWER_TIMEOUT_MS"], ["GATHER_MS", "QUEUE_TIMEOUT_MS"]] {
            assert!(error(&pair.map(|name| (name, "100"))).contains("must be less"), "{pair:?}");
        }
    }

    #[test]
    fn every_setting_is_read_from_its_own_variable() {
        for Setting { variable, min, max, .. } in SETTINGS {
            let (below, above) = (min.wrapping_sub(1).to_string(), (max + 1).to_string());
            for bad in [above.as_str(), below.as_str(), "", "1.5", "-1", "many"] {
                let error = error(&[(variable, bad)]);
                assert!(error.starts_with(&format!("{variable}={bad}:")), "{error}");
                assert!(!error.contains('\n'));
            }
        }
    }

    #[test]
    fn help_names_every_setting() {
        let help = Config::help();
        for name in SETTINGS.iter().map(|setting| setting.variable).chain([
            "DATABASE_URL",
            "DATABASE_URL_READ",
            "LISTEN",
            "METRICS_LISTEN",
        ]) {
            assert!(help.contains(&format!("  {name} ")), "{name}");
        }
    }

    #[test]
    fn the_reference_lists_every_setting_with_its_default() {
        let page = include_str!("../docs/reference/settings.md");
        for Setting { variable, default, unit, help, .. } in SETTINGS {
            let row = format!("| `{variable}` | {default} {unit} | {help} |");
            assert!(page.contains(&row), "docs/reference/settings.md lacks {row}");
        }
    }

    #[test]
    fn listen_takes_tcp_and_unix_sockets_at_once() {
        let config = config(&[("LISTEN", "0.0.0.0:8080, unix:/run/a.sock,[::1]:1")]).unwrap();
        assert_eq!(
            config.listen,
            [
                Address::Tcp("0.0.0.0:8080".to_owned()),
                Address::Unix("/run/a.sock".to_owned()),
                Address::Tcp("[::1]:1".to_owned())
            ]
        );
    }

    #[test]
    fn a_bad_address_is_named() {
        let long = format!("unix:/{}", "x".repeat(107));
        for bad in ["", "8080", ":8080", "host:", "host:65536", "unix:", "127.0.0.1:80,,", long.as_str()] {
            let error = error(&[("LISTEN", bad)]);
            assert!(error.starts_with("LISTEN"), "{error}");
        }
        assert!(error(&[("METRICS_LISTEN", "x")]).starts_with("METRICS_LISTEN: \"x\" has no port"));
    }

    #[test]
    fn a_bad_database_url_is_named_without_its_password() {
        for bad in ["", "mysql://ana:secret@db/x", "postgresql://ana:secret@db/x?sslmode=on"] {
            let error = error(&[("DATABASE_URL", bad)]);
            assert!(error.starts_with("DATABASE_URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(!format!("{:?}", config(&[]).unwrap()).contains("secret"));
    }

    #[test]
    fn the_user_falls_back_to_the_environment() {
        let url = ("DATABASE_URL", "postgresql:///rinha?host=/tmp");
        assert_eq!(config(&[url, ("USER", "bia")]).unwrap().database.session.user, "bia");
        assert_eq!(
            config(&[url, ("USER", "bia"), ("PGUSER", "caio")]).unwrap().database.session.user,
            "caio"
        );
        assert!(error(&[url]).starts_with("DATABASE_URL names no user"));
    }

    #[test]
    fn the_log_has_one_level_and_info_is_the_default() {
        for (text, level) in [
            ("", LevelFilter::Info),
            ("off", LevelFilter::Off),
            ("error", LevelFilter::Error),
            ("WARN", LevelFilter::Warn),
            ("info", LevelFilter::Info),
            ("debug", LevelFilter::Debug),
            ("trace", LevelFilter::Trace),
        ] {
            assert_eq!(config(&[("RUST_LOG", text)]).unwrap().log_level, level, "{text}");
        }
        assert_eq!(config(&[]).unwrap().log_level, LevelFilter::Info);
        for bad in ["verbose", "warning", "3", " info", "info,debug", "rinha=debug", "debug=rinha"] {
            let expected = format!("RUST_LOG={bad}: expected off, error, warn, info, debug or trace");
            assert_eq!(error(&[("RUST_LOG", bad)]), expected);
        }
    }

    #[test]
    fn a_variable_that_looks_like_a_setting_is_told_from_those_of_others() {
        for (name, meant) in [
            ("QUEUE_TIMEOUT", "QUEUE_TIMEOUT_MS"),
            ("CLIENT_MAX", "CLIENTS_MAX"),
            ("CLIENTS_MAXX", "CLIENTS_MAX"),
            ("DATABSE_URL", "DATABASE_URL"),
            ("VLIENTS_MAX", "CLIENTS_MAX"),
            ("lanes", "LANES"),
            ("RINHA_LANES", "LANES"),
        ] {
            let expected = format!("the environment variable {name} is no setting; {meant} is one");
            assert_eq!(Config::near_misses([name.to_owned()].into_iter()), [expected]);
        }
        let of_others =
            ["PATH", "LINES", "LANG", "LISTEN_PID", "LISTEN_FDS", "DATABASE", "RUST_BACKTRACE", "USER"];
        let names = of_others.into_iter().chain(TEXT_SETTINGS);
        let names = names.chain(SETTINGS.iter().map(|setting| setting.variable));
        assert_eq!(Config::near_misses(names.map(str::to_owned)), [""; 0]);
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        assert!(error(&[("TARGET_LEN_MAX_BYTES", "9000")]).contains("HEAD_LEN_MAX_BYTES=8192"));
        assert!(error(&[("ANSWER_TIMEOUT_MS", "2000")]).contains("STATEMENT_TIMEOUT_MS=2000"));
        assert!(error(&[("RECONNECT_MIN_MS", "201")]).contains("RECONNECT_MAX_MS=200"));
    }

    #[test]
    fn the_url_may_set_the_connect_timeout_and_the_application_name() {
        let with =
            |query: &str| config(&[("DATABASE_URL", &format!("postgresql://ana@db/rinha{query}"))]).unwrap();
        let timeout = |query| with(query).database.connector.connect_timeout;
        assert_eq!(timeout(""), Some(Duration::from_secs(2)));
        assert_eq!(timeout("?connect_timeout=7"), Some(Duration::from_secs(7)));
        assert_eq!(timeout("?connect_timeout=0"), Some(Duration::from_secs(2)));
        let name = |config: &Config| {
            let parameters = config.database.session.parameters.iter();
            parameters
                .filter(|(name, _)| name == "application_name")
                .map(|(_, value)| value.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(name(&with("")), ["rinha"]);
        assert_eq!(name(&with("?application_name=audit")), ["audit"]);
        assert_eq!(name(&with("?fallback_application_name=audit")), ["audit"]);
        assert_eq!(name(&with("?application_name=")), [""; 0]);
        assert_eq!(timeout("?connect_timeout=-1"), Some(Duration::from_secs(2)));
        assert_eq!(
            with("?hostaddr=10.0.0.1").database.connector.hosts,
            [proto_pg::Host::Tcp { name: "db".into(), address: Some("10.0.0.1".into()), port: 5432 }]
        );
        assert_eq!(with("?keepalives=0&tcp_user_timeout=9").database.connector.tcp.user_timeout_ms, Some(9));
        let error = error(&[("DATABASE_URL", "postgresql://ana:secret@db/rinha?sslcrl=/x")]);
        assert_eq!(
            error,
            "DATABASE_URL: not supported: sslcrl: revoked certificates are not looked up; remove it"
        );
    }

    #[test]
    fn sessions_that_cannot_write_are_of_no_use_to_the_bank() {
        let with = |attrs: &str| {
            let url = format!("postgresql://ana@a,b/rinha?target_session_attrs={attrs}");
            config(&[("DATABASE_URL", &url)])
        };
        for attrs in TargetSessionAttrs::ALL {
            let config = with(attrs.name());
            match attrs {
                TargetSessionAttrs::Any | TargetSessionAttrs::ReadWrite | TargetSessionAttrs::Primary => {
                    assert_eq!(config.unwrap().database.connector.target_session_attrs, attrs);
                }
                TargetSessionAttrs::ReadOnly
                | TargetSessionAttrs::Standby
                | TargetSessionAttrs::PreferStandby => {
                    let error = config.unwrap_err().to_string();
                    assert!(error.contains(attrs.name()) && error.ends_with("primary or any"), "{error}");
                }
            }
        }
        let balanced = config(&[("DATABASE_URL", "postgresql://ana@a,b/rinha?load_balance_hosts=random")]);
        let balance = balanced.unwrap().database.connector.load_balance_hosts;
        assert_eq!(balance, proto_pg::LoadBalanceHosts::Random);
    }

    #[test]
    fn the_lanes_ask_postgresql_to_give_up_in_time() {
        let config = config(&[("LOCK_TIMEOUT_MS", "7")]).unwrap();
        for setting in [("statement_timeout", "2000"), ("lock_timeout", "7"), ("tcp_keepalives_idle", "5")] {
            assert!(config.session_settings.contains(&(setting.0, setting.1.to_owned())), "{setting:?}");
        }
        // A pooler refuses a start-up message with more than these.
        let names: Vec<_> = config.database.session.parameters.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["application_name"]);
    }

    #[test]
    fn the_reference_lists_exactly_the_session_settings() {
        let page = include_str!("../docs/reference/settings.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Session settings\n")).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
        let listed: Vec<_> = rows.map(|(name, rest)| (name, rest.split('`').next().unwrap())).collect();
        let settings = config(&[]).unwrap().session_settings;
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(listed, settings);
    }
}
