//! clamd's protocol: what clients cannot do to the service, and to one another.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::clamd::{
    PATIENCE, address, ask, chunks, connect, found, instream, is_hung_up, open_files, rest, say, socket, start,
};
use crate::samples::{self, eicar};
use crate::wait;

#[tokio::test]
async fn a_client_that_stops() {
    let service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "1"), ("CLAMGATE_CLAMD__IDLE_TIMEOUT_SECS", "1")]).await;
    for (bytes, expected) in [
        (&b""[..], ""),
        (b"zPING", ""),
        (b"zINSTREAM\0\0\0", ""),
        (b"zINSTREAM\0\0\0\0\x05hel", ""),
        (b"zINSTREAM\0\0\0\0\x05hello", ""),
        (b"zFILDES\0", ""),
        (b"zIDSESSION\0", ""),
        (b"zIDSESSION\0zPING\0", "1: PONG\0"),
    ] {
        let timed_out = format!("{expected}COMMAND READ TIMED OUT\n");
        assert_eq!(say(&socket(&service), bytes), timed_out, "{:?}", String::from_utf8_lossy(bytes));
        // One that goes away in the middle has no use for an answer, and never gets a verdict.
        let mut stream = connect(&socket(&service));
        stream.write_all(bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(stream), expected.as_bytes(), "{:?}", String::from_utf8_lossy(bytes));
    }
    assert!(service.logged("stream scanned").is_empty(), "half a stream was scanned");
}

#[tokio::test]
async fn a_stream_that_never_ends() {
    let service = start(&[("CLAMGATE_CLAMD__STREAM_TIMEOUT_SECS", "1")]).await;
    let mut stream = connect(&socket(&service));
    stream.write_all(b"zINSTREAM\0").unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sender = std::thread::spawn(move || while writer.write_all(b"\0\0\0\x01a").is_ok() {});
    assert_eq!(rest(stream), b"COMMAND READ TIMED OUT\n");
    sender.join().unwrap();
}

