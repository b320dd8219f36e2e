//! The HTTP API, as its clients see it.

use std::process::Stdio;

use bytes_of::*;
use serde_json::{Value, json};

use crate::aws::Aws;
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::Service;
use crate::wait;
use crate::web::{Answer, curl, file, receive, send};

/// Samples, one for each kind of verdict.
pub mod bytes_of {
    use crate::samples;

    /// The largest file that the services of these tests take.
    pub const LIMIT: usize = 100_000;
    pub const LIMITED: (&str, &str) = ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "100000");

    pub fn clean() -> Vec<u8> {
        b"hello world".to_vec()
    }

    pub fn encrypted() -> Vec<u8> {
        samples::encrypted_zip("secret.txt", b"who knows")
    }

    pub fn oversized() -> Vec<u8> {
        samples::noise(LIMIT + 1)
    }
}

/// Status, signatures and reason, as every way in must give them.
pub fn verdict(report: &Value) -> String {
    format!("{} {} {}", report["status"].as_str().unwrap(), report["signatures"], report["reason"])
}

#[tokio::test]
async fn the_same_sample_has_the_same_verdict_on_every_route() {
    let (service, url) = Service::start_http(&[LIMITED]).await;
    let dir = service.dir.path();
    let infected = format!(r#"INFECTED ["{EICAR_NAME}"] null"#);
    // The sample; the report; what /v1/scan, /v2/scan and /api/v1/scan answer.
    let table = [
        ("clean", clean(), "CLEAN [] null", 200, (200, "OK", ""), (false, vec![])),
        ("infected", eicar(), &infected, 200, (406, "FOUND", EICAR_NAME), (true, vec![EICAR_NAME])),
        (
            "encrypted",
            encrypted(),
            r#"UNSCANNABLE [] "ENCRYPTED""#,
            200,
            (412, "PARSE ERROR", "ENCRYPTED"),
            (true, vec!["Clamgate.Unscannable.ENCRYPTED"]),
        ),
        (
            "oversized",
            oversized(),
            r#"UNSCANNABLE [] "TOO_LARGE""#,
            413,
            (413, "PARSE ERROR", "File size limit exceeded"),
            (true, vec![]),
        ),
        ("empty", Vec::new(), "CLEAN [] null", 200, (200, "OK", ""), (false, vec![])),
        ("largest", samples::noise(LIMIT), "CLEAN [] null", 200, (200, "OK", ""), (false, vec![])),
    ];
    for (name, content, expected, status, (v2_status, v2_word, v2_text), (is_infected, viruses)) in table {
        let path = file(dir, name, &content).display().to_string();
        let (raw, form, files) = (format!("@{path}"), format!("any=@{path}"), format!("FILES=@{path}"));
        let scan = format!("{url}/v1/scan");
        let sent_as_it_is = curl(&["--data-binary", &raw, "-H", &format!("X-Filename: {name}"), &scan]).await;
        let chunked =
            curl(&["--data-binary", &raw, "-H", &format!("X-Filename: {name}"), "-H", "Transfer-Encoding: chunked", &scan])
                .await;
        let in_a_form = curl(&["-F", &form, &scan]).await;
        for answer in [sent_as_it_is, chunked, in_a_form] {
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            let report = answer.json();
            assert_eq!(verdict(&report), expected, "{name}");
            assert_eq!(report["schema"], "clamgate.scan/1");
            assert_eq!(report["target"]["name"], name);
            assert_eq!(report["target"]["kind"], "stream");
        }

        let v2 = curl(&["-F", &form, &format!("{url}/v2/scan")]).await;
        assert_eq!(v2.status, v2_status, "{name}");
        let result = v2.json();
        assert_eq!((&result[0]["Status"], &result[0]["FileName"]), (&json!(v2_word), &json!(name)), "{result}");
        let text = result[0]["Description"].as_str().unwrap();
        assert!(text.starts_with(v2_text) && text.is_empty() == v2_text.is_empty(), "{text}");

        let v1 = curl(&["-F", &files, &format!("{url}/api/v1/scan")]).await;
        if status == 413 {
            assert_eq!((v1.status, v1.json()["success"].clone()), (413, json!(false)));
        } else {
            let expected =
                json!({"success": true, "data": {"result": [{"name": name, "is_infected": is_infected, "viruses": viruses}]}});
            assert_eq!((v1.status, v1.json()), (200, expected));
        }
    }
    // One line a scan. It has the name as a field, so that no name can forge a line.
    let lines = service.logged("stream scanned");
    assert!(lines.iter().any(|line| line["name"] == "infected" && line["status"] == "INFECTED" && line["via"] == "http"));
}

#[tokio::test]
async fn every_part_of_a_form_is_scanned() {
    let (service, url) = Service::start_http(&[LIMITED]).await;
    let dir = service.dir.path();
    let (eicar, clean) = (file(dir, "bad.txt", &eicar()), file(dir, "good.txt", &clean()));
    let large = file(dir, "large", &oversized());
    let (eicar, clean, large) = (eicar.display(), clean.display(), large.display());
    let scan = format!("{url}/v1/scan");
    // The second has no file name, as a server that takes forms apart otherwise could have it.
    let answer = curl(&["-H", "X-Trace-Id: t1", "-F", &format!("a=@{clean}"), "-F", &format!("b=<{eicar}"), &scan]).await;
    let results = answer.json()["results"].clone();
    assert_eq!(
        (verdict(&results[0]), verdict(&results[1])),
        ("CLEAN [] null".into(), format!("INFECTED [\"{EICAR_NAME}\"] null"))
    );
    assert_eq!((&results[0]["target"]["name"], &results[1]["target"]["name"]), (&json!("good.txt"), &json!("b")));
    assert_eq!((&results[0]["trace_id"], results.as_array().unwrap().len()), (&json!("t1"), 2));

    // Those before one that is too large are scanned, those behind it are not even read.
    let (a, b) = (format!("a=@{eicar}"), format!("b=@{large}"));
    let answer = curl(&["-F", &a, "-F", &b, "-F", &a, &scan]).await;
    assert_eq!(answer.status, 413);
    let words: Vec<String> = answer.json()["results"].as_array().unwrap().iter().map(verdict).collect();
    assert_eq!(words, [format!("INFECTED [\"{EICAR_NAME}\"] null"), r#"UNSCANNABLE [] "TOO_LARGE""#.to_owned()]);

    // What was not read has no verdict, nor anybody else's.
    let (good, bad) = (format!("FILES=@{clean}"), format!("FILES=@{eicar}"));
    let first = curl(&["-F", &b, "-F", &bad, &scan]).await;
    assert_eq!((first.status, verdict(&first.json())), (413, r#"UNSCANNABLE [] "TOO_LARGE""#.to_owned()));
    let v2 = curl(&["-F", &good, "-F", &b, "-F", &bad, &format!("{url}/v2/scan")]).await;
    let statuses: Vec<Value> = v2.json().as_array().unwrap().iter().map(|result| result["Status"].clone()).collect();
    assert_eq!((v2.status, statuses), (413, vec![json!("OK"), json!("PARSE ERROR")]));
    let v1 = curl(&["-F", &good, "-F", &b, "-F", &bad, &format!("{url}/api/v1/scan")]).await;
    assert_eq!((v1.status, v1.json()["success"].clone()), (413, json!(false)));

    // The wrappers' routes: a virus wins, and nothing is passed over in silence.
    let v2 = format!("{url}/v2/scan");
    assert_eq!(curl(&["-F", &format!("a=@{clean}"), "-F", &a, "-F", &b, &v2]).await.status, 406);
    assert_eq!(curl(&["-F", &format!("a=@{clean}"), "-F", &b, &v2]).await.status, 413);
    let nameless = curl(&["-F", &format!("a=@{clean}"), "-F", "b=text", &v2]).await;
    assert_eq!((nameless.status, nameless.json()[1]["Description"].clone()), (422, json!("MimePart FileName missing")));
    for arguments in [vec!["-F", "FILES=text"], vec!["-F", &a], vec!["-F", "other=text"]] {
        let refused = curl(&[arguments, vec![&format!("{url}/api/v1/scan")]].concat()).await;
        assert_eq!((refused.status, refused.json()["success"].clone()), (400, json!(false)));
    }

    let many: Vec<String> = (0..101).map(|n| format!("f{n}=x")).collect();
    let arguments = |parts: &[String]| parts.iter().flat_map(|part| ["-F".to_owned(), part.clone()]).collect::<Vec<_>>();
    let most = arguments(&many[1..]);
    let most: Vec<&str> = most.iter().map(String::as_str).chain([scan.as_str()]).collect();
    assert_eq!(curl(&most).await.json()["results"].as_array().unwrap().len(), 100);
    let all = arguments(&many);
    let all: Vec<&str> = all.iter().map(String::as_str).chain([scan.as_str()]).collect();
    assert_eq!(curl(&all).await.error(), (413, "too_large".to_owned()));
}

/// A request by hand: the head's lines, then the body.
fn request(lines: &[&str], body: &str) -> Vec<u8> {
    format!("{}\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", lines.join("\r\n"), body.len())
        .into_bytes()
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_with_one_json() {
    let (service, url) = Service::start_http(&[("CLAMGATE_HTTP__S3_BUCKETS", "['mine']")]).await;
    let json = "Content-Type: application/json";
    let form = "Content-Type: multipart/form-data; boundary=b";
    let part = "--b\r\nContent-Disposition: form-data; name=f; filename=f\r\n";
    let (scan, s3, v2) = ("POST /v1/scan HTTP/1.1", "POST /v1/scan/s3 HTTP/1.1", "POST /v2/scan HTTP/1.1");
    let long = "x".repeat(1025);
    let sound = format!("{part}\r\nx\r\n--b--\r\n");
    let chunked =
        |coding: &str| format!("{scan}\r\nHost: x\r\nConnection: close\r\n{coding}\r\n\r\n1\r\nx\r\n0\r\n\r\n").into_bytes();
    let table = [
        (request(&["GET /nowhere HTTP/1.1"], ""), 404, "not_found"),
        (request(&["GET /v1/scan HTTP/1.1"], ""), 405, "method_not_allowed"),
        (request(&["BREW /livez HTTP/1.1"], ""), 405, "method_not_allowed"),
        (request(&["GET /v1/scans/%ff HTTP/1.1"], ""), 404, "not_found"),
        (request(&["GET /v1/scans/00000000-0000-4000-8000-000000000000 HTTP/1.1"], ""), 404, "not_found"),
        (request(&["POST /v1/scan?name=a&name=b HTTP/1.1"], "x"), 400, "malformed"),
        (request(&[&format!("POST /v1/scan?name={long} HTTP/1.1")], "x"), 400, "malformed"),
        (request(&[scan, &format!("X-Filename: {long}")], "x"), 400, "malformed"),
        (request(&[scan, &format!("X-Trace-Id: {}", &long[..257])], "x"), 400, "malformed"),
        ([b"POST /v1/scan HTTP/1.1\r\nX-Filename: \xff\r\n".as_slice(), &request(&["X: y"], "x")].concat(), 400, "malformed"),
        (request(&[scan, "Content-Encoding: br"], "x"), 415, "unsupported"),
        (request(&[scan, "Content-Type: multipart/mixed; boundary=b"], "x"), 415, "unsupported"),
        (request(&[scan, "Content-Type: multipart/form-data"], "x"), 400, "malformed"),
        (request(&[scan, form], ""), 400, "malformed"),
        (request(&[scan, form], "--b--\r\n"), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nbroken off")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nno end\r\n--b\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}{}", "H: h\r\n".repeat(40))), 400, "malformed"),
        (request(&[scan, form], &format!("--b\r\nX: {}\r\n\r\nx\r\n--b--\r\n", "x".repeat(200_000))), 400, "malformed"),
        (
            request(&[scan, form], &format!("{part}Content-Transfer-Encoding: base64\r\n\r\neA==\r\n--b--\r\n")),
            415,
            "unsupported",
        ),
        (request(&[scan, form], &format!("{part}Content-Encoding: gzip\r\n\r\nx\r\n--b--\r\n")), 415, "unsupported"),
        // What other parsers would take apart otherwise.
        (request(&[scan, form], &format!("preamble\r\n{part}\r\nx\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nx\r\n--b--\r\n{part}\r\ny\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nx\r\n--b--\r\n{}", " ".repeat(200_000))), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nx\n{part}\r\ny\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}\r\nx\r\n--bc\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}A: 1\nB: 2\r\n\r\nx\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}A: 1\r\n 2\r\n\r\nx\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}A: 1\r\nA: 2\r\n\r\nx\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, form], &format!("{part}Content-Type: multipart/mixed\r\n\r\nx\r\n--b--\r\n")), 400, "malformed"),
        (request(&[scan, &format!("{form}; boundary=c")], &sound), 400, "malformed"),
        (request(&[scan, &format!("{form}; boundary*=c")], &sound), 400, "malformed"),
        (request(&[scan, &format!("{form}; Boundary*0=c")], &sound), 400, "malformed"),
        (request(&[scan, &format!("{form}; x=\"boundary=c\"")], &sound), 400, "malformed"),
        (request(&[scan, &format!("{form},c")], &sound), 400, "malformed"),
        (request(&[scan, "Content-Type: multipart/form-data; boundary=\"\\b\""], &sound), 400, "malformed"),
        // A body that is not announced, or packed once more.
        (format!("{scan}\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes(), 411, "length_required"),
        (format!("{v2}\r\nHost: x\r\nConnection: close\r\n{form}\r\n\r\n").into_bytes(), 411, "length_required"),
        (format!("{s3}\r\nHost: x\r\nConnection: close\r\n{json}\r\n\r\n").into_bytes(), 411, "length_required"),
        (chunked("Transfer-Encoding: gzip, chunked"), 400, "malformed"),
        (chunked("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked"), 400, "malformed"),
        (chunked("Transfer-Encoding: chunked, chunked"), 400, "malformed"),
        // Any web page can have a browser on this machine send these.
        (request(&[scan, "Origin: https://evil.example"], "x"), 403, "forbidden"),
        (request(&["POST /v1/reload HTTP/1.1", "Origin: null"], ""), 403, "forbidden"),
        (request(&[v2, form, "Origin: https://evil.example"], &sound), 403, "forbidden"),
        (request(&[v2, "Content-Type: text/plain"], "x"), 415, "unsupported"),
        (request(&[v2, form], "--b--\r\n"), 400, "malformed"),
        (request(&[s3], "{}"), 415, "unsupported"),
        (request(&[s3, json], ""), 400, "malformed"),
        (request(&[s3, json], "{"), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine"}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":""}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"k","unknown":1}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"a/../k"}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"./k"}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"a/.."}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"k","version_id":"null"}"#), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"k","trace_id":"a\u0000b"}"#), 400, "malformed"),
        (request(&[scan, "X-Trace-Id: a\tb"], "x"), 400, "malformed"),
        (request(&[s3, json], r#"{"bucket":"other","key":"k"}"#), 403, "forbidden"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"k","callback":"http://127.0.0.1/"}"#), 403, "forbidden"),
        (request(&[s3, json], r#"{"bucket":"mine","key":"k","callback":"nonsense"}"#), 400, "malformed"),
        (request(&[s3, json], &format!(r#"{{"bucket":"mine","key":"{}"}}"#, "k".repeat(70_000))), 413, "too_large"),
        (request(&[s3, json], &"[".repeat(60_000)), 400, "malformed"),
    ];
    for (bytes, status, code) in table {
        let shown = String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>();
        let received = receive(send(&url, &bytes).await).await;
        let answer = Answer::parse(&received).unwrap_or_else(|| panic!("no answer to {shown}"));
        assert_eq!(answer.error(), (status, code.to_owned()), "{shown}");
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.headers.contains_key("allow"), status == 405, "{shown}");
    }
    // What they were made from is scanned.
    let quoted = "Content-Type: multipart/form-data; charset=utf-8; boundary=\"b\"";
    for bytes in [request(&[scan, form], &sound), request(&[scan, quoted], &sound), chunked("Transfer-Encoding: Chunked")] {
        let received = receive(send(&url, &bytes).await).await;
        assert_eq!(Answer::parse(&received).unwrap().json()["status"], "CLEAN");
    }
    // What is no HTTP gets no JSON, but an end.
    for bytes in [&b"\x16\x03\x01\x00\xff\r\n\r\n"[..], b"GET / HTTP/9.9\r\n\r\n", &[b'x'; 100_000]] {
        let received = receive(send(&url, bytes).await).await;
        assert!((400..500).contains(&Answer::parse(&received).unwrap().status), "{received:?}");
    }
    assert!(service.logged("an HTTP request panicked").is_empty());
    assert_eq!(service.logged("stream scanned").len(), 3, "nothing else was scanned");
}

#[tokio::test]
async fn a_token_is_needed_for_all_but_health() {
    let token = "0123456789abcdef0123";
    let (service, url) = Service::start_http(&[("CLAMGATE_HTTP__TOKENS", "['0123456789abcdef0123']")]).await;
    let with = |token: &str| format!("Authorization: Bearer {token}");
    for path in ["/v1/scan", "/v1/scan/s3", "/v1/reload", "/v2/scan", "/api/v1/scan"] {
        for header in ["X: none".to_owned(), with("0123456789abcdef0124"), format!("Authorization: Basic {token}")] {
            let answer = curl(&["-X", "POST", "-d", "x", "-H", &header, &format!("{url}{path}")]).await;
            assert_eq!(answer.error(), (401, "unauthorized".to_owned()), "{path}");
            assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"clamgate\"");
        }
        let origin = "Origin: https://app.example";
        let answer = curl(&["-X", "POST", "-d", "x", "-H", &with(token), "-H", origin, &format!("{url}{path}")]).await;
        assert!(![401, 403].contains(&answer.status), "{path}: whoever has a token may be a web page");
    }
    for path in ["/v1/definitions", "/v1/scans/x"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).await.status, 401);
        assert_ne!(curl(&["-H", &with(token), &format!("{url}{path}")]).await.status, 401);
    }
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).await.status, 200, "{path}");
    }
    // The body of somebody without a token is not read.
    let large = file(service.dir.path(), "large", &samples::noise(5_000_000));
    let answer = curl(&["--data-binary", &format!("@{}", large.display()), &format!("{url}/v1/scan")]).await;
    assert_eq!(answer.status, 401);
    let log = service.log_text();
    assert!(!log.contains("0123456789abcdef"), "tokens are not logged");
}

