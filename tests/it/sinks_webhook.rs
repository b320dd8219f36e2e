//! Webhooks, played by a server of the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use clamgate::config::WebhookConfig;
use clamgate::report::{About, Notice, Sink, WebhookSink};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::aws::Aws;
use crate::receiver::{Does::*, OK, Receiver};
use crate::samples::{EICAR_NAME, eicar, encrypted_zip};
use crate::service::Service;
use crate::sinks::{SECRET, attempt, python, report, sdk, upload};
use crate::web::curl;

/// The first block of this kind on a page.
fn block(page: &str, kind: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-out").join(page);
    let text = fs::read_to_string(page).unwrap();
    text.split(&format!("```{kind}\n")).nth(1).unwrap().split("```").next().unwrap().to_owned()
}

/// Whether the documented code takes requests with these timestamps, signatures and bodies for genuine.
fn are_genuine(cases: &[(&str, &str, &str)]) -> Vec<bool> {
    let check = "print(json.dumps([is_genuine(given['secret'].encode(), t, s, b.encode()) for t, s, b in given['cases']]))";
    let code = format!("{}\n{check}", block("webhook.md", "python"));
    serde_json::from_str(&python(&code, &json!({"secret": SECRET, "cases": cases}))).unwrap()
}

#[tokio::test]
async fn a_webhook_gets_its_report_when_it_has_recovered_and_can_tell_that_it_is_ours() {
    let aws = Aws::new().await;
    let mut app = Receiver::new(&[
        Closes,
        Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        Hangs,
        Says("HTTP/1.1 429 Slowly\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"),
    ])
    .await;
    let webhook = format!("{{ url = '{}/hooks?a=b', secret = '{SECRET}', headers = {{ x-key = 'open sesame' }} }}", app.url);
    let settings = [
        ("CLAMGATE_REPORT__SINKS__APP__WEBHOOK", webhook.as_str()),
        ("CLAMGATE_REPORT__SINKS__APP__TIMEOUT_SECS", "1"),
        ("CLAMGATE_LOG__LEVEL", "trace,aws=info"),
    ];
    let service = Service::start(&aws, &settings).await;
    upload(&aws, "bad", eicar(), &[]).await;

    let mut requests = Vec::new();
    for _ in 0..5 {
        requests.push(app.next().await);
    }
    assert_eq!(aws.depth(&aws.queue).await, (0, 1), "the message waits for the report");
    assert!(aws.get(&aws.uploads, "bad").await.is_some(), "the original is removed when everybody was told");
    app.recover();
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.uploads, "bad").await, None);
    requests.extend(app.rest());

    let report = aws.reports(1).await.remove(0);
    for request in &requests {
        assert!(request.head.starts_with("POST /hooks?a=b HTTP/1.1\r\n"), "{}", request.head);
        assert_eq!(request.json(), report);
        assert_eq!(request.body, requests[0].body);
        assert_eq!(request.header("x-clamgate-scan-id"), report["scan_id"]);
        assert_eq!((request.header("content-type"), request.header("x-key")), ("application/json", "open sesame"));
    }
    let delayed = service.logged("report not delivered yet");
    assert_eq!(delayed.len(), requests.len() - 1);
    let said: Vec<&str> = delayed[..4].iter().map(|line| line["error"].as_str().unwrap()).collect();
    assert!(said[0].contains("connection closed"), "{said:?}");
    let expected = ["HTTP status 500 Internal Server Error", "no answer in 1 seconds", "HTTP status 429 Too Many Requests"];
    assert_eq!(said[1..], expected);
    assert!(!service.log_text().contains(SECRET) && !service.log_text().contains("open sesame"));

    let last = &requests[requests.len() - 1];
    let (timestamp, signature) = (last.header("x-clamgate-timestamp"), last.header("x-clamgate-signature"));
    let past = (timestamp.parse::<u64>().unwrap() - 400).to_string();
    let genuine_then = python(
        "import hmac\nprint('v1=' + hmac.new(given[0].encode(), (given[1] + '.' + given[2]).encode(), 'sha256').hexdigest())",
        &json!([SECRET, past, last.body]),
    );
    let genuine = are_genuine(&[
        (timestamp, signature, &last.body),
        (timestamp, signature, &last.body.replace("INFECTED", "CLEAN")),
        (&past, signature, &last.body),
        (&past, &genuine_then, &last.body),
        (timestamp, &signature.replace("v1=", ""), &last.body),
        (timestamp, "v1=ä", &last.body),
        (timestamp, "", &last.body),
        ("", signature, &last.body),
        ("²", signature, &last.body),
    ]);
    assert_eq!(genuine, [true, false, false, false, false, false, false, false, false]);
}

