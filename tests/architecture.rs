//! Rules that neither the compiler nor a lint holds, read from the sources and the pages about them.

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

/// The modules of a `mod` file that the feature `shell` brings in.
fn shell_modules(text: &str) -> Vec<String> {
    let modules = text.split("#[cfg(feature = \"shell\")]\npub mod ").skip(1);
    modules.filter_map(|rest| Some(rest.split_once(';')?.0.to_owned())).collect()
}

/// That it names no crate of the shell is held by the compiler: `cargo check --no-default-features`.
#[test]
fn the_core_asks_the_operating_system_for_nothing() {
    let files = sources(".");
    let mut shell = vec!["main.rs".to_owned(), "sim/main.rs".to_owned()];
    shell.extend(shell_modules(&files["lib.rs"]).iter().map(|module| format!("{module}.rs")));
    shell.extend(shell_modules(&files["net/mod.rs"]).iter().map(|module| format!("net/{module}.rs")));
    assert!(shell.len() > 8, "{shell:?}");
    let core = files.iter().filter(|(file, _)| !shell.contains(file));
    let names = ["std::net", "std::os", "Instant", "SystemTime", "std::thread", "std::env", "std::fs"];
    assert_eq!(naming(core, &names), Vec::<String>::new());
}

#[test]
fn the_postgresql_client_names_no_socket_and_no_clock() {
    let files = sources("proto-pg");
    let names = ["mio", "std::net", "std::os", "std::time", "std::thread", "std::env"];
    assert_eq!(naming(files.iter(), &names), Vec::<String>::new());
}

#[test]
fn a_file_uses_only_what_stands_below_it() {
    let files = sources(".");
    let order: Vec<&str> =
        files["lib.rs"].lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    for (file, text) in &files {
        let module = file.split(['/', '.']).next().unwrap_or_default();
        let Some(position) = order.iter().position(|other| *other == module) else { continue };
        for used in text.split("crate::").skip(1) {
            let end = used.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(used.len());
            let below = order.iter().position(|other| *other == &used[..end]);
            assert!(below >= Some(position), "{file} uses {}, which does not stand below it", &used[..end]);
        }
    }
}

/// The links to a line of ARCHITECTURE.md: what the line says, its file and its number.
fn links_to_lines(page: &str) -> impl Iterator<Item = (String, &str, usize)> {
    page.split("[`").skip(1).filter_map(|rest| {
        let (code, target) = rest.split_once("`](")?;
        let (path, line) = target.split_once(')')?.0.split_once("#L")?;
        Some((code.replace("\\|", "|"), path, line.parse().ok()?))
    })
}

#[test]
fn architecture_leads_to_every_module_and_to_the_lines_that_it_names() {
    let page = fs::read_to_string(Path::new(ROOT).join("ARCHITECTURE.md")).expect("read ARCHITECTURE.md");
    let files = sources(".");
    for module in files["lib.rs"].lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
    {
        let is_there =
            page.contains(&format!("(src/{module}.rs)")) || page.contains(&format!("(src/{module}/"));
        assert!(is_there, "ARCHITECTURE.md lacks {module}");
    }
    let links: Vec<_> = links_to_lines(&page).collect();
    assert!(links.len() >= 10, "{links:?}");
    let mut today = page.clone();
    for (code, path, number) in links {
        let text = fs::read_to_string(Path::new(ROOT).join(path)).expect("read a source");
        let found: Vec<usize> = text
            .lines()
            .zip(1..)
            .filter(|(line, _)| line.contains(&code))
            .map(|(_, number)| number)
            .collect();
        let [found] = found[..] else { panic!("`{code}` is in {path} on the lines {found:?}") };
        // With the code: another link may lead to the line that this one leads to now.
        let link = |line: usize| format!("[`{}`]({path}#L{line})", code.replace('|', "\\|"));
        today = today.replace(&link(number), &link(found));
    }
    if std::env::var("BOOK").is_ok_and(|value| value == "record") {
        fs::write(Path::new(ROOT).join("ARCHITECTURE.md"), today).expect("write ARCHITECTURE.md");
    } else {
        assert!(page == today, "the links to lines are old: BOOK=record cargo test --test architecture");
    }
}