#[tokio::test]
async fn tls_with_a_certificate_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let (key, certificate) = (dir.path().join("key.pem"), dir.path().join("cert.pem"));
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let (key, certificate) = (key.display().to_string(), certificate.display().to_string());
    let settings = [("CLAMGATE_HTTP__TLS_CERTIFICATE", certificate.as_str()), ("CLAMGATE_HTTP__TLS_KEY", key.as_str())];
    let (service, url) = Service::start_http(&settings).await;
    let https = url.replace("http:", "https:");
    let bad = file(service.dir.path(), "bad", &eicar());
    let arguments = ["--cacert", &certificate, "--data-binary", &format!("@{}", bad.display()), &format!("{https}/v1/scan")];
    assert_eq!(curl(&arguments).await.json()["status"], "INFECTED");
    // Plain HTTP on it gets no answer, and harms nobody.
    let plain = receive(send(&url, &request(&["GET /livez HTTP/1.1"], "")).await).await;
    assert!(Answer::parse(&plain).is_none(), "{plain:?}");
    assert_eq!(curl(&["--cacert", &certificate, &format!("{https}/readyz")]).await.status, 200);

    // A key that is none keeps the service from starting.
    let mut broken = Service::http(&[settings[0], ("CLAMGATE_HTTP__TLS_KEY", &certificate)]);
    broken.spawn();
    assert_eq!(broken.until_ended().await.code(), Some(2));
    assert!(broken.log().iter().any(|line| line["error"].as_str().is_some_and(|error| error.contains("http.tls_key"))));
}

