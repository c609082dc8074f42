//! What a real server said, cut at every byte: the same events, and the same bytes in return.

#[allow(dead_code, reason = "whoever records uses the rest")]
mod sessions;

use proto_pg::Session;
use sessions::pipelines::PIPELINES;
use sessions::{Exchange, Scene};
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
    let mut connection = scene.connection(&session);
    let mut log = vec![];
    // The start-up message, which a recording leaves out.
    sessions::take_pending(&mut connection);
    assert_eq!(recording.len(), scene.turns.len() + 1, "{}", scene.name);
    for (turn, exchange) in recording.iter().enumerate() {
        if turn > 0 {
            scene.turns[turn - 1](&mut connection);
        }
        let mut sent = sessions::take_pending(&mut connection);
        for mut piece in cut(turn, &exchange.server) {
            while !piece.is_empty() && !connection.is_closing() {
                let space = connection.recv_space();
                let taken = space.len().min(piece.len());
                space[..taken].copy_from_slice(&piece[..taken]);
                connection.recv_commit(taken);
                piece = &piece[taken..];
                sessions::drain(&mut connection, &mut log);
            }
            sent.extend(sessions::take_pending(&mut connection));
        }
        // A server that ends it all may be read before it was asked, since nothing here waits.
        let is_same = sent == exchange.client || connection.is_closing();
        assert!(is_same, "{} instead of {}", sent.escape_ascii(), exchange.client.escape_ascii());
    }
    scene.check(connection, log.clone());
    log
}

/// What a version of PostgreSQL said.
fn recording(version: u32, scene: &Scene) -> Vec<Exchange> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded").join(version.to_string());
    sessions::read(&directory.join(format!("{}.txt", scene.name.replace(' ', "_"))))
}

#[test]
fn every_recording_cut_at_every_byte_gives_the_same_events() {
    let mut cuts = 0;
    for (version, scene) in VERSIONS.flat_map(|version| sessions::scenes().map(move |scene| (version, scene)))
    {
        let name = format!("{}, PostgreSQL {version}", scene.name);
        let recording = recording(version, scene);
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

/// The names of messages, the repeated ones with their number.
fn names(bytes: &[u8], name: fn(u8) -> &'static str) -> String {
    let tags = sessions::messages(bytes);
    let runs = tags.chunk_by(|a, b| a == b).map(|run| match run.len() {
        1 => name(run[0]).to_owned(),
        len => format!("{len} {}", name(run[0])),
    });
    runs.collect::<Vec<_>>().join(", ")
}

/// Format: PostgreSQL documentation, "Frontend/Backend Protocol", section Message Formats.
fn client_message(tag: u8) -> &'static str {
    match tag {
        b'B' => "Bind",
        b'C' => "Close",
        b'D' => "Describe",
        b'E' => "Execute",
        b'H' => "Flush",
        b'P' => "Parse",
        b'Q' => "Query",
        b'S' => "Sync",
        _ => "?",
    }
}

fn server_message(tag: u8) -> &'static str {
    match tag {
        b'1' => "ParseComplete",
        b'2' => "BindComplete",
        b'3' => "CloseComplete",
        b'C' => "CommandComplete",
        b'D' => "DataRow",
        b'E' => "ErrorResponse",
        b'N' => "NoticeResponse",
        b'T' => "RowDescription",
        b'Z' => "ReadyForQuery",
        b't' => "ParameterDescription",
        _ => "?",
    }
}

/// Which messages are behind the events of a pipeline.
#[test]
fn a_pipeline_has_the_messages_that_libpq_has() {
    for pipeline in &PIPELINES {
        for version in VERSIONS {
            let turns: Vec<_> = recording(version, &pipeline.scene)[1..]
                .iter()
                .map(|turn| (names(&turn.client, client_message), names(&turn.server, server_message)))
                .collect();
            let expected: Vec<_> = pipeline
                .messages
                .iter()
                .map(|(ours, theirs)| (ours.to_string(), theirs.to_string()))
                .collect();
            assert_eq!(turns, expected, "{}, PostgreSQL {version}", pipeline.scene.name);
        }
    }
}

/// The major versions that there are recordings of.
const VERSIONS: std::ops::RangeInclusive<u32> = 14..=18;