#[tokio::test]
async fn a_stream_that_is_too_long() {
    let limit = ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "1000000");
    let claimed = [b"zINSTREAM\0\xff\xff\xff\xff".to_vec(), vec![b'a'; 500_000]].concat();
    let pieces = [&b"zINSTREAM\0"[..], &chunks(&vec![vec![b'a'; 100_000]; 100])].concat();
    let fitting = instream(&vec![b'a'; 1_000_000]);
    for (how, expected, then) in [
        ("found", "stream: Clamgate.Unscannable.TOO_LARGE.MaxFileSize FOUND\0", "2: PONG\0"),
        ("error", "INSTREAM size limit exceeded. ERROR\0", ""),
    ] {
        let service = start(&[limit, ("CLAMGATE_CLAMD__UNSCANNABLE", how), ("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "2")]).await;
        let path = socket(&service);
        assert_eq!(say(&path, &fitting), "stream: OK\0", "{how}");
        assert_eq!(say(&path, &pieces), expected, "{how}");
        assert_eq!(say(&path, &claimed), expected, "{how}: refused before it comes");
        let in_session = [b"zIDSESSION\0", &pieces[..], b"zPING\0zEND\0"].concat();
        assert_eq!(say(&path, &in_session), format!("1: {expected}{then}"), "{how}");
        let event = service.until_logged("stream scanned", 2).await.remove(1);
        assert_eq!((&event["status"], &event["reason"]), (&"UNSCANNABLE".into(), &"TOO_LARGE".into()));
        let locked = instream(&samples::encrypted_zip("a", b"secret"));
        let locked_expected = match how {
            "found" => "stream: Clamgate.Unscannable.ENCRYPTED.Zip FOUND\0",
            _ => "stream: Not scanned completely, ENCRYPTED Zip ERROR\0",
        };
        assert_eq!(say(&path, &locked), locked_expected);
        assert_eq!(say(&path, &instream(&eicar())), format!("{}\0", found("stream")));
    }
}

#[tokio::test]
async fn when_there_is_no_room() {
    let service = start(&[
        ("CLAMGATE_SCAN__MEMORY_BYTES", "1048576"),
        ("CLAMGATE_SCAN__IN_MEMORY_MAX_BYTES", "1048576"),
        ("CLAMGATE_SCAN__SPOOL_BYTES", "4194304"),
        ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "4194304"),
    ])
    .await;
    let path = socket(&service);
    // Two streams that do not end hold all of it.
    let half = [&b"zINSTREAM\0\0\x3f\0\0"[..], &samples::noise(4_100_000)].concat();
    let mut holders: Vec<_> = (0..2).map(|_| connect(&path)).collect();
    holders[0].write_all(&half).unwrap();
    holders[1].write_all(&half[..1_000_000]).unwrap();
    wait::until("no room", || async {
        let reply = say(&path, &instream(&samples::noise(2_000_000)));
        (reply == "stream: No room for it at this moment; try again later. ERROR\0").then_some(())
    })
    .await;
    assert_eq!(say(&path, b"zPING\0"), "PONG\0");
    drop(holders);
    wait::until("room", || async { (say(&path, &instream(&samples::noise(2_000_000))) == "stream: OK\0").then_some(()) }).await;
}

#[tokio::test]
async fn memory_does_not_grow_with_what_is_claimed() {
    let limit = "2147483645";
    let service = start(&[("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", limit)]).await;
    let before = (service.memory_kib("VmRSS"), service.memory_kib("VmSize"));
    let mut clients = Vec::new();
    for _ in 0..150 {
        let mut client = connect(&socket(&service));
        client.write_all(b"zINSTREAM\0\x7f\xff\xff\x00").unwrap();
        client.write_all(&[b'a'; 1000]).unwrap();
        clients.push(client);
    }
    assert_eq!(say(&socket(&service), &instream(&eicar())), format!("{}\0", found("stream")), "others are served");
    let resident = service.memory_kib("VmRSS").saturating_sub(before.0);
    assert!(resident < 64 * 1024, "{resident} KiB for 150 clients that claim 2 GiB each");
    let reserved = service.memory_kib("VmSize").saturating_sub(before.1);
    assert!(reserved < 2 * 1024 * 1024, "{reserved} KiB of address space for 150 clients that claim 2 GiB each");
}

#[tokio::test]
async fn a_long_body_takes_no_memory() {
    let service = start(&[("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "8388608")]).await;
    let before = service.resident_kib();
    let mut client = connect(&socket(&service));
    client.write_all(b"zINSTREAM\0").unwrap();
    let chunk = [&0x0010_0000_u32.to_be_bytes()[..], &vec![b'a'; 0x0010_0000]].concat();
    for _ in 0..1024 {
        client.write_all(&chunk).unwrap();
    }
    client.write_all(&[0; 4]).unwrap();
    assert_eq!(rest(client), b"stream: Clamgate.Unscannable.TOO_LARGE.MaxFileSize FOUND\0");
    let grown = service.resident_kib().saturating_sub(before);
    assert!(grown < 100 * 1024, "{grown} KiB for a gigabyte");
    assert_eq!(
        fs::read_dir(service.dir.path().join("scratch")).unwrap().count(),
        2,
        "the health socket, and the scratch directory"
    );
}

#[tokio::test]
async fn two_thousand_idle_clients_do_not_keep_others_out() {
    let service = start(&[("CLAMGATE_CLAMD__MAX_CONNECTIONS", "200"), ("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "600")]).await;
    let address = address(&service).await;
    let before = open_files(&service).len();
    let idle: Vec<_> = (0..2000).map(|_| tokio::spawn(tokio::net::TcpStream::connect(address))).collect();
    wait::until("all places to be taken", || async { (open_files(&service).len() >= before + 200).then_some(()) }).await;
    let client = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&instream(&eicar())).unwrap();
        rest(stream)
    });
    let by_socket = socket(&service);
    let neighbour = tokio::task::spawn_blocking(move || ask(&by_socket, b"zPING\0"));
    wait::until("both to be served", || async {
        // One more for each listener waits for its place, and a scan has files of its own.
        assert!(open_files(&service).len() <= before + 220, "more connections than allowed");
        (client.is_finished() && neighbour.is_finished()).then_some(())
    })
    .await;
    assert_eq!(client.await.unwrap(), format!("{}\0", found("stream")).into_bytes());
    assert_eq!(neighbour.await.unwrap(), b"PONG\0");
    drop(idle);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "1")]).await;
    let mut client = connect(&socket(&service));
    client.write_all(b"zIDSESSION\0").unwrap();
    client.set_write_timeout(Some(PATIENCE)).unwrap();
    let many = b"zVERSIONCOMMANDS\0".repeat(1000);
    while client.write_all(&many).is_ok() {}
    wait::until("the connection to be closed", || async { is_hung_up(&client).then_some(()) }).await;
}

/// What has come so far, if anything.
fn answered(mut stream: UnixStream) -> Option<Vec<u8>> {
    stream.set_nonblocking(true).unwrap();
    let mut reply = [0; 200];
    stream.read(&mut reply).ok().map(|count| reply[..count].to_vec())
}

#[tokio::test]
async fn two_hundred_slow_streams_do_not_keep_others_out() {
    let service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "600")]).await;
    let mut slow: Vec<_> = (0..200).map(|_| connect(&socket(&service))).collect();
    for stream in &mut slow {
        stream.write_all(b"zINSTREAM\0\0").unwrap();
    }
    assert_eq!(say(&socket(&service), b"zPING\0"), "PONG\0");
    let too_slow = "stream: All connections are taken, and this was the slowest; try again later. ERROR\0";
    let sent_away: Vec<_> = slow.into_iter().filter_map(answered).collect();
    assert_eq!(sent_away, [too_slow.as_bytes()], "one of them, and no more");
}

