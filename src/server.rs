//! SHELL: one instance: binds, waits for events, runs the turns, stops on a signal. Owns `Poll` and the signals.

use std::io::{self, ErrorKind};
use std::time::Duration;

use mio::{Events, Poll, Token, Waker};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;

use crate::bank::ListenerKind;
use crate::config::Config;
use crate::engine::Engine;
use crate::event_loop::EventLoop;
use crate::net::descriptors;
use crate::net::mio_network::MioNetwork;
use crate::net::network::Network as _;
use crate::net::resolver::Resolver;
use crate::net::socket::Listener;
use crate::net::token::Source;

/// One instance of the server, bound to its addresses.
pub struct Server {
    poll: Poll,
    events: Events,
    signals: Signals,
    event_loop: EventLoop<MioNetwork>,
    /// How many SIGTERM and SIGINT were caught.
    stops: u32,
}

impl Server {
    /// Binds every address and gets ready to run.
    ///
    /// # Errors
    /// An address cannot be bound; the message names it and its setting. Or the system refuses `epoll`, a thread or
    /// a signal handler, or has no descriptor left for a client.
    pub fn bind(mut config: Config) -> io::Result<Server> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        poll.registry().register(&mut signals, Token::from(Source::Signal), mio::Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), Token::from(Source::Resolver))?;
        let resolver = Resolver::start(waker, config.sessions())?;

        let mut listeners = Vec::new();
        let kinds = [
            ("LISTEN", ListenerKind::Bank, "listening", &config.listen),
            ("METRICS_LISTEN", ListenerKind::Metrics, "metrics", &config.metrics_listen),
        ];
        for (setting, kind, verb, addresses) in kinds {
            for address in addresses {
                let bound = Listener::bind(address, config.listen_backlog, config.socket_buffer_len_bytes);
                let bound = bound.map_err(|error| {
                    let remedy = remedy(error.kind());
                    io::Error::new(
                        error.kind(),
                        format!("{setting}: cannot listen on {address}: {error}{remedy}"),
                    )
                })?;
                for mut listener in bound {
                    let position = u32::try_from(listeners.len()).unwrap_or(u32::MAX);
                    listener.register(poll.registry(), Token::from(Source::Listener(position)))?;
                    log::info!("{verb} on {listener}");
                    listeners.push((listener, kind));
                }
            }
        }

        config.clients_max = descriptors::reserve(config.clients_max, config.sessions())?;
        let jitter_seed = u64::from(std::process::id());
        // Room for an event of every socket, the signals and the resolver: a poll must report all that are ready, or a
        // deadline could be acted on although its socket is ready.
        let sockets_max = config.clients_max as usize + config.sessions() + listeners.len();
        let events = Events::with_capacity(sockets_max + 2);
        let system = MioNetwork::new(poll.registry().try_clone()?, resolver, config.sessions());
        let engine = Engine::new(config, jitter_seed, system.now());
        Ok(Server { poll, events, signals, event_loop: EventLoop::new(engine, system, listeners), stops: 0 })
    }

    /// Serves until SIGTERM or SIGINT, then until every request in flight is answered, or `drain_timeout_ms` is over,
    /// or the signal comes again.
    ///
    /// # Errors
    /// `epoll` fails, which is not expected to happen.
    pub fn run(mut self) -> io::Result<()> {
        while self.stops == 0 {
            self.turn(u64::MAX)?;
        }
        let deadline_us = self.drain();
        while !self.event_loop.is_drained()
            && self.stops < 2
            && !self.event_loop.network.now().is_past(deadline_us)
        {
            self.turn(deadline_us)?;
        }
        if !self.event_loop.engine.is_drained() {
            log::warn!(
                "stopped with connections open: {}",
                self.event_loop.engine.metrics().connections_open
            );
        }
        self.event_loop.leave_database();
        log::info!("stopped");
        Ok(())
    }

    fn turn(&mut self, wake_at_us: u64) -> io::Result<()> {
        self.wait(wake_at_us)?;
        self.event_loop.run();
        Ok(())
    }

    /// Sleeps until something is ready or due. An event only records readiness; the work is done in later stages.
    #[inline(never)]
    fn wait(&mut self, wake_at_us: u64) -> io::Result<()> {
        // ANCHOR: poll
        // A poll is one `epoll_wait`. A deadline may be acted on only if it had passed before the last poll began; otherwise
        // a connection could be closed although its request is in the socket. So a deadline that passes during the wait
        // needs another poll. On EINTR, `epoll_wait` has polled nothing: repeat it.
        loop {
            let now = self.event_loop.network.begin_poll();
            let timeout = match self.event_loop.wake_at_us().min(wake_at_us) {
                u64::MAX => None,
                deadline_us => Some(Duration::from_micros(deadline_us.saturating_sub(now.monotonic_us))),
            };
            match self.poll.poll(&mut self.events, timeout) {
                Ok(()) if self.events.is_empty() && timeout != Some(Duration::ZERO) => {}
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // ANCHOR_END: poll
        for event in &self.events {
            match Source::from(event.token()) {
                Source::Client(slot) => {
                    if let Some(stream) = self.event_loop.client_event(slot) {
                        stream.record(event);
                    }
                }
                Source::Lane(position) => match self.event_loop.lane_event(position as usize) {
                    Some(stream) => stream.record(event),
                    None => self.event_loop.network.connect_event(position as usize, event),
                },
                Source::Listener(position) => self.event_loop.listener_event(position as usize),
                Source::Signal => {
                    self.stops += u32::try_from(self.signals.pending().count()).unwrap_or(u32::MAX);
                }
                // Every turn asks the resolver for answers.
                Source::Resolver => {}
            }
        }
        Ok(())
    }

    /// Stops accepting, and lets the engine finish. Returns the time by which it has to be done.
    fn drain(&mut self) -> u64 {
        log::info!("stopping: {} connections are open", self.event_loop.engine.metrics().connections_open);
        self.event_loop.close_listeners(Listener::unpublish, Listener::is_unpublished);
        let now = self.event_loop.network.now();
        self.event_loop.engine.drain(now);
        now.after_ms(self.event_loop.engine.config().drain_timeout_ms)
    }
}

/// The remedy for an address that cannot be bound.
fn remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::AddrInUse => {
            "; stop the process that listens there, set another port or path, or leave this one out if another of the list \
             has it: [::] takes IPv4, too"
        }
        ErrorKind::AddrNotAvailable => "; set an address of this machine, or 0.0.0.0 for all of them",
        ErrorKind::PermissionDenied => {
            "; set a port from 1024 on, or a path in a directory that this user may write to"
        }
        ErrorKind::NotFound => "; make its directory first",
        ErrorKind::AlreadyExists => "; remove it, or set another path",
        _ => "",
    }
}
