//! Look-ups and attempts of one lane, with names that the test resolves itself.

use std::net::TcpListener;
use std::time::Duration;

use mio::{Events, Poll, Waker};

use super::*;

struct World {
    poll: Poll,
    resolver: Resolver,
    connector: Connector,
}

impl World {
    fn new() -> World {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token::from(Source::Resolver)).unwrap();
        let resolver = Resolver::over(waker, 4, |name, port| match name {
            "a" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
            "empty" => Ok(vec![]),
            _ => Err(io::Error::other("nobody knows it")),
        });
        World { poll, resolver: resolver.unwrap(), connector: Connector::new(0) }
    }

    fn wait(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert!(!events.is_empty(), "nothing comes of it");
        events
            .iter()
            .filter(|event| event.token() == Token::from(Source::Lane(0)))
            .for_each(|event| self.connector.record(event));
    }

    fn answer(&mut self) -> Answer {
        loop {
            match self.resolver.poll_answer() {
                Some(answer) => return answer,
                None => self.wait(),
            }
        }
    }

    /// How one attempt ends.
    fn connect(&mut self, endpoint: &Endpoint) -> io::Result<RegisteredStream> {
        self.connector.connect(endpoint, TcpOptions::default(), self.poll.registry())?;
        loop {
            if let Some(connected) = self.connector.poll_connected(self.poll.registry()) {
                return connected;
            }
            self.wait();
        }
    }
}

#[test]
fn a_name_has_its_addresses_or_a_reason() {
    let mut world = World::new();
    for (name, expected) in [
        ("a", Ok(vec![SocketAddr::from(([10, 0, 0, 1], 7))])),
        ("empty", Err("the name has no address")),
        ("b", Err("nobody knows it")),
    ] {
        world.connector.resolve(name, 7, &world.resolver).unwrap();
        let answer = world.answer();
        let addresses = world.connector.resolved(answer).expect("it was asked for");
        assert_eq!(addresses.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{name}");
    }
}

#[test]
fn the_answer_to_an_earlier_look_up_is_dropped() {
    let mut world = World::new();
    world.connector.resolve("b", 7, &world.resolver).unwrap();
    world.connector.resolve("a", 7, &world.resolver).unwrap();
    let (first, second) = (world.answer(), world.answer());
    assert!(world.connector.resolved(first).is_none());
    assert!(world.connector.resolved(second).expect("it was asked for").is_ok());
    world.connector.resolve("a", 7, &world.resolver).unwrap();
    world.connector.abandon();
    let late = world.answer();
    assert!(world.connector.resolved(late).is_none());
}

#[test]
fn an_attempt_ends_with_a_socket_or_a_reason() {
    let mut world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = Endpoint::Tcp(listener.local_addr().unwrap());
    assert!(world.connect(&alive).is_ok());
    // Held, so that nobody else listens there.
    let held = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let dead = Endpoint::Tcp(held.local_addr().unwrap().as_socket().unwrap());
    assert_eq!(world.connect(&dead).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    let nowhere = Endpoint::Unix("/nonexistent/.s.PGSQL.5432".to_owned());
    assert_eq!(world.connect(&nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
}
