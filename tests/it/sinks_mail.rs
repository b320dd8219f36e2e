//! Who is told by mail: GOV.UK Notify and SES, each played by a server of the test.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use clamgate::config::{NotifyConfig, SesConfig};
use clamgate::report::{About, NotifySink, SesSink, Sink};
use serde_json::json;

use crate::aws::Aws;
use crate::receiver::{Does::*, OK, Receiver};
use crate::samples::eicar;
use crate::service::Service;
use crate::sinks::{KEY, attempt, python, sdk, upload};

const SERVICE: &str = "26785a09-ab16-4eb0-8407-a37497a57506";

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
    let log = service.log_text();
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