/// A new key and a certificate for 127.0.0.1 that it has signed itself.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (key, certificate) = (dir.join(format!("{name}.key")), dir.join(format!("{name}.pem")));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    (key, certificate)
}

/// A server that takes TLS off for another; its URL.
async fn tls_before(url: &str, key: &Path, certificate: &Path) -> String {
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let behind = url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut plain = TcpStream::connect(&behind).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
        }
    });
    format!("https://{address}")
}

#[tokio::test]
async fn a_webhooks_certificate_must_be_trusted() {
    let mut app = Receiver::well().await;
    let dir = tempfile::tempdir().unwrap();
    let (key, own) = certificate(dir.path(), "own");
    let (_, other) = certificate(dir.path(), "other");
    let webhook = format!("{{ url = '{}' }}", tls_before(&app.url, &key, &own).await);
    for trusted in [&other, &own] {
        let aws = Aws::new().await;
        let settings = [
            ("CLAMGATE_REPORT__SINKS__APP__WEBHOOK", webhook.as_str()),
            ("CLAMGATE_REPORT__SINKS__APP__REQUIRED", "false"),
            ("CLAMGATE_REPORT__SINKS__APP__RETRY_FOR_SECS", "0"),
            ("SSL_CERT_FILE", trusted.to_str().unwrap()),
        ];
        let service = Service::start(&aws, &settings).await;
        upload(&aws, "good", b"hello".into(), &[]).await;
        aws.until_drained().await;
        let lost = service.logged("report not delivered");
        if trusted == &own {
            assert_eq!(lost, Vec::<Value>::new());
            assert_eq!(app.next().await.json()["target"]["key"], "good");
        } else {
            assert_eq!(lost.len(), 1);
            assert!(lost[0]["error"].as_str().unwrap().contains("certificate"), "{lost:?}");
        }
        assert!(app.rest().is_empty());
    }
}

async fn s3() -> aws_sdk_s3::Client {
    clamgate::aws::s3(&sdk("http://127.0.0.1:1").await)
}

#[tokio::test]
async fn every_answer_of_a_webhook_means_something() {
    for (does, expected) in [
        (Says(OK), Ok(())),
        (Says("HTTP/1.1 204 Fine\r\n\r\n"), Ok(())),
        (Babbles("HTTP/1.1 200 OK\r\n\r\n"), Ok(())),
        (Says("HTTP/1.1 500 No\r\n\r\n"), Err((true, None))),
        (Babbles("HTTP/1.1 500 No\r\n\r\n"), Err((true, None))),
        (Says("HTTP/1.1 503 Later\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n"), Err((true, Some(7)))),
        (Says("HTTP/1.1 503 Later\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n\r\n"), Err((true, None))),
        (Says("HTTP/1.1 408 Slow\r\n\r\n"), Err((true, None))),
        (Says("HTTP/1.1 425 Early\r\n\r\n"), Err((true, None))),
        (Says("HTTP/1.1 429 Many\r\n\r\n"), Err((true, None))),
        (Closes, Err((true, None))),
        (Says("nonsense\r\n\r\n"), Err((true, None))),
        (Says("HTTP/1.1 307 There\r\nLocation: /elsewhere\r\n\r\n"), Err((false, None))),
        (Says("HTTP/1.1 400 What\r\n\r\n"), Err((false, None))),
        (Says("HTTP/1.1 401 Who\r\n\r\n"), Err((false, None))),
        (Says("HTTP/1.1 410 Gone\r\n\r\n"), Err((false, None))),
    ] {
        let mut app = Receiver::new(Box::leak(Box::new([does]))).await;
        let text = format!("url = '{}/secret-path'\nsecret = '{SECRET}'", app.url);
        let config: WebhookConfig = toml::from_str(&text).unwrap();
        let sink = WebhookSink::new(s3().await, &config).unwrap();
        let found = attempt(&sink, &About::default()).await;
        let shown = format!("{found:?}");
        assert!(!shown.contains("secret-path"), "{shown}");
        assert_eq!(found.map_err(|(can_retry, after, _, _)| (can_retry, after)), expected, "{shown}");
        app.next().await;
        assert!(app.rest().is_empty(), "one call is one attempt, and a redirect is not followed: {shown}");
    }
}

