//! A proxy before the local AWS that writes down which IAM actions the requests through it need.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use tokio::net::TcpListener;

/// An IAM action and the ARN that it is done to.
pub type Call = (String, String);

/// What came through so far.
#[derive(Clone, Default)]
pub struct Recorder {
    calls: Arc<Mutex<BTreeSet<Call>>>,
}

impl Recorder {
    /// Listens, hands all requests on to `upstream` (`http://host:port`), and says its own URL.
    pub async fn start(upstream: &str) -> (Self, String) {
        let recorder = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let (calls, upstream) = (Arc::clone(&recorder.calls), upstream.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (calls, client, upstream) = (Arc::clone(&calls), client.clone(), upstream.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (calls, client, upstream) = (Arc::clone(&calls), client.clone(), upstream.clone());
                    async move { Ok::<_, Infallible>(hand_on(request, &client, &upstream, &calls).await) }
                });
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        (recorder, format!("http://{address}"))
    }

    pub fn calls(&self) -> BTreeSet<Call> {
        self.calls.lock().unwrap().clone()
    }
}

async fn hand_on(
    request: Request<Incoming>,
    client: &Client<HttpConnector, Full<Bytes>>,
    upstream: &str,
    calls: &Mutex<BTreeSet<Call>>,
) -> Response<Full<Bytes>> {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return Response::default() };
    let body = body.to_bytes();
    calls.lock().unwrap().extend(needed(&parts, &body));
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = format!("{upstream}{path}").parse::<Uri>().unwrap();
    let answer = client.request(Request::from_parts(parts, Full::new(body))).await.unwrap();
    let (parts, body) = answer.into_parts();
    Response::from_parts(parts, Full::new(body.collect().await.unwrap().to_bytes()))
}

/// The actions that a request needs
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html>, the same for SQS).
fn needed(parts: &hyper::http::request::Parts, body: &[u8]) -> Vec<Call> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(operation) = header("x-amz-target").and_then(|target| target.strip_prefix("AmazonSQS.")) {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        let url = body["QueueUrl"].as_str().unwrap();
        let name: Vec<&str> = url.rsplitn(3, '/').collect();
        let operation = operation.strip_suffix("Batch").unwrap_or(operation);
        return vec![(format!("sqs:{operation}"), format!("arn:aws:sqs:us-east-1:{}:{}", name[1], name[0]))];
    }
    assert!(header("x-amz-target").is_none(), "a service that this recorder does not know: {parts:?}");
    let path = percent_decode_str(parts.uri.path()).decode_utf8().unwrap().into_owned();
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let query: Vec<&str> =
        parts.uri.query().unwrap_or("").split('&').map(|pair| pair.split('=').next().unwrap_or("")).collect();
    let has = |name: &str| query.contains(&name);
    let call = |action: &str, place: &str| (format!("s3:{action}"), format!("arn:aws:s3:::{place}"));
    if key.is_empty() {
        let action = match (&parts.method, has("notification"), has("list-type")) {
            (&Method::GET, true, _) => "GetBucketNotification",
            (&Method::GET, _, true) => "ListBucket",
            _ => panic!("a request on a bucket that this recorder does not know: {parts:?}"),
        };
        return vec![call(action, bucket)];
    }
    let object = format!("{bucket}/{key}");
    let version = if has("versionId") { "Version" } else { "" };
    let mut calls = match (&parts.method, has("tagging"), has("uploadId")) {
        (&Method::GET, true, _) => vec![call(&format!("GetObject{version}Tagging"), &object)],
        (&Method::PUT, true, _) => vec![call(&format!("PutObject{version}Tagging"), &object)],
        (&Method::GET | &Method::HEAD, false, _) => vec![call(&format!("GetObject{version}"), &object)],
        (&Method::DELETE, false, true) => vec![call("AbortMultipartUpload", &object)],
        (&Method::DELETE, false, false) => vec![call(&format!("DeleteObject{version}"), &object)],
        (&Method::PUT | &Method::POST, false, _) => vec![call("PutObject", &object)],
        _ => panic!("a request that this recorder does not know: {parts:?}"),
    };
    if header("x-amz-tagging").is_some_and(|tags| !tags.is_empty()) {
        calls.push(call("PutObjectTagging", &object));
    }
    if let Some(source) = header("x-amz-copy-source") {
        let (source, version) = source.split_once("?versionId=").map_or((source, ""), |(source, _)| (source, "Version"));
        let source = percent_decode_str(source.trim_start_matches('/')).decode_utf8().unwrap();
        calls.push(call(&format!("GetObject{version}"), &source));
    }
    calls
}
