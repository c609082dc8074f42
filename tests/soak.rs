//! The soak in short: it keeps its promises on this bank, and sees a bank that does not.

use std::fs;
use std::path::Path;

use stress::Workplace;
use stress::throwaway::Throwaway;
use stress::trials::soak::{self, Fault, Report, SoakOptions};

fn endure(workspace: &Path, faults: u32) -> Report {
    let logs = Throwaway::new("test").expect("make a directory");
    let options: SoakOptions = stress::options(&format!(
        "--seconds {} --every 2 --rate 200 --clients 8 --limits none --server {}",
        2 * faults,
        env!("CARGO_BIN_EXE_rinha")
    ));
    soak::run(&options, &Workplace::silent(workspace, logs.path())).expect("keep its promises")
}

#[test]
fn each_fault_is_endured() {
    let report = endure(Path::new(env!("CARGO_MANIFEST_DIR")), 7);
    assert_eq!(report.broken, [""; 0]);
    let faults: Vec<Fault> = report.minutes.iter().map(|minute| minute.fault).collect();
    assert_eq!(faults, Fault::ALL);
    assert!(report.rows > 0);
    for minute in &report.minutes {
        assert!(minute.outcomes.count("served") > 0 && minute.served_again_ms.is_some(), "{minute:?}");
        let names: Vec<&str> = minute.parts.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["nginx", "webapi1", "webapi2", "postgresql"]);
        for (_, part) in &minute.parts {
            assert!(part.resident_bytes > part.anonymous_bytes && part.anonymous_bytes > 0, "{minute:?}");
            assert!(part.descriptors > 0, "{minute:?}");
        }
    }
    let broken_off = report.minutes[4].outcomes.count("broken off");
    assert!(broken_off > 0, "who was connected to the killed instance lost that: {report:?}");
}

/// A table that forgets one row in so many, of transactions that were answered with 200.
const FORGETFUL: &str = "
    CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF NEW.descricao LIKE '%3' THEN RETURN NULL; END IF; RETURN NEW; END $$;
    CREATE TRIGGER forget BEFORE INSERT ON transacoes FOR EACH ROW EXECUTE FUNCTION forget();";

#[test]
fn a_bank_that_forgets_is_found_out() {
    let workspace = Throwaway::new("test").expect("make a directory");
    for directory in ["sql", "nginx"] {
        fs::create_dir(workspace.path().join(directory)).expect("make a directory");
        let original = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        for entry in fs::read_dir(original).expect("list a directory") {
            let path = entry.expect("read an entry").path();
            if path.is_file() {
                let name = path.file_name().expect("a file has a name");
                fs::copy(&path, workspace.path().join(directory).join(name)).expect("copy a file");
            }
        }
    }
    fs::write(workspace.path().join("sql/99_forgetful.sql"), FORGETFUL).expect("write a file");
    let report = endure(workspace.path(), 2);
    let [broken] = &report.broken[..] else { panic!("{:?}", report.broken) };
    // By the missing row, or by the balance that its client was told after the next one.
    assert!(broken.starts_with("in minute 1 (PostgreSQL restarted): the ledger disagrees"), "{broken}");
}
