//! The HTTP API's bounds: slow and silent clients, too much of everything, and an end in the middle of it.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::samples::{self, eicar};
use crate::service::Service;
use crate::wait;
use crate::web::{Answer, curl, file, receive, send};

const MIB: u64 = 1024 * 1024;

/// The head of a request for a scan, and the beginning of its body.
fn beginning(length: u64) -> String {
    format!("POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\nthe beginning")
}

async fn answer(stream: TcpStream) -> Answer {
    let bytes = receive(stream).await;
    Answer::parse(&bytes).unwrap_or_else(|| panic!("no answer: {bytes:?}"))
}

#[tokio::test]
async fn ten_gigabytes_are_refused_before_they_are_sent() {
    let (_service, url) = Service::start_http(&[]).await;
    let claimed = 10 * 1024 * MIB;
    let form = format!(
        "POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n",
        claimed * 1000
    );
    // Nothing of the body ever comes, and nobody waits for it.
    let refused = answer(send(&url, beginning(claimed).as_bytes()).await).await;
    assert_eq!(refused.status, 413);
    let report = refused.json();
    assert_eq!(
        (&report["status"], &report["reason"], &report["target"]["size"]),
        (&"UNSCANNABLE".into(), &"TOO_LARGE".into(), &claimed.into())
    );
    assert_eq!(answer(send(&url, form.as_bytes()).await).await.error(), (413, "too_large".to_owned()));
}

#[tokio::test]
async fn a_body_without_end_is_cut_off_and_memory_stays_bounded() {
    // Far more than the allocator's huge pages can make of what is kept.
    let limit = 150 * MIB;
    let settings = [
        ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", limit.to_string()),
        ("CLAMGATE_SCAN__IN_MEMORY_MAX_BYTES", (4 * MIB).to_string()),
        ("CLAMGATE_SCAN__MEMORY_BYTES", (8 * MIB).to_string()),
    ];
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (service, url) = Service::start_http(&settings).await;
    let before = service.resident_kib();
    let scan = format!("{url}/v1/scan");
    let endless = curl(&["-X", "POST", "-T", "/dev/zero", &scan]).await;
    assert_eq!((endless.status, endless.json()["reason"].clone()), (413, "TOO_LARGE".into()));
    let form = "POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n";
    let disposition = "--b\r\nContent-Disposition: form-data; name=f\r\n";
    for (what, begun, status) in [
        ("preamble", "x".to_owned(), 400),
        ("header", format!("{disposition}X: "), 400),
        ("part", format!("{disposition}\r\n"), 413),
    ] {
        let stream = send(&url, format!("{form}{:x}\r\n{begun}\r\n", begun.len()).as_bytes()).await;
        let (mut reader, mut writer) = stream.into_split();
        let sending = tokio::spawn(async move {
            let piece = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
            while writer.write_all(&piece).await.is_ok() {}
        });
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes).await;
        sending.abort();
        assert_eq!(Answer::parse(&bytes).map(|answer| answer.status), Some(status), "endless {what}");
    }
    let grown = service.resident_kib().saturating_sub(before);
    assert!(grown < 80 * 1024, "{grown} KiB more than before");
}

#[tokio::test]
async fn who_stops_sending_or_sends_too_slowly_is_answered_408() {
    let settings = [("CLAMGATE_HTTP__IDLE_TIMEOUT_SECS", "1"), ("CLAMGATE_HTTP__REQUEST_TIMEOUT_SECS", "3")];
    let (service, url) = Service::start_http(&settings).await;
    let form = "POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n\r\n\
                --b\r\nContent-Disposition: form-data; name=f\r\n\r\nbegun";
    let order = "POST /v1/scan/s3 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{";
    for bytes in [&beginning(1000), form, order] {
        assert_eq!(answer(send(&url, bytes.as_bytes()).await).await.error(), (408, "too_slow".to_owned()), "{bytes}");
    }
    // A byte now and then is never idle, but has no end either.
    let stream = send(&url, beginning(100_000).as_bytes()).await;
    let (mut reader, mut writer) = stream.into_split();
    let dripping = tokio::spawn(async move {
        let mut drops = tokio::time::interval(Duration::from_millis(100));
        loop {
            drops.tick().await;
            if writer.write_all(b".").await.is_err() {
                break;
            }
        }
    });
    let mut bytes = Vec::new();
    let _ = reader.read_to_end(&mut bytes).await;
    dripping.abort();
    assert_eq!(Answer::parse(&bytes).unwrap().error(), (408, "too_slow".to_owned()));
    assert!(service.logged("stream scanned").is_empty(), "what has not come is not scanned");
}

