//! Who is told over HTTP: webhooks, GOV.UK Notify and SES, each played by a server of the test.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_s3::primitives::ByteStream;
use clamgate::config::{NotifyConfig, SesConfig, WebhookConfig};
use clamgate::report::{About, Notice, NotifySink, ScanReport, SesSink, Sink, WebhookSink};
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
use crate::service::{Service, clamgate};
use crate::web::curl;

const SECRET: &str = "hunter2-hunter2-hunter2";
const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";
const KEY: &str = "3d844edf-8d35-48ac-975b-e847b4f122b0";

/// What Python prints: `input` is what the code finds as `given`.
pub fn python(code: &str, input: &Value) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let code = format!("import json, sys\ngiven = json.load(sys.stdin)\n{code}");
    let mut child = Command::new(program).args(["-c", &code]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{code}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

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

fn log_of(service: &Service) -> String {
    fs::read_to_string(service.dir.path().join("log")).unwrap()
}

/// Uploads with metadata.
async fn upload(aws: &Aws, key: &str, body: Vec<u8>, metadata: &[(&str, &str)]) {
    let mut request = aws.s3.put_object().bucket(&aws.uploads).key(key).content_type("text/plain");
    for (name, value) in metadata {
        request = request.metadata(*name, *value);
    }
    request.body(ByteStream::from(body)).send().await.unwrap();
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
    assert!(!log_of(&service).contains(SECRET) && !log_of(&service).contains("open sesame"));

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

/// A report for sinks that are asked directly.
fn report(status: &str) -> ScanReport {
    serde_json::from_value(json!({
        "schema": "clamgate.scan/1", "scan_id": "0123456789abcdef0123456789abcdef", "status": status, "signatures": ["Win.Test"],
        "reason": null, "detail": null, "target": {"kind": "s3", "bucket": "b", "key": "in/a b.pdf", "version_id": "v", "etag": "e", "size": 68},
        "sha256": "00", "definitions": {"version": 1, "built_at": null, "signatures": 8, "fingerprint": "f"},
        "engine": {"libclamav": "1.4.6", "clamgate": "0.1.0"}, "scanned_at": "2026-10-14T17:46:40.123Z",
        "timings_ms": {"queued": 1.0, "fetch": 1.0, "scan": 1.0, "act": 1.0, "total": 4.0}, "actions": [],
    }))
    .unwrap()
}

/// How one attempt ends: delivered, or whether to try again, when, and whether there is anybody to tell at all; and what is said.
async fn attempt(sink: &dyn Sink, about: &About) -> Result<(), (bool, Option<u64>, bool, String)> {
    let report = report("INFECTED");
    let told = tokio::time::timeout(Duration::from_secs(180), sink.deliver(&Notice { report: &report, about })).await;
    told.expect("the attempt has no end").map_err(|error| {
        let after = error.retry_after.map(|pause| pause.as_secs());
        (error.can_retry, after, error.is_pointless, error.message)
    })
}

async fn s3() -> aws_sdk_s3::Client {
    clamgate::aws::s3(&sdk("http://127.0.0.1:1").await)
}

async fn sdk(endpoint: &str) -> aws_config::SdkConfig {
    aws_config::defaults(aws_config::BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region("us-east-1")
        .credentials_provider(aws_sdk_s3::config::Credentials::new("test", "test", None, None, "test"))
        .load()
        .await
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

/// The configuration of the page, with another address of Notify.
pub fn notify(url: &str) -> String {
    format!(
        "{{ api_key = 'my-key-{SERVICE}-{KEY}', template_id = 'f33517ff', to = {{ metadata = 'Uploader-Email' }}, \
         to_domains = ['example.gov.uk'], base_url = '{url}', \
         personalisation = {{ filename = {{ metadata = 'original-filename' }}, status = {{ report = 'status' }} }} }}"
    )
}

#[tokio::test]
async fn a_mail_through_notify() {
    let aws = Aws::new().await;
    let mut server = Receiver::new(&[Says("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n"), Hangs]).await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__MAIL__NOTIFY", notify(&server.url)),
        ("CLAMGATE_REPORT__SINKS__MAIL__STATUSES", "['INFECTED']".to_owned()),
        ("CLAMGATE_REPORT__SINKS__MAIL__TIMEOUT_SECS", "1".to_owned()),
        // At that level, the SDK of AWS logs an object's metadata.
        ("CLAMGATE_LOG__LEVEL", "trace,aws=info".to_owned()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let service = Service::start(&aws, &settings).await;
    let metadata = [("uploader-email", "a@example.gov.uk"), ("original-filename", "=?UTF-8?Q?=C3=A9_[x](http://y).pdf?=")];
    upload(&aws, "clean", b"hello".into(), &metadata).await;
    upload(&aws, "in/bad", eicar(), &metadata).await;
    let first = server.next().await;
    let second = server.next().await;
    server.recover();
    // Nobody to tell: a required sink does not keep their messages.
    upload(&aws, "in/anonymous", eicar(), &[]).await;
    upload(&aws, "in/relay", eicar(), &[("uploader-email", "victim@evil.example")]).await;
    upload(&aws, "in/many", eicar(), &[("uploader-email", "a@example.gov.uk,victim@evil.example")]).await;
    aws.until_drained().await;

    let report = aws.reports(5).await.into_iter().find(|report| report["target"]["key"] == "in/bad").unwrap();
    let reference = format!("{}-INFECTED", report["scan_id"].as_str().unwrap());
    let rest = server.rest();
    assert!(!rest.is_empty(), "the mail was sent at last");
    for request in [first, second].iter().chain(&rest) {
        let token = request.header("authorization").strip_prefix("Bearer ").unwrap();
        // Every byte, in its order.
        let body = format!(
            r#"{{"email_address":"a@example.gov.uk","template_id":"f33517ff","personalisation":{{"filename":"é (x)(http: //y).pdf","status":"INFECTED"}},"reference":"{reference}"}}"#
        );
        let head = [
            "POST /v2/notifications/email HTTP/1.1".to_owned(),
            format!("authorization: Bearer {token}"),
            "content-type: application/json".to_owned(),
            format!("user-agent: clamgate/{}", env!("CARGO_PKG_VERSION")),
            format!("host: {}", server.url.trim_start_matches("http://")),
            format!("content-length: {}", body.len()),
        ];
        assert_eq!((request.head.as_str(), request.body.as_str()), (head.join("\r\n").as_str(), body.as_str()));
        let made = python(
            r#"
import base64, hashlib, hmac, time
def encode(data): return base64.urlsafe_b64encode(data).rstrip(b"=")
claims = given["token"].split(".")[1]
iat = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iat"]
assert abs(time.time() - iat) < 180, iat
parts = [{"typ": "JWT", "alg": "HS256"}, {"iat": iat, "iss": given["service"]}]
signed = b".".join(encode(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
print((signed + b"." + encode(hmac.new(given["key"].encode(), signed, hashlib.sha256).digest())).decode())"#,
            &json!({"token": token, "service": SERVICE, "key": KEY}),
        );
        assert_eq!(made, token);
    }
    let unwanted = service.logged("report not delivered: there is nobody to tell");
    assert_eq!(unwanted.len(), 3);
    assert!(unwanted.iter().all(|line| line["level"] == "WARN" && line["sink"] == "mail"), "{unwanted:?}");
    let log = log_of(&service);
    assert!(!log.contains(KEY) && !log.contains("victim@evil.example") && !log.contains("a@example.gov.uk"));
}

#[tokio::test]
async fn every_answer_of_notify_means_something() {
    macro_rules! refused {
        ($status:literal, $message:literal) => {
            concat!(
                "HTTP/1.1 ",
                $status,
                " X\r\nContent-Type: application/json\r\n\r\n",
                r#"{"status_code":400,"errors":[{"error":"ValidationError","message":""#,
                $message,
                r#""}]}"#
            )
        };
    }
    for (does, expected) in [
        (Says("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}"), Ok(())),
        (
            Says(refused!("400", "Missing personalisation: x")),
            Err((false, false, ": ValidationError: Missing personalisation: x")),
        ),
        (Says(refused!("400", "email_address Not a valid email address")), Err((false, true, "email_address Not a valid"))),
        (Says(refused!("400", "No mail to A@example.gov.uk today")), Err((false, false, "No mail to (an address) today"))),
        (Says(refused!("403", "Invalid token: signature")), Err((false, false, "Invalid token"))),
        (Says(refused!("429", "Exceeded rate limit")), Err((true, false, "Exceeded rate limit"))),
        (Says(refused!("500", "email_address service down")), Err((true, false, "service down"))),
        (Says("HTTP/1.1 400 X\r\n\r\n<html>"), Err((false, false, "HTTP status 400"))),
        (Babbles("HTTP/1.1 400 X\r\n\r\n"), Err((false, false, "HTTP status 400"))),
        (Closes, Err((true, false, ""))),
    ] {
        let server = Receiver::new(Box::leak(Box::new([does]))).await;
        let config: BTreeMap<String, NotifyConfig> = toml::from_str(&format!("notify = {}", notify(&server.url))).unwrap();
        let sink = NotifySink::new(&config["notify"]).unwrap();
        assert!(sink.needs().headers && !sink.needs().tags);
        let metadata = BTreeMap::from([("uploader-email".to_owned(), "a@example.gov.uk".to_owned())]);
        match (attempt(&sink, &About { metadata, ..About::default() }).await, expected) {
            (Err((can_retry, _, is_pointless, message)), Err((retries, pointless, text))) => {
                assert_eq!((can_retry, is_pointless), (retries, pointless), "{message}");
                assert!(message.contains(text) && message.len() < 400, "{message}");
                assert!(!message.contains(KEY) && !message.to_lowercase().contains("a@example"), "{message}");
            }
            (found, expected) => assert_eq!(found.is_ok(), expected.is_ok(), "{found:?}"),
        }
    }
}

const SES: &str = "{ from = 'Uploads <uploads@example.gov.uk>', to = { tag = 'uploader' }, to_domains = ['*.gov.uk'], \
                   reply_to = 'help@example.gov.uk', subject = 'Your file {name}', body = \"{name}: {status} {{été}}\\n\", \
                   values = { name = { report = 'name' }, status = { report = 'status' } }, configuration_set = 'set' }";

#[tokio::test]
async fn a_mail_through_ses() {
    let aws = Aws::new().await;
    let mut server = Receiver::new(&[Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Hangs]).await;
    let settings = [
        ("CLAMGATE_REPORT__SINKS__MAIL__SES", SES),
        ("CLAMGATE_REPORT__SINKS__MAIL__TIMEOUT_SECS", "1"),
        ("AWS_ENDPOINT_URL_SESV2", &server.url.clone()),
    ];
    let service = Service::start(&aws, &settings).await;
    let put = aws.s3.put_object().bucket(&aws.uploads).key("in/\u{202e}bad").tagging("uploader=a%40example.gov.uk");
    put.body(ByteStream::from(eicar())).send().await.unwrap();
    let mut requests = vec![server.next().await, server.next().await];
    server.recover();
    aws.until_drained().await;
    requests.extend(server.rest());
    assert_eq!(service.logged("report not delivered yet").len(), requests.len() - 1, "the SDK makes no attempts of its own");

    let report = aws.reports(1).await.remove(0);
    let reference = format!("{}-INFECTED", report["scan_id"].as_str().unwrap());
    for request in &requests {
        assert!(request.head.starts_with("POST /v2/email/outbound-emails HTTP/1.1\r\n"), "{}", request.head);
        let text = |text: &str| json!({"Data": text, "Charset": "UTF-8"});
        let expected = json!({
            "FromEmailAddress": "Uploads <uploads@example.gov.uk>",
            "Destination": {"ToAddresses": ["a@example.gov.uk"]},
            "ReplyToAddresses": ["help@example.gov.uk"],
            "Content": {"Simple": {
                "Subject": text("Your file bad"),
                "Body": {"Text": text("bad: INFECTED {été}\n")},
                "Headers": [{"Name": "X-Clamgate-Reference", "Value": reference}],
            }},
            "EmailTags": [{"Name": "clamgate-reference", "Value": reference}],
            "ConfigurationSetName": "set",
        });
        assert_eq!(request.json(), expected);
        // AWS's own Python signs the same request at the same time.
        let made = python(
            r#"
import re
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
sent = given["headers"]
signed = re.search("SignedHeaders=([^,]+)", sent["authorization"])[1].split(";")
assert {"host", "x-amz-date"} <= set(signed), signed
request = AWSRequest("POST", given["url"], {name: sent[name] for name in signed}, given["body"].encode())
request.context["timestamp"] = sent["x-amz-date"]
request.context["payload_signing_enabled"] = True
auth = SigV4Auth(Credentials("test", "test"), "ses", "us-east-1")
print(auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request))"#,
            &json!({
                "headers": request.headers(), "body": request.body, "url": format!("{}/v2/email/outbound-emails", server.url),
            }),
        );
        assert_eq!(request.header("authorization").split("Signature=").nth(1), Some(made.as_str()), "{}", request.head);
    }
}

#[tokio::test]
async fn every_answer_of_ses_means_something() {
    for (does, expected) in [
        (Says(OK), Ok(())),
        (
            Says(
                "HTTP/1.1 400 No\r\nx-amzn-ErrorType: MessageRejected\r\n\r\n{\"message\":\"Email address is not verified. The following \
                 identities failed the check in region EU-WEST-2: uploads@example.gov.uk, A@example.gov.uk\"}",
            ),
            Err((
                false,
                "MessageRejected: Email address is not verified. The following identities failed the check in region \
                         EU-WEST-2: uploads@example.gov.uk, (an address)",
            )),
        ),
        // No answer that SES is known to give: the SDK shows all of it.
        (Says("HTTP/1.1 418 No\r\n\r\n{\"to\":\"a@example.gov.uk\"}"), Err((false, "SendEmail: "))),
        (
            Says("HTTP/1.1 403 No\r\nx-amzn-ErrorType: AccessDeniedException\r\nContent-Length: 2\r\n\r\n{}"),
            Err((false, "SendEmail: AccessDeniedException")),
        ),
        (
            Says("HTTP/1.1 429 No\r\nx-amzn-ErrorType: TooManyRequestsException\r\nContent-Length: 2\r\n\r\n{}"),
            Err((true, "SendEmail: TooManyRequestsException")),
        ),
        (Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Err((true, "SendEmail: "))),
        (Closes, Err((true, "SendEmail: "))),
    ] {
        let mut server = Receiver::new(Box::leak(Box::new([does]))).await;
        let config: BTreeMap<String, SesConfig> = toml::from_str(&format!("ses = {SES}")).unwrap();
        let sink = SesSink::new(clamgate::aws::ses(&sdk(&server.url).await), &config["ses"]).unwrap();
        assert!(sink.needs().tags && !sink.needs().headers);
        let tags = BTreeMap::from([("uploader".to_owned(), "a@example.gov.uk".to_owned())]);
        let found = attempt(&sink, &About { tags, ..About::default() }).await;
        match (&found, expected) {
            (Err((can_retry, _, _, message)), Err((retries, text))) => {
                assert_eq!(*can_retry, retries, "{message}");
                assert!(message.contains(text) && message.chars().count() <= 300, "{message}");
                assert!(!message.to_lowercase().contains("a@example"), "{message}");
            }
            (found, expected) => assert_eq!(found.is_ok(), expected.is_ok(), "{found:?}"),
        }
        server.next().await;
        assert!(server.rest().is_empty(), "one call is one attempt: {found:?}");
    }
}

#[test]
fn check_config_shows_no_secret_and_takes_the_pages_examples() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = dir.path().join("clamgate.toml");
        fs::write(&file, text).unwrap();
        let output = clamgate().arg("check-config").arg("--config").arg(&file).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    for page in ["webhook.md", "email.md"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-out").join(page)).unwrap();
        let examples: Vec<&str> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
        assert_eq!(examples.len(), 2, "{page}");
        for example in examples {
            let (code, shown) = check(example);
            assert_eq!(code, Some(0), "{shown}");
            for secret in ["a long secret", KEY] {
                assert!(!shown.contains(secret), "{shown}");
            }
            assert_eq!(shown.contains("********"), example.contains("secret = ") || example.contains("api_key"), "{shown}");
        }
    }
    let header = format!("[report.sinks.a.webhook]\nurl = 'https://a.example/'\nheaders = {{ authorization = '{SECRET}' }}\n");
    let (code, shown) = check(&header);
    assert!(code == Some(0) && shown.contains("authorization") && !shown.contains(SECRET), "{shown}");

    for (text, problem) in [
        ("webhook = { url = 'http://a.example/' }", "webhook.url must begin with https://"),
        ("webhook = { url = 'https://a.example/', secret = 'short' }", "webhook.secret must have at least 16"),
        ("webhook = { url = 'https://a.example/', headers = { x-clamgate-signature = 'x' } }", "is set by this service"),
        ("webhook = { url = 'https://a.example/', headers = { Host = 'x' } }", "headers.host is set by this service"),
        ("webhook = { url = 'https://a.example/', upscan = {} }", "means nothing without form"),
        ("webhook = { url = 'https://a.example/', form = 'upscan', upscan = { download_url = 'https://{x}' } }", "{x}"),
        ("webhook = { url = 'https://a.example/', form = 'upscan', upscan = { download_url_secs = 604801 } }", "a week"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = '{x}', body = 'b' }", "nothing fills: {x}"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = \"a\\nb\", body = 'b' }", "one line"),
        ("ses = { from = 'a@b.example', to = { address = 'a@b.example' }, subject = 's', body = '{' }", "without a partner"),
        (
            "sqs = { queue_url = 'http://q/' }\nwebhook = { url = 'https://a.example/' }",
            "exactly one of: event_bridge, notify, postgres, s3, ses, sns, sqs, webhook",
        ),
    ] {
        let (code, shown) = check(&format!("[report.sinks.a]\n{text}\n"));
        assert!(code == Some(64) && shown.contains(problem) && shown.contains("report.sinks.a"), "{text}: {shown}");
        assert_eq!(shown.lines().count(), 2, "one mistake: {shown}");
    }
}
