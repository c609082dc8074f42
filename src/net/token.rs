//! SHELL: the source of an event. The only place that knows how a [`Token`]'s bits are laid out.

use mio::Token;

use crate::slots::Slot;

/// A source of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A listening socket, by position.
    Listener(u32),
    /// A connection to PostgreSQL, by position.
    Lane(u32),
    /// An HTTP client, by its slot: an event that arrives late finds a stale slot, not another client.
    Client(Slot),
    /// A signal was caught.
    Signal,
    /// A name was looked up.
    Resolver,
}

// The upper half holds a client's generation, which is never 0; with 0 there, the lower half is a kind and a position.
const GENERATION_SHIFT: u32 = 32;
const KIND_SHIFT: u32 = 24;
const KIND_LISTENER: usize = 0;
const KIND_LANE: usize = 1;
const KIND_SIGNAL: usize = 2;
const POSITION_MASK: usize = (1 << KIND_SHIFT) - 1;
const _: () = assert!(usize::BITS == 64, "a token holds a whole slot");

impl From<Source> for Token {
    fn from(source: Source) -> Token {
        let of_kind = |kind: usize, position: u32| (kind << KIND_SHIFT) | (position as usize & POSITION_MASK);
        Token(match source {
            Source::Listener(position) => of_kind(KIND_LISTENER, position),
            Source::Lane(position) => of_kind(KIND_LANE, position),
            Source::Signal => of_kind(KIND_SIGNAL, 0),
            Source::Resolver => of_kind(KIND_SIGNAL, 1),
            Source::Client(slot) => ((slot.generation as usize) << GENERATION_SHIFT) | slot.index as usize,
        })
    }
}

impl From<Token> for Source {
    #[expect(clippy::cast_possible_truncation, reason = "each half is 32 bits by construction")]
    fn from(Token(bits): Token) -> Source {
        let generation = (bits >> GENERATION_SHIFT) as u32;
        if generation != 0 {
            return Source::Client(Slot { index: bits as u32, generation });
        }
        let position = (bits & POSITION_MASK) as u32;
        match (bits >> KIND_SHIFT, position) {
            (KIND_LISTENER, _) => Source::Listener(position),
            (KIND_LANE, _) => Source::Lane(position),
            (_, 0) => Source::Signal,
            (_, _) => Source::Resolver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_the_way_there_and_back() {
        for source in [
            Source::Listener(0),
            Source::Listener(7),
            Source::Lane(0),
            Source::Lane(15),
            Source::Signal,
            Source::Resolver,
            Source::Client(Slot { index: 0, generation: 1 }),
            Source::Client(Slot { index: u32::MAX, generation: u32::MAX }),
        ] {
            assert_eq!(Source::from(Token::from(source)), source);
        }
    }
}
