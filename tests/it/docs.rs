//! The documentation says what the code does: what can be made from the code is compared with it, and examples are run.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use clamgate::engine::{MEANINGS, Means, Source};
use serde_json::Value;

use crate::aws::Aws;
use crate::samples::{self, eicar};
use crate::service::Service;

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
/// The code blocks of a page, with their languages.
fn blocks(page: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(page)).unwrap();
    let pieces: Vec<&str> = text.split("```").collect();
    assert!(pieces.len() % 2 == 1, "{page} has a block without an end");
    let blocks = pieces.into_iter().skip(1).step_by(2).map(|block| block.split_once('\n').unwrap());
    blocks.map(|(language, code)| (language.to_owned(), code.to_owned())).collect()
}

/// Whether `found` has all that `shown` has; it may have more.
fn has(found: &Value, shown: &Value) -> bool {
    match (found, shown) {
        (Value::Object(found), Value::Object(shown)) => {
            shown.iter().all(|(name, value)| found.get(name).is_some_and(|found| has(found, value)))
        }
        (Value::Array(found), Value::Array(shown)) => {
            found.len() == shown.len() && found.iter().zip(shown).all(|(found, shown)| has(found, shown))
        }
        _ => found == shown,
    }
}

#[tokio::test]
async fn the_examples_on_the_http_page_print_what_it_says() {
    let aws = Aws::new().await;
    aws.upload("eicar.txt", eicar()).await;
    let buckets = format!("['{}']", aws.uploads);
    let settings = [
        ("CLAMGATE_HTTP__ENABLED", "true"),
        ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
        ("CLAMGATE_HTTP__S3_BUCKETS", buckets.as_str()),
        ("CLAMGATE_QUEUE__URL", ""),
    ];
    let service = Service::start(&aws, &settings).await;
    let address = service.http_address().await;
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("invoice.txt", b"100 for all".to_vec()), ("eicar.txt", eicar()), ("encrypted.zip", samples::encrypted_zip("a", b"b"))]
    {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let here = |text: &str| text.replace("127.0.0.1:8080", &address).replace("\"uploads\"", &format!("\"{}\"", aws.uploads));
    let (mut printed, mut compared) = (String::new(), 0);
    for (language, code) in blocks("ways-in/http.md") {
        match language.as_str() {
            "sh" => {
                let command = ["-ec", &here(&code)].map(str::to_owned);
                let output = tokio::process::Command::new("sh").args(command).current_dir(dir.path()).output().await.unwrap();
                printed = String::from_utf8(output.stdout).unwrap();
                assert!(output.status.success() && !printed.contains("\"error\""), "{code}\n{printed}");
            }
            "json" => {
                let (found, shown): (Value, Value) =
                    (serde_json::from_str(&printed).unwrap(), serde_json::from_str(&here(&code)).unwrap());
                assert!(has(&found, &shown), "the page says\n{shown}\nbut it is\n{found}");
                compared += 1;
            }
            "toml" => {
                let file = dir.path().join("clamgate.toml");
                fs::write(&file, &code).unwrap();
                clamgate::config::load(Some(&file), std::iter::empty(), Vec::new()).unwrap();
            }
            other => panic!("a block in {other}"),
        }
    }
    assert!(compared > 5);
}