#[tokio::test]
async fn silent_connections_are_closed() {
    let (_service, url) = Service::start_http(&[("CLAMGATE_HTTP__KEEP_ALIVE_SECS", "1")]).await;
    let silent = send(&url, b"").await;
    let half_a_head = send(&url, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ").await;
    // An answered one may be used again, but not for ever.
    let mut kept = send(&url, b"").await;
    for _ in 0..2 {
        kept.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"{\"live\":true}") {
            assert!(kept.read_buf(&mut bytes).await.unwrap() > 0);
        }
    }
    assert!(receive(kept).await.is_empty());
    assert!(receive(silent).await.is_empty());
    assert!(receive(half_a_head).await.is_empty());
}

/// A request whose body is waited for, and does not come.
async fn stalled(url: &str) -> TcpStream {
    let head = "POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n";
    let mut stream = send(url, head.as_bytes()).await;
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

#[tokio::test]
async fn no_more_than_max_scans_at_once_and_a_client_that_goes_makes_room() {
    let (service, url) = Service::start_http(&[("CLAMGATE_HTTP__MAX_SCANS", "2")]).await;
    let scan = format!("{url}/v1/scan");
    let slow = format!("@{}", file(service.dir.path(), "slow", &samples::slow(8)).display());
    let under_way = {
        let (body, scan) = (slow.clone(), scan.clone());
        tokio::spawn(async move { curl(&["--data-binary", &body, &scan]).await })
    };
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    // One that has stalled for a second would not be in the way any more.
    let (second, refused) = wait::until("a refusal within a second", || async {
        let (second, refused) = (stalled(&url).await, curl(&["-d", "x", &scan]).await);
        (refused.status != 200).then_some((second, refused))
    })
    .await;
    let sent_away = || async {
        let metrics = curl(&[&format!("{url}/metrics")]).await;
        metrics.text().lines().find(|line| line.contains(r#"status="408""#)).map(str::to_owned)
    };
    let sent_away_before = sent_away().await;
    assert_eq!(refused.error(), (429, "too_many".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(curl(&[&format!("{url}/livez")]).await.status, 200);
    assert_eq!(curl(&[&format!("{url}/readyz")]).await.status, 200);
    drop(second);
    wait::until("the second one's room", || async { (curl(&["-d", "x", &scan]).await.status == 200).then_some(()) }).await;
    assert_eq!(sent_away().await, sent_away_before, "it was sent away, and had not made room by going");
    assert_eq!(under_way.await.unwrap().json()["status"], "CLEAN", "a scan is not sent away, however long it takes");
}

#[tokio::test]
async fn a_hundred_slow_bodies_kept_others_out() {
    let (_service, url) = Service::start_http(&[]).await;
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(stalled(&url).await);
    }
    let scan = format!("{url}/v1/scan");
    wait::until("room", || async { (curl(&["-d", "x", &scan]).await.status == 200).then_some(()) }).await;
    let slowest = answer(slow.remove(0)).await;
    assert_eq!(slowest.error(), (408, "too_slow".to_owned()));
    let answered = slow.iter().filter(|stream| stream.try_read(&mut [0]).is_ok()).count();
    assert_eq!(answered, 0, "one went for the one that came");
}

#[tokio::test]
async fn who_had_closed_its_sending_side_got_no_answer() {
    let (_service, url) = Service::start_http(&[]).await;
    let slow = samples::slow(1);
    let head = format!("POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", slow.len());
    let mut whole = send(&url, &[head.as_bytes(), &slow].concat()).await;
    whole.shutdown().await.unwrap();
    assert_eq!(answer(whole).await.json()["status"], "CLEAN");
    let mut half = send(&url, beginning(1000).as_bytes()).await;
    half.shutdown().await.unwrap();
    assert_eq!(answer(half).await.error(), (400, "malformed".to_owned()));
}

#[tokio::test]
async fn health_answers_while_every_scan_thread_is_busy() {
    // One content, scanned again and again.
    let (service, url) = Service::start_http(&[("CLAMGATE_SCAN__CACHED_VERDICTS", "0")]).await;
    let slow = file(service.dir.path(), "slow", &samples::slow(3));
    let scans: Vec<_> = (0..5)
        .map(|_| {
            let (body, scan) = (format!("@{}", slow.display()), format!("{url}/v1/scan"));
            tokio::spawn(async move { curl(&["--data-binary", &body, &scan]).await })
        })
        .collect();
    wait::until("more scans than threads", || async { service.health().await.filter(|health| health.scans > 2) }).await;
    for path in ["/livez", "/readyz", "/metrics", "/v1/definitions"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).await.status, 200, "{path}");
    }
    assert!(service.health().await.unwrap().scans > 0, "they were all done before health was asked for");
    for scan in scans {
        assert_eq!(scan.await.unwrap().json()["status"], "CLEAN");
    }
}

#[tokio::test]
async fn what_does_not_fit_the_budget_is_told_to_come_back() {
    let size = MIB.to_string();
    let settings = [
        ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", size.as_str()),
        ("CLAMGATE_SCAN__MEMORY_BYTES", "65536"),
        ("CLAMGATE_SCAN__IN_MEMORY_MAX_BYTES", "65536"),
        ("CLAMGATE_SCAN__SPOOL_BYTES", &size),
    ];
    let (service, url) = Service::start_http(&settings).await;
    // One takes all of the disk, and waits for its last byte.
    let content = samples::noise(MIB as usize - 1);
    let head = format!("POST /v1/scan HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
    let mut held = send(&url, head.as_bytes()).await;
    held.write_all(&content).await.unwrap();
    // Before that, another could take the disk, and this one would be told to come back.
    wait::until("its bytes on the disk", || async {
        let files = fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap();
        let mut sizes = files.filter_map(|file| Some(fs::metadata(file.ok()?.path()).ok()?.len()));
        sizes.any(|size| size == content.len() as u64).then_some(())
    })
    .await;
    let body = file(service.dir.path(), "body", &content);
    let (body, scan) = (format!("@{}", body.display()), format!("{url}/v1/scan"));
    let refused = curl(&["--data-binary", &body, &scan]).await;
    assert_eq!(refused.error(), (503, "busy".to_owned()));
    assert_eq!(refused.headers["retry-after"], "1");
    held.write_all(b".").await.unwrap();
    assert_eq!(answer(held).await.json()["status"], "CLEAN");
    assert_eq!(curl(&["--data-binary", &body, &scan]).await.json()["status"], "CLEAN");
}

#[tokio::test]
async fn thousands_of_connections_leave_health_alone() {
    let settings = [("CLAMGATE_HTTP__MAX_CONNECTIONS", "20"), ("CLAMGATE_HTTP__HEALTH_LISTEN", "127.0.0.1:0")];
    let (service, url) = Service::start_http(&settings).await;
    let health = service.until_logged("health and metrics listen", 1).await[0]["address"].as_str().unwrap().to_owned();
    let before = service.resident_kib();
    // Every regular connection is held by somebody who does not send his body.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(send(&url, beginning(1000).as_bytes()).await);
    }
    let scan = format!("{url}/v1/scan");
    let refused = wait::until("no regular connection to be left", || async {
        let answer = curl(&["-d", "x", &scan]).await;
        (answer.status != 200).then_some(answer)
    })
    .await;
    assert_eq!((refused.error(), refused.headers["connection"].as_str()), ((503, "busy".to_owned()), "close"));
    assert!(refused.headers.contains_key("retry-after"));
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(curl(&[&format!("{url}{path}")]).await.status, 200, "{path}");
    }
    // So many that not even the reserve is free: the other address is.
    for _ in 0..3000 {
        let address = url.strip_prefix("http://").unwrap().parse().unwrap();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        match tokio::time::timeout(Duration::from_millis(200), socket.connect(address)).await {
            Ok(Ok(stream)) => held.push(stream),
            // The queue of those that wait to be accepted is full.
            _ => break,
        }
    }
    assert!(held.len() > 100, "{}", held.len());
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(curl(&[&format!("http://{health}{path}")]).await.status, 200, "{path}");
    }
    assert_eq!(curl(&["-d", "x", &format!("http://{health}/v1/scan")]).await.error(), (404, "not_found".to_owned()));
    let grown = service.resident_kib().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} KiB more than before");
    drop(held);
    wait::until("service as before", || async { (curl(&["-d", "x", &scan]).await.status == 200).then_some(()) }).await;
}

