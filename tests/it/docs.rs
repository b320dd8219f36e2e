//! What is written down is so. The examples of the pages are run by `pages`.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clamgate::engine::{MEANINGS, Means, Source};

use crate::service::clamgate;

const BEGIN: &str = "<!-- the table: made from src/engine/meanings.rs by `UPDATE_DOCS=1 cargo test --test it docs::` -->\n";
const END: &str = "<!-- end of the table -->\n";

fn table() -> String {
    let mut table = String::from("\n| where | text | verdict | why |\n| --- | --- | --- | --- |\n");
    for row in MEANINGS {
        let place = match row.source {
            Source::Alert => "alert",
            Source::ParseError => "parse error",
            Source::Message => "message",
            Source::ReturnCode => "return code",
        };
        let verdict = match row.means {
            Means::Suspicious => "`SUSPICIOUS`".to_owned(),
            Means::Harmless => "none".to_owned(),
            Means::Trouble => "retried".to_owned(),
            Means::Incomplete(reason) => format!("`UNSCANNABLE {reason}`"),
        };
        let escaped = |text: &str| text.replace('|', "\\|");
        writeln!(table, "| {place} | `{}` | {verdict} | {} |", escaped(row.pattern), escaped(row.why)).unwrap();
    }
    table + "\n"
}

#[test]
fn the_page_on_verdicts_has_the_table_of_the_code() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/verdicts.md");
    let text = fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (found, after) = rest.split_once(END).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&page, [before, BEGIN, &table(), END, after].concat()).unwrap();
        return;
    }
    assert_eq!(found, table(), "run UPDATE_DOCS=1 cargo test --test it docs::");
}

/// Each block of TOML is a configuration of its own; blocks of shell are run by `pages` and `demos`.
#[test]
fn the_configurations_of_all_pages_are_taken() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let dir = tempfile::tempdir().unwrap();
    let folders = ["designs", "ways-in", "ways-out"].map(|folder| docs.join(folder));
    let pages = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap()).map(|page| page.unwrap().path());
    let mut count = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for block in text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            let file = dir.path().join("clamgate.toml");
            fs::write(&file, block).unwrap();
            let output = clamgate().args(["check-config", "--config"]).arg(&file).output().unwrap();
            assert!(output.status.success(), "{}: {}\n{block}", page.display(), String::from_utf8_lossy(&output.stderr));
            count += 1;
        }
    }
    assert!(count >= 25, "{count} blocks were found");
}

#[test]
fn the_sources_of_all_test_data_are_told() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    for (dir, mark) in [(data.clone(), "/`"), (data.join("encrypted"), "`")] {
        let readme = fs::read_to_string(dir.join("README.md")).unwrap();
        for entry in fs::read_dir(&dir).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(name == "README.md" || readme.contains(&format!("`{name}{mark}")), "{name} is not in {}", dir.display());
        }
    }
}
