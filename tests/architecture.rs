//! The rules that hold the code together, read from the sources: the shell and the core, and who may use whom.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The sources of a crate, by path below its `src`, without their tests.
fn sources(crate_path: &str) -> BTreeMap<String, String> {
    let src = Path::new(ROOT).join(crate_path).join("src");
    let mut files = BTreeMap::new();
    let mut directories = vec![src.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("list a directory") {
            let path = entry.expect("read an entry").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.file_name().is_some_and(|name| name != "tests.rs") {
                files.insert(below(&src, &path), without_tests(&path));
            }
        }
    }
    assert!(!files.is_empty(), "{} has no sources", src.display());
    files
}

fn below(src: &Path, path: &Path) -> String {
    let relative: PathBuf = path.strip_prefix(src).expect("a path below src").to_owned();
    relative.to_str().expect("a path in UTF-8").to_owned()
}

fn without_tests(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("read a source");
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default().to_owned()
}

/// Code lines that contain one of these names, as `file: line`.
fn naming<'a>(files: impl Iterator<Item = (&'a String, &'a String)>, names: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for (file, text) in files {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        found.extend(
            code.filter(|line| names.iter().any(|name| line.contains(name)))
                .map(|line| format!("{file}: {line}")),
        );
    }
    found
}

fn half(text: &str) -> Option<&str> {
    text.strip_prefix("//! ")?.split([':', ',']).next()
}

#[test]
fn every_file_of_the_server_belongs_to_one_half() {
    for (file, text) in sources(".") {
        let stands_above = matches!(file.as_str(), "lib.rs" | "main.rs");
        assert!(
            stands_above || matches!(half(&text), Some("CORE" | "SHELL")),
            "{file} says neither CORE nor SHELL"
        );
    }
}

#[test]
fn the_core_names_no_socket_and_no_clock() {
    let files = sources(".");
    let core = files.iter().filter(|(_, text)| half(text) == Some("CORE"));
    let names = ["mio", "std::net", "std::os", "Instant", "SystemTime", "std::thread", "std::env"];
    assert_eq!(naming(core, &names), Vec::<String>::new());
}

#[test]
fn the_shell_knows_the_postgresql_client_as_a_byte_pipe() {
    let files = sources(".");
    let shell = files.iter().filter(|(_, text)| half(text) == Some("SHELL"));
    let uses: Vec<&str> = shell
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.strip_prefix("use proto_pg::")?.strip_suffix(';'))
        .flat_map(|names| names.trim_matches(['{', '}']).split(", "))
        .collect();
    assert!(uses.contains(&"Connection"), "{uses:?}");
    let others: Vec<&str> =
        uses.into_iter().filter(|name| !matches!(*name, "Connection" | "CloseReason" | "Host")).collect();
    assert_eq!(others, [""; 0], "nothing of the protocol's own");
    // And nothing of it by its path, beside the imports.
    let text: String = files.values().filter(|text| half(text) == Some("SHELL")).cloned().collect();
    assert_eq!(text.matches("proto_pg::").count(), text.matches("\nuse proto_pg::").count());
}

#[test]
fn the_postgresql_client_names_no_socket_and_no_clock() {
    let files = sources("proto-pg");
    let names = ["mio", "std::net", "std::os", "std::time", "std::thread", "std::env"];
    assert_eq!(naming(files.iter(), &names), Vec::<String>::new());
}

#[test]
fn no_code_of_ours_is_unsafe() {
    for crate_path in [".", "proto-pg", "stress"] {
        let files = sources(crate_path);
        assert_eq!(naming(files.iter(), &["unsafe"]), Vec::<String>::new(), "{crate_path}");
    }
}

#[test]
fn a_file_uses_only_files_below_it() {
    let files = sources(".");
    let order: Vec<&str> =
        files["lib.rs"].lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    for (file, text) in &files {
        let Some(module) = file.strip_suffix(".rs").filter(|module| order.contains(module)) else { continue };
        let position = order.iter().position(|other| other == &module);
        for used in text.split("crate::").skip(1) {
            let end = used.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(used.len());
            let used = &used[..end];
            let below = order.iter().position(|other| *other == used);
            assert!(below > position, "{file} uses {used}, which does not stand below it in lib.rs");
        }
    }
}

#[test]
fn every_file_of_the_server_is_in_the_reading_order_and_in_the_readme() {
    let files = sources(".");
    let readme = fs::read_to_string(Path::new(ROOT).join("README.md")).expect("read README.md");
    // What is in a directory belongs to the file of that name.
    let files_of_the_tour = files.keys().filter(|file| !file.contains('/'));
    for file in files_of_the_tour.filter(|file| !matches!(file.as_str(), "lib.rs" | "main.rs")) {
        let module = file.strip_suffix(".rs").expect("a Rust source");
        assert!(files["lib.rs"].contains(&format!("pub mod {module};")), "lib.rs lacks {module}");
        assert!(readme.contains(&format!("(src/{file})")), "README.md's tour lacks src/{file}");
    }
}

/// Every Rust file below these directories, as one text.
fn text_below(directories: &[&str]) -> String {
    let mut pending: Vec<PathBuf> = directories.iter().map(|path| Path::new(ROOT).join(path)).collect();
    let mut text = String::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(
                fs::read_dir(&path).expect("list a directory").map(|entry| entry.expect("read").path()),
            );
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text += &fs::read_to_string(&path).expect("read a source");
        }
    }
    text
}

/// Pages that say which test shows what they claim.
const PAGES_WITH_TESTS: [&str; 3] = ["faults", "http-conformance", "promises"];

#[test]
fn every_test_that_the_documentation_names_exists() {
    let code = text_below(&["src", "tests"]);
    for page in PAGES_WITH_TESTS {
        let text = fs::read_to_string(Path::new(ROOT).join(format!("docs/{page}.md"))).expect("read a page");
        // A word in code font with that many underscores is no setting and no header.
        let names = text.split('`').skip(1).step_by(2).filter(|word| {
            let is_name = |c: char| c == '_' || c == '…' || c.is_ascii_lowercase() || c.is_ascii_digit();
            word.matches('_').count() >= 2 && word.chars().all(is_name)
        });
        // Some are cut short where a table has no room.
        let is_there = |name: &str| match name.strip_suffix('…') {
            Some(beginning) => code.contains(&format!("fn {beginning}")),
            None => code.contains(&format!("fn {name}(")),
        };
        let missing: Vec<&str> = names.clone().filter(|name| !is_there(name)).collect();
        assert!(names.count() > 10, "docs/{page}.md names its tests");
        assert_eq!(missing, [""; 0], "docs/{page}.md names tests that are not there");
    }
}