/// Directories that are too deep to be looked into: a long reply for each, and nothing to scan.
fn many_replies(inside: &Path) -> PathBuf {
    let root = inside.join("deep");
    let mut deepest = root.clone();
    deepest.extend((1..32).map(|_| "a".repeat(100)));
    for number in 0..300 {
        fs::create_dir_all(deepest.join(number.to_string())).unwrap();
    }
    root
}

#[tokio::test]
async fn clients_that_never_read_do_not_block_scans() {
    let service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "600")]).await;
    let root = many_replies(service.dir.path());
    let (path, directory) = (service.dir.path().join("file"), service.dir.path().join("directory"));
    fs::write(&path, eicar()).unwrap();
    fs::create_dir(&directory).unwrap();
    let mut clients: Vec<_> = (0..32).map(|_| connect(&socket(&service))).collect();
    for client in &mut clients {
        client.write_all(format!("zCONTSCAN {}\0", root.display()).as_bytes()).unwrap();
        // It has its turn.
        client.read_exact(&mut [0]).unwrap();
    }
    let (file, name) = (path.display(), directory.display());
    assert_eq!(say(&socket(&service), format!("zSCAN {file}\0").as_bytes()), format!("{}\0", found(&file.to_string())));
    let no_turn = format!("{name}: Too many directories are looked through; try again later. ERROR\0");
    assert_eq!(say(&socket(&service), format!("zSCAN {name}\0").as_bytes()), no_turn);
}

#[tokio::test]
async fn a_client_that_reads_now_and_then_is_given_up() {
    let service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "1")]).await;
    let root = many_replies(service.dir.path());
    let mut client = connect(&socket(&service));
    client.write_all(format!("zCONTSCAN {}\0", root.display()).as_bytes()).unwrap();
    let mut reply = vec![0];
    client.read_exact(&mut reply).unwrap();
    // A little at each look.
    wait::until("the connection to be closed", || {
        let mut some = [0; 2000];
        let count = client.read(&mut some).unwrap();
        reply.extend(&some[..count]);
        let closed = is_hung_up(&client);
        async move { closed.then_some(()) }
    })
    .await;
    reply.extend(rest(client));
    let replies = reply.iter().filter(|&&byte| byte == 0).count();
    assert!(replies < 300, "all {replies} replies were written to a client that hardly reads");
}

#[tokio::test]
async fn a_name_with_a_line_separator_does_not_forge_a_verdict() {
    let service = start(&[]).await;
    let directory = service.dir.path().join("directory");
    fs::create_dir(&directory).unwrap();
    // Where Python's splitlines() begins a line, and what turns the text around it.
    for mark in "\n\r\u{b}\u{c}\u{1c}\u{1d}\u{1e}\u{85}\u{2028}\u{2029}\u{200e}\u{200f}\u{202a}\u{202e}\u{2066}\u{2069}".chars()
    {
        let path = directory.join(format!("a{mark}stream: OK"));
        fs::write(&path, eicar()).unwrap();
        let name = format!("{}/a{}stream\\u{{3a}} OK", directory.display(), mark.escape_default());
        let reply = say(&socket(&service), format!("zCONTSCAN {}\0", directory.display()).as_bytes());
        assert_eq!(reply, format!("{}\0", found(&name)));
        fs::remove_file(path).unwrap();
    }
}

/// Whoever holds a lease can keep others waiting who want to open the file.
const LEASE: &str = "
import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
file = os.open(sys.argv[1], os.O_WRONLY)
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
sys.stdin.read()
";

#[tokio::test]
async fn a_file_that_could_not_be_opened_at_once_held_its_thread() {
    let service = start(&[]).await;
    let path = service.dir.path().join("file");
    fs::write(&path, b"hello").unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", LEASE]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = python.spawn().unwrap();
    holder.stdout.take().unwrap().read_exact(&mut [0]).expect("no lease");
    let scan = format!("zSCAN {}\0", path.display());
    let unavailable = format!("{}: Resource temporarily unavailable. ERROR\0", path.display());
    assert_eq!(say(&socket(&service), scan.as_bytes()), unavailable);
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    assert_eq!(say(&socket(&service), scan.as_bytes()), format!("{}: OK\0", path.display()));
}
