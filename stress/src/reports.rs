//! The runs that are kept: a directory with one line of JSON for each, what else it left, and a page over all of them.

use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::{Error, files};

mod summary;
pub use summary::{FailedCheck, Row, Summary, Threshold};

mod index;
mod table;

/// Keeps a run in `directory`, which is made if need be, and writes the index anew. A run may have left a page: its
/// extension and content. Gives the path of the page, or else that of the summary.
pub fn keep(directory: &Path, summary: &Summary, page: Option<(&str, &[u8])>) -> Result<PathBuf, Error> {
    files::make_directory(directory)?;
    let stem = summary.file_stem();
    let write = |extension: &str, content: &[u8]| {
        files::write(directory.join(format!("{stem}.{extension}")), content)
    };
    let json = write("json", summary.to_line()?.as_bytes())?;
    let page = page.map(|(extension, content)| write(extension, content)).transpose()?;
    write_index(directory)?;
    Ok(page.unwrap_or(json))
}

/// Writes `index.html` of `directory` from all the summaries in it. Gives its path.
pub fn write_index(directory: &Path) -> Result<PathBuf, Error> {
    let page = index::page(&kept_in(directory)?).map_err(|error| Error::Refused(error.to_string()))?;
    files::write(directory.join("index.html"), page)
}

#[derive(Debug)]
struct Kept {
    summary: Summary,
    /// The name of what else it left.
    page: Option<String>,
}

/// All runs, the oldest first.
fn kept_in(directory: &Path) -> Result<Vec<Kept>, Error> {
    let mut kept = Vec::new();
    for path in files::with_extension(directory, "json")? {
        let pages = ["html", "svg"].map(|extension| path.with_extension(extension));
        let page = pages.iter().find(|page| page.is_file()).and_then(|page| page.file_name());
        let page = page.map(|name| name.to_string_lossy().into_owned());
        kept.push(Kept { summary: Summary::read(&path)?, page });
    }
    kept.sort_by_key(|kept: &Kept| (kept.summary.began_at_unix_s, kept.summary.file_stem()));
    Ok(kept)
}

/// `2026-01-31 12:00`
fn moment(unix_s: u64) -> String {
    rfc_3339(unix_s)[.."2026-01-31T12:00".len()].replace('T', " ")
}

fn rfc_3339(unix_s: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s)).to_string()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::summary::tests::summary;
    use super::*;
    use crate::compile;
    use crate::throwaway::Throwaway;

    #[test]
    fn a_kept_run_is_in_the_index_with_its_page() {
        let directory = Throwaway::new("test").unwrap();
        let reports = directory.path().join("a/reports");
        let later = Summary { began_at_unix_s: 1_800_000_060, ..summary() };
        let json = keep(&reports, &later, None).unwrap();
        assert_eq!(json.file_name().unwrap(), "2027-01-15T08-01-00Z-k6-open.json");
        assert_eq!(fs::read_to_string(&json).unwrap().lines().count(), 1);
        let page = keep(&reports, &summary(), Some(("html", b"<p>"))).unwrap();
        assert_eq!(page.file_name().unwrap(), "2027-01-15T08-00-00Z-k6-open.html");

        let index = fs::read_to_string(reports.join("index.html")).unwrap();
        assert!(index.contains("href=\"2027-01-15T08-00-00Z-k6-open.html\""), "{index}");
        let kept = kept_in(&reports).unwrap();
        assert_eq!(kept.iter().map(|kept| kept.page.is_some()).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_file_that_is_no_summary_is_named() {
        let directory = Throwaway::new("test").unwrap();
        fs::write(directory.path().join("other.json"), "{}").unwrap();
        let refusal = write_index(directory.path()).unwrap_err().to_string();
        assert!(refusal.contains("other.json is no summary of a run"), "{refusal}");
        let missing = write_index(&directory.path().join("missing")).unwrap_err().to_string();
        assert!(missing.contains("cannot read the directory"), "{missing}");
    }

    #[test]
    fn the_committed_index_is_that_of_the_committed_runs() {
        let directory = compile::workspace().join("docs/reports");
        let index = fs::read_to_string(directory.join("index.html")).unwrap();
        assert!(
            index == index::page(&kept_in(&directory).unwrap()).unwrap(),
            "run `cargo stress report docs/reports` and commit it"
        );
    }
}