#[tokio::test]
async fn upscans_callback() {
    let aws = Aws::new().await;
    let mut app = Receiver::well().await;
    let webhook = format!("{{ url = '{}/callback', form = 'upscan', upscan = {{ download_url_secs = 3600 }} }}", app.url);
    let _service = Service::start(&aws, &[("CLAMGATE_REPORT__SINKS__APP__WEBHOOK", webhook.as_str())]).await;
    let metadata = |reference| [("file-reference", reference), ("original-filename", "=?UTF-8?B?w6l0w6kucGRm?=")];
    upload(&aws, "in/good", b"hello".into(), &metadata("11370e18")).await;
    upload(&aws, "in/bad", eicar(), &metadata("22370e18")).await;
    upload(&aws, "in/locked.zip", encrypted_zip("a", b"x"), &[]).await;
    aws.until_drained().await;

    let mut calls: BTreeMap<String, (String, Value)> = BTreeMap::new();
    for request in app.rest() {
        let json = request.json();
        assert_eq!(request.header("x-clamgate-signature"), "", "there is no secret");
        calls.insert(json["reference"].as_str().unwrap().to_owned(), (request.body, json));
    }
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["11370e18", "22370e18", "in/locked.zip"]);
    assert_eq!(
        calls["22370e18"].0,
        format!(
            r#"{{"reference":"22370e18","fileStatus":"FAILED","failureDetails":{{"failureReason":"QUARANTINE","message":"{EICAR_NAME}"}}}}"#
        )
    );
    assert_eq!(
        calls["in/locked.zip"].0,
        r#"{"reference":"in/locked.zip","fileStatus":"FAILED","failureDetails":{"failureReason":"REJECTED","message":"the file could not be scanned completely: ENCRYPTED"}}"#
    );
    let (body, ready) = &calls["11370e18"];
    let (url, at) = (ready["downloadUrl"].as_str().unwrap(), ready["uploadDetails"]["uploadTimestamp"].as_str().unwrap());
    let checksum = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(
        *body,
        format!(
            r#"{{"reference":"11370e18","downloadUrl":"{url}","fileStatus":"READY","uploadDetails":{{"fileName":"été.pdf","fileMimeType":"text/plain","uploadTimestamp":"{at}","checksum":"{checksum}","size":5}}}}"#
        )
    );
    assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");
    assert!(url.contains(&format!("/{}/in/good?", aws.clean)) && url.contains("X-Amz-Expires=3600"), "{url}");
    let fetched = curl(&[url]).await;
    assert_eq!((fetched.status, fetched.body.as_slice()), (200, &b"hello"[..]));
}

#[tokio::test]
async fn upscans_callback_with_an_address_of_ones_own() {
    let mut app = Receiver::well().await;
    let text = format!(
        "url = '{}'\nform = 'upscan'\n[upscan]\nreference = 'Ref'\ndownload_url = 'https://files.example/{{bucket}}/{{key}}?r={{reference}}'",
        app.url
    );
    let sink = WebhookSink::new(s3().await, &toml::from_str(&text).unwrap()).unwrap();
    let about = About { metadata: BTreeMap::from([("ref".into(), "a/b&c".into())]), ..About::default() };
    sink.deliver(&Notice { report: &report("CLEAN"), about: &about }).await.unwrap();
    let call = app.next().await.json();
    assert_eq!(call["downloadUrl"], "https://files.example/b/in/a%20b.pdf?r=a%2Fb%26c");
    assert_eq!((&call["reference"], &call["uploadDetails"]["fileName"]), (&json!("a/b&c"), &json!("a b.pdf")));
}