#[tokio::test]
async fn nobody_was_told_that_too_few_files_can_be_opened() {
    let warning = "fewer files can be opened than the clients may need";
    for (setup, warned) in [("ulimit -n 1000", true), ("ulimit -Sn 256", false)] {
        let mut service = Service::http(&[]).after(setup);
        service.spawn();
        service.until_ready().await;
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let figures: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(figures[0], figures[1], "{setup}: not as many as the system allows");
        let lines = service.logged(warning);
        assert_eq!(lines.len(), usize::from(warned), "{setup}: {line}");
        if warned {
            assert_eq!(lines[0]["limit"], 1000);
            assert!(lines[0]["needed"].as_u64().unwrap() > 1000, "{}", lines[0]);
        }
    }
}

#[tokio::test]
async fn noise_on_the_line_harms_nobody() {
    let (service, url) = Service::start_http(&[]).await;
    let noise = samples::noise(100_000);
    let form = "POST /v1/scan HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (n, piece) in noise.chunks(1000).enumerate() {
        let mut stream = send(&url, if n % 2 == 0 { b"" } else { form.as_bytes() }).await;
        let _ = stream.write_all(piece).await;
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    }
    assert_eq!(curl(&["-d", "x", &format!("{url}/v1/scan")]).await.json()["status"], "CLEAN");
    assert!(service.logged("an HTTP request panicked").is_empty());
}

