//! What a real server said, cut at every byte: the same events, and the same bytes in return.

#[allow(dead_code, reason = "whoever records uses the rest")]
mod sessions;

use proto_pg::Session;
use sessions::{Exchange, SCENES, Scene};
use std::path::Path;

/// Plays a recording. `cut` says in which pieces the server's bytes of a turn arrive.
fn play<'a>(
    scene: &Scene,
    recording: &'a [Exchange],
    cut: impl Fn(usize, &'a [u8]) -> Vec<&'a [u8]>,
) -> Vec<String> {
    let session = Session {
        user: "u".into(),
        password: None,
        database: "d".into(),
        parameters: vec![],
        ..Session::default()
    };
    let mut lane = scene.lane(&session);
    let mut log = vec![];
    // The start-up message, which a recording leaves out.
    sessions::take_pending(&mut lane);
    assert_eq!(recording.len(), scene.turns.len() + 1, "{}", scene.name);
    for (turn, exchange) in recording.iter().enumerate() {
        if turn > 0 {
            scene.turns[turn - 1](&mut lane);
        }
        let mut sent = sessions::take_pending(&mut lane);
        for mut piece in cut(turn, &exchange.server) {
            while !piece.is_empty() && !lane.is_closing() {
                let space = lane.recv_space();
                let taken = space.len().min(piece.len());
                space[..taken].copy_from_slice(&piece[..taken]);
                lane.recv_commit(taken);
                piece = &piece[taken..];
                sessions::drain(&mut lane, &mut log);
            }
            sent.extend(sessions::take_pending(&mut lane));
        }
        // A server that ends it all may be read before it was asked, since nothing here waits.
        let is_same = sent == exchange.client || lane.is_closing();
        assert!(is_same, "{} instead of {}", sent.escape_ascii(), exchange.client.escape_ascii());
    }
    scene.check(lane, log.clone());
    log
}

#[test]
fn every_recording_cut_at_every_byte_gives_the_same_events() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut cuts = 0;
    for (version, scene) in VERSIONS.flat_map(|version| SCENES.iter().map(move |scene| (version, scene))) {
        let name = format!("{}, PostgreSQL {version}", scene.name);
        let recording = sessions::read(
            &directory.join(version.to_string()).join(format!("{}.txt", scene.name.replace(' ', "_"))),
        );
        let whole = play(scene, &recording, |_, bytes| vec![bytes]);
        let single_bytes = play(scene, &recording, |_, bytes| bytes.chunks(1).collect());
        assert_eq!(single_bytes, whole, "{name}, byte by byte");
        for (cut_turn, exchange) in recording.iter().enumerate() {
            for at in 0..exchange.server.len() {
                let log = play(scene, &recording, |turn, bytes| {
                    let (head, tail) = bytes.split_at(if turn == cut_turn { at } else { 0 });
                    vec![head, tail]
                });
                assert_eq!(log, whole, "{name}, turn {cut_turn}, cut at {at}");
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts");
    assert!(cuts > 10_000, "{cuts} cuts");
}

/// The major versions that there are recordings of.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;
