//! The HTTP API, asked to scan objects in S3.

use serde_json::{Value, json};

use crate::aws::{Aws, Setup};
use crate::http::bytes_of::*;
use crate::http::verdict;
use crate::receiver::{Does::*, Receiver};
use crate::samples::{EICAR_NAME, eicar};
use crate::service::Service;
use crate::wait;
use crate::web::{Answer, curl};

async fn order(url: &str, order: &Value) -> Answer {
    curl(&["--json", &order.to_string(), &format!("{url}/v1/scan/s3")]).await
}

#[tokio::test]
async fn an_object_is_looked_at_and_left_alone_unless_told_otherwise() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let (_service, url) = Service::start_http_beside(&aws, &[LIMITED]).await;
    let infected = format!(r#"INFECTED ["{EICAR_NAME}"] null"#);
    for (key, content, expected) in [
        ("clean one", clean(), "CLEAN [] null"),
        ("infected+1%", eicar(), infected.as_str()),
        ("encrypted", encrypted(), r#"UNSCANNABLE [] "ENCRYPTED""#),
        ("oversized", oversized(), r#"UNSCANNABLE [] "TOO_LARGE""#),
    ] {
        aws.upload(key, content).await;
        let before = aws.get(&aws.uploads, key).await.unwrap();
        let looked = order(&url, &json!({"bucket": aws.uploads, "key": key, "trace_id": "t", "custom": {"a": [1]}})).await;
        assert_eq!(looked.status, 200, "{looked:?}");
        let report = looked.json();
        assert_eq!(verdict(&report), expected, "{key}");
        assert_eq!((&report["target"]["kind"], &report["target"]["key"]), (&json!("s3"), &json!(key)));
        assert_eq!((&report["trace_id"], &report["custom"]), (&json!("t"), &json!({"a": [1]})));
        assert_eq!(report["actions"], json!([]));
        assert_eq!(aws.get(&aws.uploads, key).await.unwrap(), before, "{key} was only looked at");

        let acted = order(&url, &json!({"bucket": aws.uploads, "key": key, "act": true})).await.json();
        assert_eq!(verdict(&acted), expected, "{key}");
        assert_eq!(aws.get(&aws.uploads, key).await, None, "{key} was moved");
        let place = if expected.starts_with("CLEAN") { &aws.clean } else { &aws.quarantine };
        assert!(aws.get(place, key).await.is_some(), "{key}");
        assert_eq!(verdict(&aws.reports(1).await[0]), expected);
    }
    // An older version than the one that has taken its place.
    let put = |body: Vec<u8>| aws.s3.put_object().bucket(&aws.uploads).key("versions").body(body.into()).send();
    let first = put(eicar()).await.unwrap().version_id.unwrap();
    put(clean()).await.unwrap();
    let old = json!({"bucket": aws.uploads, "key": "versions", "version_id": first});
    assert_eq!(order(&url, &old).await.json()["status"], "INFECTED");
    let current = json!({"bucket": aws.uploads, "key": "versions"});
    assert_eq!(order(&url, &current).await.json()["status"], "CLEAN");

    let missing = json!({"bucket": aws.uploads, "key": "missing"});
    assert_eq!(order(&url, &missing).await.error(), (404, "not_found".to_owned()));
    let nowhere = json!({"bucket": "no-such-bucket", "key": "k"});
    assert_eq!(order(&url, &nowhere).await.error(), (502, "s3".to_owned()));
    let foreign = json!({"bucket": aws.clean, "key": "clean one"});
    assert_eq!(order(&url, &foreign).await.error(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn an_s3_that_cannot_be_reached_is_no_verdict() {
    let settings = [
        ("CLAMGATE_HTTP__S3_BUCKETS", "['mine']"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ];
    let (_service, url) = Service::start_http(&settings).await;
    assert_eq!(order(&url, &json!({"bucket": "mine", "key": "k"})).await.error(), (502, "s3".to_owned()));
}

#[tokio::test]
async fn nobody_has_to_wait() {
    let aws = Aws::new().await;
    let mut app = Receiver::new(&[
        Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        Says("HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"),
        Says("HTTP/1.1 204 Thanks\r\n\r\n"),
    ])
    .await;
    let hooks = format!("{}/hooks/", app.url);
    let callbacks = format!("['{hooks}']");
    let settings = [("CLAMGATE_HTTP__CALLBACKS", callbacks.as_str()), ("CLAMGATE_HTTP__REMEMBERED_SCANS", "1")];
    let (service, url) = Service::start_http_beside(&aws, &settings).await;
    aws.upload("bad", eicar()).await;
    let asked = json!({"bucket": aws.uploads, "key": "bad", "wait": false, "callback": format!("{hooks}1?a=b")});
    let accepted = order(&url, &asked).await;
    assert_eq!(accepted.status, 202);
    let id = accepted.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(accepted.headers["location"], format!("/v1/scans/{id}"));

    let done = wait::until("the verdict", || async {
        let state = curl(&[&format!("{url}/v1/scans/{id}")]).await.json();
        (state["state"] != "pending").then_some(state)
    })
    .await;
    assert_eq!((&done["state"], &done["id"], &done["report"]["status"]), (&json!("done"), &json!(id), &json!("INFECTED")));
    // Once for each answer that is no success; a redirect is none, and is not followed.
    for _ in 0..3 {
        let call = app.next().await;
        assert!(call.head.starts_with("POST /hooks/1?a=b HTTP/1.1\r\n"), "{}", call.head);
        assert_eq!((call.header("x-clamgate-scan"), &call.json()), (id.as_str(), &done["report"]));
    }
    app.recover();
    service.until_logged("callback failed; it is tried again", 2).await;

    // A failure is told too, and the oldest answer is forgotten.
    let asked = json!({"bucket": aws.uploads, "key": "missing", "wait": false, "callback": hooks});
    let second = order(&url, &asked).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(app.next().await.json()["error"]["code"], "not_found");
    let state = curl(&[&format!("{url}/v1/scans/{second}")]).await.json();
    assert_eq!((&state["state"], &state["error"]["code"]), (&json!("failed"), &json!("not_found")));
    assert_eq!(curl(&[&format!("{url}/v1/scans/{id}")]).await.status, 404);

    let outside = hooks.replace("/hooks/", "/hooks/../admin");
    let asked = json!({"bucket": aws.uploads, "key": "bad", "callback": outside});
    assert_eq!(order(&url, &asked).await.error(), (403, "forbidden".to_owned()));
}