#[tokio::test]
async fn sigterm_finishes_the_requests_under_way() {
    let (mut service, url) = Service::start_http(&[]).await;
    let idle = send(&url, b"").await;
    let slow = file(service.dir.path(), "slow", &samples::zip(&[("eicar", &eicar()), ("slow", &samples::slow(8))]));
    let scanning = {
        let (body, scan) = (format!("@{}", slow.display()), format!("{url}/v1/scan"));
        tokio::spawn(async move { curl(&["--data-binary", &body, &scan]).await })
    };
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    service.signal("TERM");
    assert!(receive(idle).await.is_empty(), "it had nothing to finish");
    assert_eq!(scanning.await.unwrap().json()["status"], "INFECTED");
    assert_eq!(service.until_ended().await.code(), Some(0));
    assert_eq!(service.logged("drained").len(), 1);
}

#[tokio::test]
async fn sigterm_does_not_wait_for_ever() {
    let (mut service, url) = Service::start_http(&[("CLAMGATE_SERVICE__GRACE_SECS", "1")]).await;
    let sending = stalled(&url).await;
    service.signal("TERM");
    assert_eq!(service.until_ended().await.code(), Some(0));
    assert_eq!(service.logged("HTTP requests under way were dropped").len(), 1);
    drop(sending);
}
