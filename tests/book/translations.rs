//! Pages in Portuguese, section by section, against those in English.
//!
//! Below each heading of a translation a comment names the English section that it stands for, and has the hash of the text
//! that was translated: `<!-- of "Blocking, and why not a thread each": 1f2e3d4c -->`.

use std::fs;

use super::{commands, is_recording, own_words, page, text_of};

/// Translations, and what they translate: paths below docs/.
const TRANSLATIONS: [(&str, &str); 4] = [
    ("pt-BR/README.md", "../README.md"),
    ("pt-BR/primeira-hora.md", "learn/first-hour.md"),
    ("pt-BR/requisicao.md", "learn/request.md"),
    ("pt-BR/navegador.md", "learn/playground.md"),
];

/// One section: its heading without the number signs, and everything from it to the next heading.
struct Section<'a> {
    heading: &'a str,
    text: String,
}

fn sections(text: &str) -> Vec<Section<'_>> {
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.starts_with("```");
        if !is_code && line.starts_with('#') {
            let heading = line.trim_start_matches('#').trim();
            sections.push(Section { heading, text: String::new() });
        }
        let section = sections.last_mut().expect("a page begins with its title");
        section.text += line.trim_end();
        section.text.push('\n');
    }
    sections
}

/// FNV-1a, 32 bits: what changes by accident shows.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn mark(section: &Section<'_>) -> String {
    format!("<!-- of \"{}\": {:08x} -->", section.heading, hash(&section.text))
}

#[test]
fn every_section_of_a_translation_says_what_the_english_one_says_today() {
    let mut stale = Vec::new();
    for (translation, original) in TRANSLATIONS {
        let path = page(translation);
        let (translated, english) = (text_of(&path), own_words(&text_of(page(original))));
        let (ours, theirs) = (sections(&translated), sections(&english));
        assert_eq!(ours.len(), theirs.len(), "docs/{translation} has other sections than docs/{original}");
        if is_recording() {
            let is_mark = |line: &&str| !line.starts_with("<!-- of \"");
            let mut text = String::new();
            for (ours, theirs) in ours.iter().zip(&theirs) {
                let mut lines = ours.text.lines();
                let heading = lines.next().unwrap_or_default();
                text.extend([heading, "\n", &mark(theirs), "\n"]);
                text.extend(lines.filter(is_mark).flat_map(|line| [line, "\n"]));
            }
            fs::write(&path, text).expect("write the marks");
            continue;
        }
        let changed = ours.iter().zip(&theirs).filter(|(ours, theirs)| !ours.text.contains(&mark(theirs)));
        stale.extend(changed.map(|(ours, theirs)| {
            format!("docs/{translation}, \"{}\": docs/{original}, \"{}\"", ours.heading, theirs.heading)
        }));
        let [ours, theirs] = [&translated, &english].map(|text| commands(text).collect::<Vec<_>>());
        assert_eq!(ours, theirs, "the commands of docs/{translation}");
    }
    assert!(
        stale.is_empty(),
        "sections that have changed in English since they were translated; translate what has changed, and then \
         BOOK=record cargo test --test book translation:\n{}",
        stale.join("\n")
    );
}
