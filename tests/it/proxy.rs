//! A proxy before the local S3 and SQS, which can do something, or refuse, at any call.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
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
use tokio::task::JoinHandle;

use crate::aws;

/// One call that the service makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// AWS's name of the operation, for those on objects and messages.
    pub operation: &'static str,
    pub bucket: String,
    pub key: String,
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
    /// `InternalError`
    Fail,
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
        let call = call(request.method(), request.uri(), request.headers());
        self.calls.lock().unwrap().push(call.clone());
        let range = call.range.clone();
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let error = |status, code| {
            let text = format!("<Error><Code>{code}</Code><Message>by the test</Message></Error>");
            // The answer to a HEAD has no body.
            let text = if parts.method == Method::HEAD { String::new() } else { text };
            Response::builder().status(status).body(whole(text.into())).unwrap()
        };
        let answer = (self.hook)(call).await;
        match answer {
            Answer::Deny => return error(403, "AccessDenied"),
            Answer::Fail => return error(500, "InternalError"),
            Answer::Without(header) => assert!(parts.headers.remove(header).is_some(), "the call has no {header}"),
            Answer::Forward | Answer::Saying(..) | Answer::Half => {}
        }
        let path = parts.uri.path_and_query().unwrap().as_str();
        let mut forwarded = Request::new(Full::from(body));
        *forwarded.method_mut() = parts.method;
        *forwarded.uri_mut() = format!("{}{path}", aws::environment()[0].1).parse().unwrap();
        *forwarded.headers_mut() = parts.headers;
        let (mut parts, body) = self.client.request(forwarded).await.unwrap().into_parts();
        let mut body = body.collect().await.unwrap().to_bytes();
        if let Some(range) = range.filter(|_| parts.status == 200 && answer != Answer::Without("range")) {
            body = cut(&mut parts, &body, &range);
        }
        match answer {
            Answer::Saying(header, text) => {
                let said = parts.headers.insert(header, HeaderValue::from_static(text));
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
                return Response::from_parts(parts, StreamBody::new(broken).boxed_unsync());
            }
            _ => {}
        }
        Response::from_parts(parts, whole(body))
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

fn call(method: &Method, uri: &Uri, headers: &HeaderMap) -> Call {
    let path = uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let is_tagging = uri.query().is_some_and(|query| query.split('&').any(|field| matches!(field, "tagging" | "tagging=")));
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().unwrap().strip_prefix("AmazonSQS."));
    let operation = match method.as_str() {
        "POST" => {
            let known = ["ReceiveMessage", "DeleteMessageBatch", "ChangeMessageVisibility", "ChangeMessageVisibilityBatch"];
            known.into_iter().find(|known| target == Some(known)).unwrap_or_default()
        }
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
    let range = headers.get("range").map(|range| range.to_str().unwrap().to_owned());
    Call { operation, bucket: bucket.to_owned(), key, range }
}
