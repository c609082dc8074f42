//! Where attempts to connect go, with names that the test resolves itself.

use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Poll, Waker};
use socket2::{Domain, Socket, Type};

use super::*;

/// One connector and what is around it: the hosts `a` and `b` with two addresses each.
struct World {
    poll: Poll,
    resolver: Resolver,
    connector: Connector,
    hosts: Vec<Host>,
}

/// Four places, of which one listens. The others are held, so that nobody else listens there.
fn places(alive: usize) -> (TcpListener, Vec<Socket>, [SocketAddr; 4]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut held = Vec::new();
    let addresses = [0, 1, 2, 3].map(|place| {
        if place == alive {
            return listener.local_addr().unwrap();
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        held.push(socket);
        held.last().unwrap().local_addr().unwrap().as_socket().unwrap()
    });
    (listener, held, addresses)
}

impl World {
    fn new(addresses: [SocketAddr; 4]) -> World {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token::from(Source::Resolver)).unwrap();
        let resolver = Resolver::over(waker, 1, move |name, _port| match name {
            "a" => Ok(addresses[..2].to_vec()),
            "b" => Ok(addresses[2..].to_vec()),
            _ => Err(io::Error::other("nobody knows it")),
        });
        let host = |name: &str| Host::Tcp { name: name.to_owned(), address: None, port: 5432 };
        World {
            poll,
            resolver: resolver.unwrap(),
            connector: Connector::new(0),
            hosts: ["a", "unknown", "b"].map(host).to_vec(),
        }
    }

    /// One attempt, to its end.
    fn attempt(&mut self, attempt: Attempt) -> io::Result<()> {
        self.connector.connect(&self.hosts, attempt, &self.resolver, self.poll.registry())?;
        let options = TcpOptions { keepalive: None, user_timeout_ms: None };
        let mut events = Events::with_capacity(8);
        loop {
            while let Some(answer) = self.resolver.poll_answer() {
                self.connector.resolved(answer, &self.hosts, self.poll.registry())?;
            }
            if let Some(connected) = self.connector.poll_connected(self.poll.registry(), &options) {
                return connected.map(drop);
            }
            self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
            assert!(!events.is_empty(), "the attempt comes to no end");
            events
                .iter()
                .filter(|event| event.token() == Token::from(Source::Lane(0)))
                .for_each(|event| self.connector.record(event));
        }
    }
}

#[test]
fn every_address_of_a_host_is_tried_before_the_next_host() {
    for alive in 0..4 {
        let (_listener, _held, addresses) = places(alive);
        let mut world = World::new(addresses);
        let [a1, a2, b1, b2] = addresses;
        let expected = [
            format!("a, {a1}"),
            format!("a, {a2}"),
            "unknown:5432".to_owned(),
            format!("b, {b1}"),
            format!("b, {b2}"),
        ];
        // Twice round, and not only to where somebody listens.
        for round in 0..2 {
            for (position, expected) in expected.iter().enumerate() {
                let is_very_first = (round, position) == (0, 0);
                let result = world.attempt(if is_very_first { Attempt::First } else { Attempt::Next });
                assert_eq!(&world.connector.target, expected, "round {round}");
                let is_alive = *expected == format!("{}, {}", &expected[..1], addresses[alive]);
                match result {
                    Ok(()) => assert!(is_alive, "{expected}"),
                    Err(error) => {
                        assert!(!is_alive, "{error}");
                        assert!(error.to_string().starts_with(&format!("{expected}: ")), "{error}");
                    }
                }
            }
        }
    }
}

#[test]
fn after_a_session_it_begins_with_the_first_host_again() {
    let (_listener, _held, addresses) = places(2);
    let mut world = World::new(addresses);
    for _ in 0..2 {
        assert!(world.attempt(Attempt::First).is_err());
        assert_eq!(world.connector.target, format!("a, {}", addresses[0]));
        assert!(world.attempt(Attempt::Next).is_err());
        assert!(world.attempt(Attempt::Next).is_err(), "the host that nobody knows");
        world.attempt(Attempt::Next).unwrap();
        assert_eq!(world.connector.target, format!("b, {}", addresses[2]));
    }
}
