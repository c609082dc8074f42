//! What others get: `prod/docker-compose.yml` is up to date and needs nothing beside it, and one Rust makes everything.
//! And the scripts that check it: none passes in a workflow without having looked.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use stress::files;
use stress::throwaway::Throwaway;
use support::text_of;

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
    let sql = sql
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|end| end == "sql"));
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

/// `down` reads the file, too, and needs no image.
#[test]
fn the_compose_file_can_be_read_without_the_image() {
    let required: Vec<String> =
        generated(&[]).lines().filter(|line| line.contains(":?")).map(str::to_owned).collect();
    assert_eq!(required, [""; 0], "Compose reads no file in which a variable is missing");
}

/// What keeps up with new releases reads the compose file and not its overrides.
#[test]
fn the_overrides_use_the_images_of_the_compose_file() {
    let compose = text_of("docker-compose.yml");
    let overrides = ["durable", "short-period", "tuned"].map(|name| text_of(format!("compose/{name}.yml")));
    let images = overrides.iter().flat_map(|text| text.lines()).filter(|line| line.contains(" image: "));
    let others: Vec<&str> = images.filter(|line| !compose.contains(*line)).collect();
    assert_eq!(others, [""; 0], "docker-compose.yml has no such image");
}

/// The last line of the load test in its container says where its report is, and `K6_OUT` reaches k6.
#[test]
fn the_load_test_in_its_container_says_where_its_report_is() {
    let compose = text_of("docker-compose.yml");
    let (_, service) = compose.split_once("\n  k6:\n").expect("the service k6");
    assert!(service.contains("\n      K6_OUT: ${K6_OUT:-}\n"));
    let (_, script) = service.split_once("\n      - -c\n      - |\n").expect("its script");
    let (script, _) = script.split_once("\n    volumes:").expect("its volumes");
    let script = script.replace("$$", "$");

    let tools = Throwaway::new("test").expect("make a directory");
    let fake = "#!/bin/sh\necho \"$REPORT $K6_WEB_DASHBOARD_EXPORT $K6_OUT\"\n";
    files::write_executable(tools.path().join("k6"), fake).expect("write a k6");
    let output = Command::new("sh")
        .args(["-c", &script])
        .env("PATH", format!("{}:/usr/bin:/bin", tools.path().display()))
        .envs([("MODE", "open"), ("K6_OUT", "influxdb=http://influxdb:8086/k6")])
        .output()
        .expect("run its script");
    let told = String::from_utf8(output.stdout).expect("UTF-8");
    let [report, export, out] = told.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{told}") };
    assert_eq!(report, format!("stress{export}"), "/reports is stress/reports of the host");
    assert_eq!(out, "influxdb=http://influxdb:8086/k6");
    // What prints it is the script itself.
    assert!(text_of("stress/k6/challenge/summary.js").contains("`report: ${settings.reportPath}\\n`"));
}

/// Cargo loads the whole workspace before it builds the server: each member's manifest, and a root that the stub stands for.
#[test]
fn the_image_has_the_manifest_of_every_member() {
    let manifest = text_of("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    let members: Vec<String> = serde_json::from_str(members).expect("a list on one line");
    assert!(members.len() > 3, "{members:?}");
    let (dockerfile, sent) = (text_of("Dockerfile"), text_of(".dockerignore"));
    for member in members.iter().filter(|member| *member != ".") {
        assert!(dockerfile.contains(&format!("COPY {member}/Cargo.toml {member}/\n")), "{member}");
        assert!(dockerfile.contains(&format!(" {member}/src/lib.rs")), "{member}: the stub of its library");
        assert!(sent.contains(&format!("!{member}/Cargo.toml\n")), "{member}");
    }
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

// ---- the scripts

/// All of them, with their texts.
fn scripts() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut scripts = Vec::new();
    for directory in [".ci", "docs", "fuzz", "observability", "prod", "stress"] {
        for entry in fs::read_dir(root.join(directory)).expect("list a directory") {
            let path = entry.expect("an entry").path();
            let is_script = path.is_file() && path.extension().is_none();
            if is_script && let Ok(text) = fs::read_to_string(&path) {
                let below = path.strip_prefix(root).expect("a path below the root");
                scripts.push((below.display().to_string(), text));
            }
        }
    }
    assert!(scripts.len() > 10, "there are scripts");
    scripts
}

#[test]
fn a_check_that_is_left_out_fails_a_workflow() {
    let left_out = |is_workflow: bool| {
        let mut shell = Command::new("bash");
        shell.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("GITHUB_ACTIONS");
        if is_workflow {
            shell.env("GITHUB_ACTIONS", "true");
        }
        shell.args(["-euo", "pipefail", "-c", ". .ci/left-out; left_out 'the moon'; echo went on"]);
        let output = shell.output().expect("run bash");
        assert!(String::from_utf8_lossy(&output.stderr).contains("!! LEFT OUT: the moon"));
        (output.status.success(), output.stdout)
    };
    assert_eq!(left_out(false), (true, b"went on\n".to_vec()));
    assert_eq!(left_out(true), (false, Vec::new()));
}

#[test]
fn every_script_leaves_out_by_the_same_function() {
    let scripts = scripts();
    let scripts = scripts.iter().filter(|(name, _)| name != ".ci/left-out");
    let says = |line: &&str| {
        let line = line.trim_start().to_lowercase();
        !line.starts_with('#') && line.contains("left out")
    };
    for (name, text) in scripts.clone() {
        assert_eq!(text.lines().find(says), None, "{name} says so by itself: a workflow would pass");
    }
    let users = scripts.filter(|(_, text)| text.contains("left_out \"")).count();
    assert!(users > 3, "{users} scripts use it");
}

#[test]
fn each_job_has_the_nightly_toolchain_that_its_script_needs() {
    let workflow = text_of(".github/workflows/build-check.yml");
    let jobs = workflow.split("\n\n").filter(|job| job.contains("runs-on:"));
    let needs_nightly = |job: &str| {
        let runs = |name: &str| job.lines().any(|line| line.contains("run: ") && line.ends_with(name));
        scripts().iter().any(|(name, text)| runs(name) && text.contains("+nightly"))
    };
    let jobs: Vec<&str> = jobs.filter(|job| needs_nightly(job)).collect();
    assert_eq!(jobs.len(), 1, "Miri");
    for job in jobs {
        assert!(job.contains("toolchain install nightly"), "{job}");
    }
}
