//! A proxy before the local AWS, which can do something, or refuse, at any call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::http::response::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::aws;

/// Operations of SQS, SNS and EventBridge.
const MESSAGING: [&str; 7] = [
    "SendMessageBatch",
    "Publish",
    "PutEvents",
    "ReceiveMessage",
    "DeleteMessageBatch",
    "ChangeMessageVisibility",
    "ChangeMessageVisibilityBatch",
];

/// One call that the service makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// AWS's name of the operation, for those on objects and for [`MESSAGING`].
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
    /// `If-None-Match: *`
    pub only_if_free: bool,
    /// Which bytes it asks for.
    pub range: Option<String>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// S3 gets it.
    Forward,
    /// `AccessDenied`
    Deny,
    /// `InternalError`, after which the SDK tries again by itself.
    Fail,
    /// S3 gets it, but its answer is lost.
    Lose,
    /// `PreconditionFailed`
    Refuse,
    /// A code that nobody knows, which the SDK leaves to its caller.
    Stumble,
    /// S3 gets it without this header.
    Without(&'static str),
    /// S3 gets it, and its answer says something else in this header.
    Saying(&'static str, &'static str),
    /// S3 gets it, and its answer breaks off after half of the body.
    Half,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

type Hook = dyn Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync;

/// A proxy that runs until it is dropped.
pub struct Proxy {
    pub url: String,
    calls: Arc<Mutex<Vec<Call>>>,
    server: JoinHandle<()>,
}

impl Proxy {
    /// A proxy that asks `hook` what becomes of each call; the hook can also do something before.
    pub async fn start(hook: impl Fn(Call) -> BoxFuture<'static, Answer> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        // A connection for each call: one that is kept could be closed just when the next call is sent, and that call be lost.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        let relay = Arc::new(Relay { client, hook: Box::new(hook), calls: Arc::clone(&calls) });
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let relay = Arc::clone(&relay);
                let service = service_fn(move |request| {
                    let relay = Arc::clone(&relay);
                    async move { Ok::<_, std::convert::Infallible>(relay.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, calls, server }
    }

    /// A proxy before which an operation waits, for keys that begin like this, until the gate has a permit for it.
    pub async fn gated(operation: &'static str, key_begin: &'static str) -> (Self, Arc<Semaphore>) {
        let gate = Arc::new(Semaphore::new(0));
        let waits_at = Arc::clone(&gate);
        let proxy = Self::start(move |call| {
            let gate = Arc::clone(&waits_at);
            async move {
                if call.operation == operation && call.key.starts_with(key_begin) {
                    let _open = gate.acquire().await.unwrap();
                }
                Answer::Forward
            }
            .boxed()
        })
        .await;
        (proxy, gate)
    }

    /// The calls so far of an operation on keys that end like this.
    pub fn calls(&self, operation: &str, key_end: &str) -> Vec<Call> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|call| call.operation == operation && call.key.ends_with(key_end)).cloned().collect()
    }

    /// How often an operation was called on keys that end like this.
    pub fn count(&self, operation: &str, key_end: &str) -> usize {
        self.calls(operation, key_end).len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Relay {
    client: Client<HttpConnector, Full<Bytes>>,
    hook: Box<Hook>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Relay {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        // A service that was killed does not come to the end.
        let Ok(body) = body.collect().await else { return Response::new(whole(Bytes::new())) };
        let body = body.to_bytes();
        let call = call(&parts.method, &parts.uri, &parts.headers, &body);
        self.calls.lock().unwrap().push(call.clone());
        let (method, range) = (parts.method.clone(), call.range.clone());
        let error = |status, code| {
            let text = format!("<Error><Code>{code}</Code><Message>by the test</Message></Error>");
            // The answer to a HEAD has no body.
            let text = if method == Method::HEAD { String::new() } else { text };
            Response::builder().status(status).body(whole(text.into())).unwrap()
        };
        let answer = (self.hook)(call).await;
        match answer {
            Answer::Deny => return error(403, "AccessDenied"),
            Answer::Fail => return error(500, "InternalError"),
            Answer::Refuse => return error(412, "PreconditionFailed"),
            Answer::Stumble => return error(400, "ByTheTest"),
            Answer::Without(header) => assert!(parts.headers.remove(header).is_some(), "the call has no {header}"),
            Answer::Forward | Answer::Lose | Answer::Saying(..) | Answer::Half => {}
        }
        let path = parts.uri.path_and_query().unwrap().as_str();
        let mut forwarded = Request::new(Full::from(body));
        *forwarded.method_mut() = parts.method;
        *forwarded.uri_mut() = format!("{}{path}", aws::environment()[0].1).parse().unwrap();
        *forwarded.headers_mut() = parts.headers;
        let (mut answered, body) = self.client.request(forwarded).await.unwrap().into_parts();
        let mut body = body.collect().await.unwrap().to_bytes();
        if let Some(range) = range.filter(|_| answered.status == 200 && answer != Answer::Without("range")) {
            body = cut(&mut answered, &body, &range);
        }
        match answer {
            Answer::Lose => return error(500, "InternalError"),
            Answer::Saying(header, text) => {
                let said = answered.headers.insert(header, HeaderValue::from_static(text));
                assert!(said.is_some_and(|said| said != text), "the answer should say something else in {header}");
            }
            Answer::Half => {
                let half = Frame::data(body.slice(..body.len() / 2));
                let end = async {
                    // Half of it is sent before.
                    tokio::task::yield_now().await;
                    Err(std::io::Error::other("broken off by the test"))
                };
                let broken = stream::iter([Ok(half)]).chain(stream::once(end));
                return Response::from_parts(answered, StreamBody::new(broken).boxed_unsync());
            }
            _ => {}
        }
        Response::from_parts(answered, whole(body))
    }
}

/// The local S3 hands out the whole of a version, whatever part was asked for; S3 does not.
fn cut(parts: &mut Parts, body: &Bytes, range: &str) -> Bytes {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let last = last.min(body.len() - 1);
    let checksums: Vec<_> = parts.headers.keys().filter(|name| name.as_str().starts_with("x-amz-checksum")).cloned().collect();
    for name in checksums {
        parts.headers.remove(name);
    }
    parts.status = StatusCode::PARTIAL_CONTENT;
    parts.headers.insert("content-range", format!("bytes {first}-{last}/{}", body.len()).parse().unwrap());
    parts.headers.insert("content-length", (last + 1 - first).into());
    body.slice(first..=last)
}

fn whole(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

fn call(method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Call {
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let is_tagging = uri.query().is_some_and(|query| query.split('&').any(|field| matches!(field, "tagging" | "tagging=")));
    let operation = match method.as_str() {
        "POST" if key.is_empty() => messaging(headers, body),
        _ if key.is_empty() => "",
        "GET" if is_tagging => "GetObjectTagging",
        "PUT" if is_tagging => "PutObjectTagging",
        "GET" => "GetObject",
        "HEAD" => "HeadObject",
        "PUT" if headers.contains_key("x-amz-copy-source") => "CopyObject",
        "PUT" => "PutObject",
        "DELETE" => "DeleteObject",
        _ => "",
    };
    let key = percent_decode_str(key).decode_utf8().unwrap().into_owned();
    let only_if_free = headers.get("if-none-match").is_some_and(|value| value == "*");
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    Call { operation, bucket: bucket.to_owned(), key, only_if_free, range }
}

/// Which of [`MESSAGING`] it is: some services are told in a header, others in a form.
fn messaging(headers: &HeaderMap, body: &[u8]) -> &'static str {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()?.rsplit('.').next());
    let form = str::from_utf8(body).ok().and_then(|body| body.strip_prefix("Action=")?.split('&').next());
    MESSAGING.into_iter().find(|name| [target, form].contains(&Some(name))).unwrap_or_default()
}
