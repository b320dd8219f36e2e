//! An HTTP server that is told by the test what to do with each request, and shows what it got.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// A good answer, for SES too.
pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"MessageId\":\"1\"}";

/// What a server does with a request.
#[derive(Clone, Copy)]
pub enum Does {
    Says(&'static str),
    /// Closes the connection without an answer.
    Closes,
    Hangs,
    /// Says this, and then goes on for ever.
    Babbles(&'static str),
}
/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub head: String,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Its headers, by name.
    pub fn headers(&self) -> BTreeMap<&str, &str> {
        self.head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect()
    }
}

/// A server that does one thing after the other, in turn, and says [`OK`] as soon as it has recovered.
pub struct Receiver {
    pub url: String,
    requests: UnboundedReceiver<Request>,
    recovered: Arc<AtomicBool>,
}

impl Receiver {
    pub async fn new(script: &'static [Does]) -> Self {
        let turn = AtomicUsize::new(0);
        let does = move || script[turn.fetch_add(1, Ordering::SeqCst) % script.len()];
        Self::start(script.is_empty(), does).await
    }

    /// One that is asked anew what to do with each request.
    pub async fn that(does: impl Fn() -> Does + Send + Sync + 'static) -> Self {
        Self::start(false, does).await
    }

    async fn start(is_well: bool, does: impl Fn() -> Does + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, requests) = unbounded_channel();
        let recovered = Arc::new(AtomicBool::new(is_well));
        let (is_well, does) = (Arc::clone(&recovered), Arc::new(does));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (sender, is_well, does) = (sender.clone(), Arc::clone(&is_well), Arc::clone(&does));
                tokio::spawn(async move {
                    let Some(request) = receive(&mut stream).await else { return };
                    let does = if is_well.load(Ordering::SeqCst) { Does::Says(OK) } else { does() };
                    let _ = sender.send(request);
                    match does {
                        Does::Says(text) => drop(stream.write_all(text.as_bytes()).await),
                        Does::Closes => {}
                        Does::Hangs => drop(stream.read(&mut [0]).await),
                        Does::Babbles(head) => {
                            let mut sent = stream.write_all(head.as_bytes()).await;
                            while sent.is_ok() {
                                sent = stream.write_all(&[b' '; 4096]).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, requests, recovered }
    }

    /// One that is well from the beginning.
    pub async fn well() -> Self {
        Self::new(&[]).await
    }

    pub fn recover(&self) {
        self.recovered.store(true, Ordering::SeqCst);
    }

    pub async fn next(&mut self) -> Request {
        tokio::time::timeout(Duration::from_secs(180), self.requests.recv()).await.expect("no request came").unwrap()
    }

    /// Those that came and were not looked at yet.
    pub fn rest(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.requests.try_recv().ok()).collect()
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer).await.ok().filter(|&count| count > 0)?;
        text.push_str(str::from_utf8(&buffer[..count]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let request = Request { head: head.to_owned(), body: body.to_owned() };
        if request.body.len() == request.header("content-length").parse::<usize>().unwrap() {
            return Some(request);
        }
    }
}