/// Waits until its definitions may be fetched.
const HELD_FRESHCLAM: &str = "#!/bin/sh\nwhile [ ! -e \"$0.go\" ]; do sleep 0.05; done\n";

#[tokio::test]
async fn it_is_alive_but_not_ready_before_the_definitions_are_loaded() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let program = file(dir.path(), "freshclam", HELD_FRESHCLAM.as_bytes());
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let mut service = Service::http(&[
        ("CLAMGATE_DEFINITIONS__FRESHCLAM__ENABLED", "true"),
        ("CLAMGATE_DEFINITIONS__FRESHCLAM__PROGRAM", &program.display().to_string()),
        ("CLAMGATE_DEFINITIONS__REQUIRED", "['daily']"),
        ("CLAMGATE_DEFINITIONS__MAX_AGE_SECS", "0"),
    ]);
    service.spawn();
    let url = format!("http://{}", service.http_address().await);
    assert_eq!(curl(&[&format!("{url}/livez")]).await.status, 200);
    let ready = curl(&[&format!("{url}/readyz")]).await;
    assert_eq!((ready.status, ready.json()), (503, json!({"ready": false, "complaints": ["loading"]})));
    let scan = curl(&["-d", "x", &format!("{url}/v1/scan")]).await;
    assert_eq!(scan.error(), (503, "unavailable".to_owned()));
    assert!(scan.headers.contains_key("retry-after"));
    assert_eq!(curl(&[&format!("{url}/v1/definitions")]).await.status, 503);
    assert!(curl(&[&format!("{url}/metrics")]).await.text().contains("\nclamgate_ready 0\n"));

    let mirror = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/freshclam-mirror/test-6.cvd");
    std::fs::copy(mirror, service.database("daily.cvd")).unwrap();
    file(dir.path(), "freshclam.go", b"");
    service.until_ready().await;
    assert_eq!(curl(&[&format!("{url}/readyz")]).await.json(), json!({"ready": true, "complaints": []}));
    assert_eq!(curl(&["-d", "x", &format!("{url}/v1/scan")]).await.json()["status"], "CLEAN");
}

