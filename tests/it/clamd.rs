//! clamd's protocol, byte for byte.

use std::fs::{self, File};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::Service;
use crate::wait;

/// How long a reply may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

const SOCKET: (&str, &str) = ("CLAMGATE_CLAMD__SOCKET", "{dir}/clamd.ctl");
const LISTEN: (&str, &str) = ("CLAMGATE_CLAMD__LISTEN", "127.0.0.1:0");

pub fn socket(service: &Service) -> PathBuf {
    service.dir.path().join("clamd.ctl")
}

pub async fn address(service: &Service) -> SocketAddr {
    wait::until("the service to listen", || async {
        let lines = service.logged("listening for clamd's clients");
        lines.iter().find_map(|line| line["address"].as_str()?.parse().ok())
    })
    .await
}

/// A service that clamd's clients can reach both ways.
pub async fn start(settings: &[(&str, &str)]) -> Service {
    let service = Service::start_local(&[&[SOCKET, LISTEN], settings].concat()).await;
    wait::until("the socket", || async { UnixStream::connect(socket(&service)).ok() }).await;
    service
}

/// Connects to a Unix socket.
pub fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// All that comes until the other side closes.
pub fn rest(mut stream: impl Read) -> Vec<u8> {
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply) {
        // It closed with something of ours unread.
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !reply.is_empty() => {}
        end => drop(end.unwrap()),
    }
    reply
}

/// Says something on a new connection, and returns all that is answered.
pub fn ask(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(path);
    stream.write_all(bytes).unwrap();
    rest(stream)
}

/// As [`ask`], as text.
pub fn say(path: &Path, bytes: &[u8]) -> String {
    String::from_utf8(ask(path, bytes)).unwrap()
}

/// These chunks, and the end of the stream.
pub fn chunks<B: AsRef<[u8]>>(pieces: &[B]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for piece in pieces {
        bytes.extend(u32::try_from(piece.as_ref().len()).unwrap().to_be_bytes());
        bytes.extend(piece.as_ref());
    }
    bytes.extend([0; 4]);
    bytes
}

/// A command, and the stream after it.
pub fn instream(content: &[u8]) -> Vec<u8> {
    [&b"zINSTREAM\0"[..], &chunks(&[content])].concat()
}

/// Sends bytes and descriptors in one message.
pub fn pass(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let sent = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    assert_eq!(sent, bytes.len());
}

/// `fd[12]` as `fd[N]`: the number is the server's own affair.
pub fn without_numbers(reply: &str) -> String {
    let mut parts = reply.split("fd[");
    let mut text = parts.next().unwrap().to_owned();
    for part in parts {
        text += "fd[N]";
        text += part.split_once(']').unwrap().1;
    }
    text
}

pub fn found(name: &str) -> String {
    format!("{name}: {EICAR_NAME} FOUND")
}

/// What the service's descriptors lead to (proc_pid_fd(5)), without those closed meanwhile.
pub fn open_files(service: &Service) -> Vec<PathBuf> {
    let links = fs::read_dir(format!("/proc/{}/fd", service.pid())).unwrap();
    links.filter_map(|link| fs::read_link(link.unwrap().path()).ok()).collect()
}

/// Whether the service has closed the connection, which shows before all that it had said is read.
pub fn is_hung_up(stream: &UnixStream) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[tokio::test]
async fn what_is_said_and_answered() {
    let service = start(&[]).await;
    let path = socket(&service);
    let tcp = address(&service).await;
    let long = [&b"nSCAN /"[..], &vec![b'a'; 5000]].concat();
    let eicar_in_pieces = [&b"zINSTREAM\0"[..], &chunks(&eicar().chunks(7).collect::<Vec<_>>())].concat();
    let twice = [instream(&eicar()), b"zPING\0".to_vec()].concat();
    for (bytes, expected) in [
        (&b"PING"[..], "PONG\n"),
        (b"nPING\r\n", "PONG\n"),
        (b"zPING\0", "PONG\0"),
        (b"zPING\0zPING\0", "PONG\0"),
        (b"zping\0", "UNKNOWN COMMAND\0"),
        (b"INSTREAM\n", "UNKNOWN COMMAND\n"),
        (b"\n", "UNKNOWN COMMAND\n"),
        (b"nEND\n", "UNKNOWN COMMAND\n"),
        (b"nSHUTDOWN\n", "COMMAND UNAVAILABLE\n"),
        (b"QUIT", "COMMAND UNAVAILABLE\n"),
        (b"nDETSTATS\n", ""),
        (&long, "Command too long. ERROR\n"),
        (&instream(&eicar()), &format!("{}\0", found("stream"))),
        (&eicar_in_pieces, &format!("{}\0", found("stream"))),
        (&twice, &format!("{}\0", found("stream"))),
        (&instream(b"hello world"), "stream: OK\0"),
        (b"nINSTREAM\n\0\0\0\0", "stream: OK\n"),
        (&instream(&samples::encrypted_zip("a", b"secret")), "stream: Clamgate.Unscannable.ENCRYPTED.Zip FOUND\0"),
    ] {
        assert_eq!(say(&path, bytes), expected, "{:?}", String::from_utf8_lossy(bytes));
        let mut stream = TcpStream::connect(tcp).unwrap();
        stream.write_all(bytes).unwrap();
        assert_eq!(String::from_utf8(rest(stream)).unwrap(), expected, "over TCP: {:?}", String::from_utf8_lossy(bytes));
    }
    assert!(say(&path, b"nSTATS\n").ends_with("\nEND\n"));
    let event = service.until_logged("stream scanned", 1).await.remove(0);
    assert_eq!((&event["via"], &event["name"], &event["status"]), (&"clamd".into(), &"stream".into(), &"INFECTED".into()));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
}

