//! The page on the HTTP API.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::aws::Aws;
use crate::samples::{self, eicar};
use crate::service::Service;

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