/// libclamav reads a pipe in the database directory, first to count what is in it, then to load it: the load waits for a writer.
#[tokio::test]
async fn it_says_how_far_the_load_is() {
    let mut service = Service::http(&[]);
    let pipe = service.database("held.ndb");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    service.spawn();
    let url = format!("http://{}", service.http_address().await);
    let complaint = || async { curl(&[&format!("{url}/readyz")]).await.json()["complaints"][0].as_str().unwrap().to_owned() };
    wait::until("the count to wait", || async { (complaint().await == "loading: looking at the files").then_some(()) }).await;
    let health = service.health().await.unwrap();
    assert_eq!((health.state.as_str(), health.loading.as_deref()), ("loading", Some("looking at the files")));
    assert!(curl(&[&format!("{url}/metrics")]).await.text().contains("\nclamgate_definitions_loading 1\n"));
    let loaded = || !service.logged("definitions loaded; the canary was found").is_empty();
    wait::until_fed(&pipe, "Held:0:*:68656c6420746573742066696c65\n", loaded).await;
    service.until_ready().await;
    let health = service.health().await.unwrap();
    assert_eq!((health.state.as_str(), health.loading), ("serving", None));
    assert!(curl(&[&format!("{url}/metrics")]).await.text().contains("\nclamgate_definitions_loading 0\n"));
    assert!(!service.until_logged("definitions loaded; the canary was found", 1).await[0]["took_ms"].is_null());
}