#[tokio::test]
async fn a_client_that_sends_slowly_and_in_any_pieces() {
    let service = start(&[]).await;
    for bytes in [b"zPING\0".to_vec(), instream(&eicar())] {
        let mut stream = connect(&socket(&service));
        for byte in &bytes {
            stream.write_all(&[*byte]).unwrap();
        }
        let reply = String::from_utf8(rest(stream)).unwrap();
        assert!(reply == "PONG\0" || reply == format!("{}\0", found("stream")), "{reply}");
    }
    // One that has closed its sending side still gets its reply.
    let mut stream = connect(&socket(&service));
    stream.write_all(&instream(&eicar())).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(stream), format!("{}\0", found("stream")).into_bytes());
}

#[tokio::test]
async fn sessions() {
    let service = start(&[]).await;
    let path = socket(&service);
    let invalid = "1: Command invalid inside IDSESSION. ERROR\0";
    let old = "1: Only nCMDS\\n and zCMDS\\0 are accepted inside IDSESSION. ERROR\n";
    for (bytes, expected) in [
        (&b"zPING\0nPING\nzEND\0"[..], "1: PONG\x002: PONG\n"),
        (b"zEND\0zPING\0", ""),
        (b"zRELOAD\0zPING\0", invalid),
        (b"zSHUTDOWN\0zPING\0", invalid),
        (b"zCONTSCAN /\0zPING\0", invalid),
        (b"zIDSESSION\0zPING\0", invalid),
        (b"zFOO\0zPING\0", invalid),
        (b"PING\n", old),
        (b"zFILDES\0x", "1: No file descriptor received. ERROR\0"),
        (b"zSCAN /missing\0zEND\0", "1: /missing: File path check failure: No such file or directory. ERROR\0"),
    ] {
        let bytes = [b"zIDSESSION\0", bytes].concat();
        assert_eq!(say(&path, &bytes), expected, "{:?}", String::from_utf8_lossy(&bytes));
    }
    // Far more commands than are under way at once; the replies come in any order, each with its number.
    let mut bytes = b"nIDSESSION\n".to_vec();
    let mut expected = Vec::new();
    for id in 1..=300 {
        let (content, answer) =
            if id % 3 == 0 { (eicar(), found("stream")) } else { (b"hello".to_vec(), "stream: OK".to_owned()) };
        bytes.extend(instream(&content));
        expected.push(format!("{id}: {answer}"));
    }
    bytes.extend(b"zEND\0");
    let reply = say(&path, &bytes);
    let mut lines: Vec<&str> = reply.split_terminator('\0').collect();
    lines.sort_unstable();
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn descriptors() {
    let service = start(&[]).await;
    let path = socket(&service);
    let dir = service.dir.path();
    let file = |name: &str, content: &[u8]| {
        fs::write(dir.join(name), content).unwrap();
        File::open(dir.join(name)).unwrap()
    };
    let (infected, clean, empty) = (file("infected", &eicar()), file("clean", b"hello"), file("empty", b""));
    let encrypted = file("encrypted", &samples::encrypted_zip("a", b"secret"));
    let large = file("large", &[b"PK".to_vec(), samples::noise(3_000_000)].concat());
    let (folder, pipe) = (File::open(dir).unwrap(), std::io::pipe().unwrap().0);
    let unreadable = File::options().append(true).open(dir.join("infected")).unwrap();
    let mut read_to_the_end = File::open(dir.join("infected")).unwrap();
    std::io::copy(&mut read_to_the_end, &mut std::io::sink()).unwrap();
    let more = "More than one file descriptor received. ERROR\0";
    let protocol = "PROTOCOL ERROR: ancillary data sent without FILDES. ERROR\n";
    for (command, descriptors, carrier, expected) in [
        ("zFILDES\0", vec![infected.as_fd()], "\0", format!("{}\0", found("fd[N]"))),
        ("nFILDES\n", vec![infected.as_fd()], "x", format!("{}\n", found("fd[N]"))),
        ("FILDES\n", vec![infected.as_fd()], "\0", format!("{}\n", found("fd[N]"))),
        ("", vec![infected.as_fd()], "zFILDES\0\0", format!("{}\0", found("fd[N]"))),
        ("zFILDES\0", vec![read_to_the_end.as_fd()], "\0", format!("{}\0", found("fd[N]"))),
        ("zFILDES\0", vec![clean.as_fd()], "\0", "fd[N]: OK\0".into()),
        ("zFILDES\0", vec![large.as_fd()], "\0", "fd[N]: OK\0".into()),
        ("zFILDES\0", vec![encrypted.as_fd()], "\0", "fd[N]: Clamgate.Unscannable.ENCRYPTED.Zip FOUND\0".into()),
        ("zFILDES\0", vec![empty.as_fd()], "\0", "fd[N]: OK\0".into()),
        ("zFILDES\0", vec![folder.as_fd()], "\0", "fd[N]: Not a regular file ERROR\0".into()),
        ("zFILDES\0", vec![pipe.as_fd()], "\0", "fd[N]: Not a regular file ERROR\0".into()),
        ("zFILDES\0", vec![unreadable.as_fd()], "\0", "fd[N]: Bad file descriptor. ERROR\0".into()),
        ("zFILDES\0", vec![], "\0", "No file descriptor received. ERROR\0".into()),
        ("zFILDES\0", vec![clean.as_fd(), infected.as_fd()], "\0", more.into()),
        ("zFILDES\0", vec![clean.as_fd(); 16], "\0", more.into()),
        ("zIDSESSION\0zPING\0", vec![clean.as_fd()], "z", format!("1: PONG\0{protocol}")),
        ("zINSTREAM\0", vec![clean.as_fd(); 16], "\0\0", protocol.into()),
        (
            "zIDSESSION\0zFILDES\0",
            vec![infected.as_fd()],
            "\0zFILDES\0x",
            format!("2: No file descriptor received. ERROR\x001: {}\0", found("fd[N]")),
        ),
    ] {
        let mut stream = connect(&path);
        stream.write_all(command.as_bytes()).unwrap();
        pass(&stream, carrier.as_bytes(), &descriptors);
        let reply = String::from_utf8(rest(stream)).unwrap();
        let mut lines: Vec<_> = without_numbers(&reply).split_inclusive(['\0', '\n']).map(str::to_owned).collect();
        let mut expected: Vec<_> = expected.split_inclusive(['\0', '\n']).map(str::to_owned).collect();
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{command:?} {} {carrier:?}", descriptors.len());
    }
    // Given up half way.
    let stream = connect(&path);
    pass(&stream, b"zFILDE", &[clean.as_fd()]);
    drop(stream);
    let passed = ["infected", "clean", "empty", "encrypted", "large"].map(|name| dir.join(name));
    let is_passed = |path: &PathBuf| passed.contains(path);
    wait::until("all descriptors to be closed", || async { (!open_files(&service).iter().any(is_passed)).then_some(()) }).await;
    assert_eq!(say(&path, b"zFILDES\0x"), "No file descriptor received. ERROR\0");
}

#[tokio::test]
async fn files_and_directories() {
    let service = start(&[("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "1000000")]).await;
    let path = socket(&service);
    let root = service.dir.path().join("files");
    let at = |name: &str| root.join(name).display().to_string();
    for folder in ["clean", "mixed/sub", "broken", "none", "big", "deep"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    write("clean/a", b"hello");
    write("clean/empty", b"");
    write("clean/b", b"world");
    write("mixed/x", &eicar());
    write("mixed/evil\nname: OK", &eicar());
    write("mixed/sub/y", &eicar());
    write(
        "mixed/both.zip",
        &samples::zip(&[("e", &eicar()), ("c", &fs::read("/usr/share/clamav-testfiles/clam.exe").unwrap())]),
    );
    write("mixed/ok", b"fine");
    write("big/zeros", &vec![0; 1_000_001]);
    write("big/locked.zip", &samples::encrypted_zip("a", b"secret"));
    symlink("mixed/x", root.join("link")).unwrap();
    symlink("mixed", root.join("folder-link")).unwrap();
    symlink("nothing", root.join("dangling")).unwrap();
    symlink(root.join("mixed/x"), root.join("clean/link")).unwrap();
    symlink(&root, root.join("clean/loop")).unwrap();
    fs::create_dir_all(root.join("deep").join("d/".repeat(40))).unwrap();
    let _fifo = UnixListener::bind(root.join("clean/special")).unwrap();

    let names =
        |name: &str, names: &[&str]| names.iter().map(|found| format!("{}: {found} FOUND", at(name))).collect::<Vec<_>>();
    let (both, one) = (["Clamav.Test.File-6.UNOFFICIAL", EICAR_NAME], ["Clamav.Test.File-6.UNOFFICIAL"]);
    let mixed = [names("mixed/x", &[EICAR_NAME]), names("mixed/sub/y", &[EICAR_NAME])].concat();
    let hostile = vec![format!("{}: {EICAR_NAME} FOUND", at("mixed/evil\\nname\\u{3a} OK"))];
    let ok = |name: &str| vec![format!("{}: OK", at(name))];
    let error = |name: &str, text: &str| vec![format!("{}: {text} ERROR", at(name))];
    let missing = "File path check failure: No such file or directory.";
    let relative = "File path check failure: The path is not absolute.";
    let all_mixed = [mixed.clone(), hostile.clone(), names("mixed/both.zip", &one)].concat();
    for (command, name, expected) in [
        ("SCAN", "mixed/x", names("mixed/x", &[EICAR_NAME])),
        ("SCAN", "mixed/evil\nname: OK", hostile),
        ("SCAN", "clean/a", ok("clean/a")),
        ("SCAN", "clean/empty", ok("clean/empty")),
        ("SCAN", "clean", ok("clean")),
        ("CONTSCAN", "clean", ok("clean")),
        ("MULTISCAN", "clean", ok("clean")),
        ("ALLMATCHSCAN", "clean", ok("clean")),
        ("MULTISCAN", "none", ok("none")),
        ("CONTSCAN", "mixed", all_mixed.clone()),
        ("MULTISCAN", "mixed", all_mixed.clone()),
        ("SCAN", "mixed/both.zip", names("mixed/both.zip", &one)),
        ("ALLMATCHSCAN", "mixed/both.zip", names("mixed/both.zip", &both)),
        ("SCAN", "missing", error("missing", missing)),
        ("MULTISCAN", "dangling", error("dangling", missing)),
        // clamd says OK of these, and has looked at nothing.
        ("SCAN", "link", names("link", &[EICAR_NAME])),
        ("CONTSCAN", "folder-link/sub", names("folder-link/sub/y", &[EICAR_NAME])),
        ("SCAN", "clean/special", error("clean/special", "Not supported file type")),
        ("CONTSCAN", "deep", error(&format!("deep{}", "/d".repeat(32)), "Directory recursion limit reached.")),
        (
            "CONTSCAN",
            "big",
            [
                names("big/zeros", &["Clamgate.Unscannable.TOO_LARGE.MaxFileSize"]),
                names("big/locked.zip", &["Clamgate.Unscannable.ENCRYPTED.Zip"]),
            ]
            .concat(),
        ),
    ] {
        let reply = say(&path, format!("z{command} {}\0", at(name)).as_bytes());
        let mut lines: Vec<&str> = reply.split_terminator('\0').collect();
        let mut expected: Vec<String> = expected;
        lines.sort_unstable();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{command} {name}");
    }
    for command in ["SCAN", "ALLMATCHSCAN"] {
        let reply = say(&path, format!("n{command} {}\n", at("mixed")).as_bytes());
        let files: std::collections::BTreeSet<&str> = reply.lines().map(|line| line.rsplit_once(": ").unwrap().0).collect();
        assert_eq!(files.len(), 1, "{command} stops at the first file: {reply}");
    }
    assert_eq!(say(&path, b"nSCAN clean/a\n"), format!("clean/a: {relative} ERROR\n"));
    assert_eq!(say(&path, b"nSCAN /dev/null\n"), "/dev/null: Not supported file type ERROR\n");
    let mut tcp = TcpStream::connect(address(&service).await).unwrap();
    tcp.write_all(format!("nSCAN {}\n", at("mixed/x")).as_bytes()).unwrap();
    let refused = error("mixed/x", "Paths are not taken over TCP; send the file with INSTREAM.");
    assert_eq!(String::from_utf8(rest(tcp)).unwrap(), format!("{}\n", refused[0]));
}

#[tokio::test]
async fn paths_over_tcp_when_allowed() {
    let service = start(&[("CLAMGATE_CLAMD__ALLOW_PATHS_OVER_TCP", "true")]).await;
    let file = service.dir.path().join("file");
    fs::write(&file, eicar()).unwrap();
    let mut tcp = TcpStream::connect(address(&service).await).unwrap();
    tcp.write_all(format!("nSCAN {}\n", file.display()).as_bytes()).unwrap();
    assert_eq!(String::from_utf8(rest(tcp)).unwrap(), format!("{}\n", found(&file.display().to_string())));
}

/// Some clients write all before they read, some read while they write: both learn it.
/// A client of the old kind sends all of it, whatever the server says.
#[tokio::test]
async fn reloads_do_not_disturb() {
    let service = start(&[]).await;
    let path = socket(&service);
    for reload in 1..=3 {
        assert_eq!(say(&path, b"RELOAD"), "RELOADING\n");
        for _ in 0..20 {
            assert_eq!(say(&path, &instream(&eicar())), format!("{}\0", found("stream")));
        }
        service.until_logged("definitions reloaded", reload).await;
    }
}

#[tokio::test]
async fn shutdown_when_allowed() {
    let mut service = start(&[("CLAMGATE_CLAMD__ALLOW_SHUTDOWN", "true")]).await;
    assert_eq!(say(&socket(&service), b"nSHUTDOWN\n"), "");
    assert_eq!(service.until_ended().await.code(), Some(0));
    assert!(!socket(&service).exists());
}

#[tokio::test]
async fn at_the_end_what_is_under_way_is_finished() {
    let mut service = start(&[("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "600"), ("CLAMGATE_SERVICE__GRACE_SECS", "100")]).await;
    let path = socket(&service);
    let idle = connect(&path);
    let mut session = connect(&path);
    let mut slow = connect(&path);
    session.write_all(&[b"zIDSESSION\0".to_vec(), instream(&samples::slow(8))].concat()).unwrap();
    let stream = instream(&eicar());
    slow.write_all(&stream[..40]).unwrap();
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    service.signal("TERM");
    assert!(rest(idle).is_empty());
    wait::until("the socket to be gone", || async { (!path.exists()).then_some(()) }).await;
    slow.write_all(&stream[40..]).unwrap();
    assert_eq!(rest(slow), format!("{}\0", found("stream")).into_bytes());
    assert_eq!(rest(session), b"1: stream: OK\0");
    assert_eq!(service.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn at_the_end_what_takes_too_long_is_dropped() {
    let mut service = start(&[("CLAMGATE_SERVICE__GRACE_SECS", "1"), ("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "600")]).await;
    let mut stuck = connect(&socket(&service));
    stuck.write_all(b"zINSTREAM\0\0\0\0\x05he").unwrap();
    let mut scanning = connect(&socket(&service));
    scanning.write_all(&instream(&samples::slow(400))).unwrap();
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    service.signal("TERM");
    assert!(rest(stuck).is_empty(), "no verdict");
    assert!(rest(scanning).is_empty(), "no verdict");
    assert_eq!(service.until_ended().await.code(), Some(0));
}

#[tokio::test]
async fn the_socket_file() {
    let mut service = Service::local(&[SOCKET, ("CLAMGATE_CLAMD__SOCKET_MODE", "600")]);
    let path = socket(&service);
    // Left behind by one that was killed.
    drop(UnixListener::bind(&path).unwrap());
    service.spawn();
    service.until_ready().await;
    wait::until("the socket", || async { UnixStream::connect(&path).ok() }).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    for (occupied, why) in [(path.clone(), "another process listens on it"), (service.database("test.hdb"), "is no socket")] {
        let mut second = Service::local(&[("CLAMGATE_CLAMD__SOCKET", occupied.to_str().unwrap())]);
        second.spawn();
        assert_eq!(second.until_ended().await.code(), Some(2));
        let error = second.until_logged("cannot go on", 1).await.remove(0);
        assert!(error["error"].as_str().unwrap().contains(why), "{error}");
        assert!(occupied.exists());
    }
    assert_eq!(say(&path, b"zPING\0"), "PONG\0");
}
