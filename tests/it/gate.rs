//! A door in front of a server: until it is opened, connections wait in front of it, and end then.

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub struct Gate {
    pub url: String,
    open: watch::Sender<bool>,
    knocks: watch::Receiver<usize>,
}

impl Gate {
    /// A closed gate to `http://address:port`.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("http://{}", listener.local_addr().unwrap());
        let server = url.strip_prefix("http://").unwrap().to_owned();
        let (open, is_open) = watch::channel(false);
        let (knock, knocks) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                knock.send_modify(|knocks| *knocks += 1);
                let (server, mut is_open) = (server.clone(), is_open.clone());
                tokio::spawn(async move {
                    if !*is_open.borrow() {
                        // Nothing that was said before gets through: nobody waits for the answer any more.
                        return is_open.wait_for(|&open| open).await.ok().map(|_| (0, 0));
                    }
                    let mut server = TcpStream::connect(server).await.ok()?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await.ok()
                });
            }
        });
        Self { url: own, open, knocks }
    }

    /// Waits until so many connections have been made.
    pub async fn until_knocked(&mut self, times: usize) {
        self.knocks.wait_for(|&knocks| knocks >= times).await.unwrap();
    }

    pub fn open(&self) {
        self.open.send_replace(true);
    }
}