#[tokio::test]
async fn old_definitions_are_not_ready_but_are_used() {
    let mut service = Service::http(&[]);
    let mirror = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/freshclam-mirror/test-6.cvd");
    std::fs::copy(mirror, service.database("daily.cvd")).unwrap();
    service.spawn();
    service.until_ready().await;
    let url = format!("http://{}", service.http_address().await);
    let ready = curl(&[&format!("{url}/readyz")]).await;
    assert_eq!(ready.status, 503);
    let complaints = ready.json()["complaints"].clone();
    assert!(complaints[0].as_str().unwrap().contains("definitions.max_age_secs"), "{complaints}");
    assert_eq!(curl(&["-d", "x", &format!("{url}/v1/scan")]).await.json()["status"], "CLEAN");
    let definitions = curl(&[&format!("{url}/v1/definitions")]).await.json();
    assert_eq!(definitions["definitions"]["built_at"], "2021-06-23T01:34:05Z");
    assert!(definitions["age_secs"].as_u64().unwrap() > 100_000_000);
}

#[tokio::test]
async fn a_reload_changes_what_scans_are_done_with() {
    let (service, url) = Service::start_http(&[]).await;
    let before = curl(&[&format!("{url}/v1/definitions")]).await.json();
    assert_eq!(before["definitions"]["signatures"], 2);
    std::fs::write(service.database("more.hdb"), "aeddc1f5e1a3fe25a2ff06b6ae8b6ee5:11:More\n").unwrap();
    assert_eq!(curl(&["-X", "POST", &format!("{url}/v1/reload")]).await.status, 202);
    wait::until("the new definitions", || async {
        let now = curl(&[&format!("{url}/v1/definitions")]).await.json();
        (now["definitions"]["signatures"] == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let (_service, url) = Service::start_http(&[]).await;
    for path in ["/livez", "/nowhere/1", "/nowhere/2", "/v1/scans/1", "/v1/scans/2"] {
        curl(&[&format!("{url}{path}")]).await;
    }
    curl(&["-X", "BREW", &format!("{url}/livez")]).await;
    let answer = curl(&[&format!("{url}/metrics")]).await;
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"clamgate_http_requests_total{route="/livez",method="GET",status="200"} 1"#,
        r#"clamgate_http_requests_total{route="/livez",method="other",status="405"} 1"#,
        r#"clamgate_http_requests_total{route="none",method="GET",status="404"} 2"#,
        r#"clamgate_http_requests_total{route="/v1/scans/{id}",method="GET",status="404"} 2"#,
        "clamgate_ready 1",
        "clamgate_signatures 2",
    ] {
        assert!(answer.text().lines().any(|found| found == line), "{line} in\n{}", answer.text());
    }
}

/// Needs nothing from elsewhere, and leaves no route out.
#[tokio::test]
async fn the_document_and_its_page() {
    let (_service, url) = Service::start_http(&[]).await;
    let document = curl(&[&format!("{url}/openapi.json")]).await.json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(paths.len(), 12, "{paths:?}");
    let page = curl(&[&format!("{url}/docs")]).await;
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    for path in paths {
        assert!(
            page.text().contains(&format!("<code>POST {path}</code>"))
                || page.text().contains(&format!("<code>GET {path}</code>"))
        );
    }
    for outside in ["http://", "https://", "<script", "src="] {
        assert!(!page.text().replace("https://github.com", "").contains(outside), "{outside}");
    }
    assert!(page.text().contains("<code>MaxFileSize</code>") || page.text().contains("UNSCANNABLE"));
}

/// Generated requests, valid and not: nothing that the document does not tell of, and no failure of the server.
#[tokio::test]
async fn schemathesis_finds_nothing() {
    let aws = Aws::new().await;
    let (service, url) = Service::start_http_beside(&aws, &[("CLAMGATE_HTTP__ADMIN_TOKENS", "['0123456789abcdef']")]).await;
    let program = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/schemathesis");
    assert!(program.exists(), "{} is missing: run `make setup`", program.display());
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
                  response_schema_conformance,unsupported_method";
    let output = tokio::process::Command::new(program)
        .args(["run", &format!("{url}/openapi.json"), "--checks", checks, "--seed", "1", "--max-examples", "20"])
        .args(["--phases", "examples,coverage,fuzzing", "--generation-database", "none", "--no-color"])
        .args(["--header", "Authorization: Bearer 0123456789abcdef"])
        .current_dir(service.dir.path())
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("Tested: 12"), "{text}");
    assert!(service.logged("an HTTP request panicked").is_empty());
}
