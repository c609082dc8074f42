//! What others get: `prod/docker-compose.yml` is up to date and needs nothing beside it, and one Rust makes everything.

use std::fs;
use std::path::Path;
use std::process::Command;

fn text_of(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn generated(arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("prod/generate");
    let output = Command::new(script).args(arguments).output().expect("run prod/generate");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn the_compose_file_is_what_the_sources_make_of_it() {
    let is_same = generated(&[]) == text_of("prod/docker-compose.yml");
    assert!(is_same, "out of date: prod/generate >prod/docker-compose.yml");
}

#[test]
fn the_compose_file_holds_each_file_whole() {
    let compose = text_of("prod/docker-compose.yml");
    let sql = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql")).expect("list sql");
    let sql = sql.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension().is_some());
    for path in sql.chain([Path::new("nginx/nginx.conf").to_owned()]) {
        let indented = |line: &str| if line.is_empty() { String::new() } else { format!("        {line}") };
        let lines: Vec<String> = text_of(&path).replace('$', "$$").lines().map(indented).collect();
        assert!(compose.contains(&lines.join("\n")), "{} is not in it", path.display());
    }
}

#[test]
fn the_compose_file_needs_no_sources() {
    let compose = generated(&["ghcr.io/someone/rinha:1"]);
    assert_eq!(compose.matches("image: \"ghcr.io/someone/rinha:1\"").count(), 1);
    for word in ["${", ": ./", "- ./", "build:", "pull_policy", "profiles:", "grafana"] {
        assert!(!compose.contains(word), "{word} is in it");
    }
    let services: Vec<&str> = compose
        .lines()
        .skip_while(|&line| line != "services:")
        .take_while(|&line| line != "volumes:")
        .filter_map(|line| {
            line.strip_prefix("  ")?.strip_suffix(':').filter(|name| !name.starts_with([' ', '#']))
        })
        .collect();
    assert_eq!(services, ["nginx", "webapi1", "webapi2", "db"]);
}

#[test]
fn the_image_and_the_checks_use_the_same_rust() {
    let dockerfile = text_of("Dockerfile");
    let (_, image) = dockerfile.split_once(" rust:").expect("an image of Rust");
    let (release, _) = image.split_once("-slim").expect("its slim variant");
    for workflow in ["build-check", "main-release"] {
        let text = text_of(format!(".github/workflows/{workflow}.yml"));
        assert!(text.contains(&format!(" {release}.0")), "{workflow} uses another than Rust {release}");
    }
    // The oldest is checked on its own; the image must not be older.
    let minor =
        |version: &str| version.split('.').nth(1).map(|minor| minor.parse::<u32>().expect("a number"));
    assert!(minor(release) >= minor(env!("CARGO_PKG_RUST_VERSION")), "{release}");
}
