//! HTTP as clients speak it: curl, and bytes on a socket.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By names in small letters.
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The last answer in these bytes; those before it are interim ones.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        loop {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            let head = str::from_utf8(&bytes[..end]).unwrap();
            let mut lines = head.split("\r\n");
            let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
            bytes = &bytes[end + 4..];
            if status != 100 {
                let headers = lines.filter_map(|line| line.split_once(": "));
                let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
                return Some(Self { status, headers, body: bytes.to_vec() });
            }
        }
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The status code, and the code of our error.
    pub fn error(&self) -> (u16, String) {
        let json = self.json();
        assert!(json["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{json}");
        (self.status, json["error"]["code"].as_str().unwrap().to_owned())
    }
}

/// What curl gets with these arguments.
pub async fn curl(arguments: &[&str]) -> Answer {
    let output = Command::new("curl").args(["-sSi", "--max-time", "300"]).args(arguments).output().await.unwrap();
    Answer::parse(&output.stdout).unwrap_or_else(|| panic!("{arguments:?}: {output:?}"))
}

/// A file for curl to send.
pub fn file(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// A connection to `http://address:port`, on which these bytes were sent.
pub async fn send(url: &str, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// All that the service sends until it closes the connection.
pub async fn receive(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    bytes
}
