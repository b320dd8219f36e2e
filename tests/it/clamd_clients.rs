//! clamd's clients, unchanged.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clamav_client::{Socket, Tcp};

use crate::clamd::{address, connect, socket, start};
use crate::freshclam::Mirror;
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::Service;

/// A configuration for clamdscan and freshclam that has nothing but the address.
async fn configuration(service: &Service, tcp: bool) -> PathBuf {
    let text = if tcp {
        let address = address(service).await;
        format!("TCPAddr {}\nTCPSocket {}\n", address.ip(), address.port())
    } else {
        format!("LocalSocket {}\n", socket(service).display())
    };
    let path = service.dir.path().join(if tcp { "tcp.conf" } else { "clamd.conf" });
    fs::write(&path, text).unwrap();
    path
}

/// The exit code, and the sorted lines of standard output.
fn clamdscan(conf: &Path, arguments: &[&str], stdin: Option<&Path>) -> (Option<i32>, Vec<String>) {
    let mut command = Command::new("/usr/bin/clamdscan");
    command.arg("-c").arg(conf).arg("--no-summary").args(arguments);
    // Through a pipe: clamdscan passes a file as a descriptor.
    command.stdin(stdin.map_or(Stdio::null(), |path| {
        let mut cat = Command::new("cat").arg(path).stdout(Stdio::piped()).spawn().unwrap();
        let pipe = cat.stdout.take().unwrap();
        std::thread::spawn(move || cat.wait());
        pipe.into()
    }));
    let output = command.output().expect("clamdscan is missing: run `make setup`");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    (output.status.code(), lines)
}

fn files(service: &Service) -> PathBuf {
    let root = service.dir.path().join("files");
    fs::create_dir_all(root.join("folder/sub")).unwrap();
    fs::create_dir_all(root.join("clean")).unwrap();
    let clam = fs::read("/usr/share/clamav-testfiles/clam.exe").unwrap();
    for (name, content) in [
        ("eicar", eicar()),
        ("clean/a", b"hello".to_vec()),
        ("clean/b", b"world".to_vec()),
        ("clean/empty", Vec::new()),
        ("folder/x", eicar()),
        ("folder/sub/y", eicar()),
        ("folder/fine", b"fine".to_vec()),
        ("locked.zip", samples::encrypted_zip("a", b"secret")),
        ("both.zip", samples::zip(&[("e", &eicar()), ("c", &clam)])),
        ("large", vec![0; 3_000_000]),
    ] {
        fs::write(root.join(name), content).unwrap();
    }
    symlink("../eicar", root.join("clean/link")).unwrap();
    root
}

const LIMIT: (&str, &str) = ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "2000000");

#[tokio::test]
async fn clamdscan_in_all_its_modes() {
    let service = start(&[LIMIT]).await;
    let (local, tcp) = (configuration(&service, false).await, configuration(&service, true).await);
    let root = files(&service);
    let at = |name: &str| root.join(name).display().to_string();
    let found = |name: &str, signature: &str| format!("{}: {signature} FOUND", at(name));
    let eicar_in = |name: &str| found(name, EICAR_NAME);
    let (locked, too_large) = ("Clamgate.Unscannable.ENCRYPTED.Zip", "Clamgate.Unscannable.TOO_LARGE.MaxFileSize");
    let folder = vec![eicar_in("folder/sub/y"), eicar_in("folder/x")];
    let ways = [
        (&local, vec![]),
        (&local, vec!["--multiscan"]),
        (&local, vec!["--fdpass"]),
        (&local, vec!["--fdpass", "--multiscan"]),
        (&local, vec!["--stream"]),
        (&local, vec!["--stream", "--multiscan"]),
        (&local, vec!["--allmatch"]),
        (&tcp, vec!["--stream"]),
        (&tcp, vec!["--stream", "--multiscan"]),
    ];
    for (conf, flags) in ways {
        for (name, code, expected) in [
            ("eicar", 1, vec![eicar_in("eicar")]),
            ("clean/a", 0, vec![format!("{}: OK", at("clean/a"))]),
            ("clean", 0, vec![format!("{}: OK", at("clean"))]),
            ("folder", 1, folder.clone()),
            ("locked.zip", 1, vec![found("locked.zip", locked)]),
            ("large", 1, vec![found("large", too_large)]),
        ] {
            let path = at(name);
            let arguments = [&flags[..], &[path.as_str()]].concat();
            assert_eq!(clamdscan(conf, &arguments, None), (Some(code), expected), "{arguments:?}");
        }
        if flags != ["--allmatch"] {
            let arguments = [&flags[..], &["-"]].concat();
            let expected = vec![format!("stream: {EICAR_NAME} FOUND")];
            assert_eq!(clamdscan(conf, &arguments, Some(&root.join("eicar"))), (Some(1), expected), "{arguments:?}");
            let (code, _) = clamdscan(conf, &arguments, Some(&root.join("clean/a")));
            assert_eq!(code, Some(0), "{arguments:?}");
        }
    }
    let both = vec![found("both.zip", "Clamav.Test.File-6.UNOFFICIAL"), eicar_in("both.zip")];
    assert_eq!(clamdscan(&local, &["--allmatch", &at("both.zip")], None), (Some(1), both));
    // A path says nothing to a server elsewhere.
    assert_eq!(clamdscan(&tcp, &[&at("eicar")], None).0, Some(2));

    assert_eq!(clamdscan(&local, &["--ping", "1"], None), (Some(0), vec!["PONG".to_owned()]));
    let version = vec![format!("ClamAV {}", clamgate::engine::libclamav_version())];
    assert_eq!(clamdscan(&local, &["--version"], None), (Some(0), version));
    assert_eq!(clamdscan(&local, &["--reload"], None).0, Some(0));
    service.until_logged("definitions reloaded", 1).await;
}

#[tokio::test]
async fn clamdscan_of_many_files_in_one_session() {
    let service = start(&[]).await;
    let conf = configuration(&service, false).await;
    let dir = service.dir.path().join("many");
    fs::create_dir(&dir).unwrap();
    for n in 0..400 {
        let content = if n % 10 == 0 { eicar() } else { samples::noise(1000 + n) };
        fs::write(dir.join(n.to_string()), content).unwrap();
    }
    for flag in ["--stream", "--fdpass"] {
        let (code, lines) = clamdscan(&conf, &[flag, "--multiscan", dir.to_str().unwrap()], None);
        assert_eq!((code, lines.len()), (Some(1), 40), "{flag}: {lines:#?}");
    }
}

const PYTHON: &str = r#"
import io, json, sys
import clamd
socket, host, port, root = sys.argv[1:]
out = []
for client in (clamd.ClamdUnixSocket(socket), clamd.ClamdNetworkSocket(host, int(port))):
    with open(root + '/eicar', 'rb') as infected, open(root + '/locked.zip', 'rb') as locked, open(root + '/large', 'rb') as large:
        out.append([client.ping(), client.version(), client.reload(), client.stats().splitlines()[2], client.shutdown(),
            client.instream(infected), client.instream(io.BytesIO(b'hello')), client.instream(locked), client.instream(large)])
local = clamd.ClamdUnixSocket(socket)
out.append([local.scan(root + '/eicar'), local.contscan(root + '/folder'), local.multiscan(root + '/clean'), local.scan('/missing')])
print(json.dumps(out))
"#;

#[tokio::test]
async fn the_package_clamd_of_pypi() {
    let service = start(&[LIMIT]).await;
    let (root, address) = (files(&service), address(&service).await);
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    let output = Command::new(python)
        .args(["-B", "-W", "ignore", "-c", PYTHON])
        .arg(socket(&service))
        .args([address.ip().to_string(), address.port().to_string()])
        .arg(&root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = format!("ClamAV {}", clamgate::engine::libclamav_version());
    let both_ways = serde_json::json!([
        "PONG", version, "RELOADING", "STATE: VALID PRIMARY", null,
        {"stream": ["FOUND", EICAR_NAME]},
        {"stream": ["OK", null]},
        {"stream": ["FOUND", "Clamgate.Unscannable.ENCRYPTED.Zip"]},
        {"stream": ["FOUND", "Clamgate.Unscannable.TOO_LARGE.MaxFileSize"]},
    ]);
    let at = |name: &str| root.join(name).display().to_string();
    let paths = serde_json::json!([
        {at("eicar"): ["FOUND", EICAR_NAME]},
        {at("folder/x"): ["FOUND", EICAR_NAME], at("folder/sub/y"): ["FOUND", EICAR_NAME]},
        {at("clean"): ["OK", null]},
        {"/missing: File path check failure": ["ERROR", "No such file or directory."]},
    ]);
    assert_eq!(found, serde_json::json!([both_ways, both_ways, paths]));
}

#[tokio::test]
async fn the_crate_clamav_client() {
    for (how, locked_text, large_text) in [
        (
            "found",
            "stream: Clamgate.Unscannable.ENCRYPTED.Zip FOUND\0",
            "stream: Clamgate.Unscannable.TOO_LARGE.MaxFileSize FOUND\0",
        ),
        ("error", "stream: Not scanned completely, ENCRYPTED Zip ERROR\0", "INSTREAM size limit exceeded. ERROR\0"),
    ] {
        let service = start(&[LIMIT, ("CLAMGATE_CLAMD__UNSCANNABLE", how)]).await;
        let (path, host_address) = (socket(&service), address(&service).await);
        let (local, tcp) = (Socket { socket_path: path.as_path() }, Tcp { host_address });
        assert_eq!(clamav_client::ping(local).unwrap(), clamav_client::PONG);
        assert_eq!(clamav_client::ping(tcp).unwrap(), clamav_client::PONG);
        assert_eq!(clamav_client::reload(tcp).unwrap(), clamav_client::RELOADING);
        assert!(clamav_client::get_version(local).unwrap().starts_with(b"ClamAV "));
        let locked = samples::encrypted_zip("a", b"secret");
        for (content, text, clean) in [
            (&eicar()[..], format!("stream: {EICAR_NAME} FOUND\0"), false),
            (b"hello", "stream: OK\0".to_owned(), true),
            (b"", "stream: OK\0".to_owned(), true),
            (&locked, locked_text.to_owned(), false),
            (&vec![0; 3_000_000], large_text.to_owned(), false),
        ] {
            for reply in [
                clamav_client::scan_buffer(content, local, None).unwrap(),
                clamav_client::scan_buffer(content, tcp, Some(100_000)).unwrap(),
            ] {
                assert_eq!(String::from_utf8(reply.clone()).unwrap(), text, "{how}");
                assert_eq!(clamav_client::clean(&reply).unwrap(), clean, "{how}: {text}");
            }
        }
    }
}

/// What xenolope/quahog 3 (PHP) sends, byte for byte, each piece by itself, and one read for the reply. It closes nothing before.
#[tokio::test]
async fn the_bytes_of_quahog_for_php() {
    let service = start(&[LIMIT]).await;
    let root = files(&service);
    let path = |name: &str| root.join(name).display().to_string();
    let read = |name: &str| fs::read(root.join(name)).unwrap();
    let command = |text: &str| vec![format!("n{text}\n").into_bytes()];
    let stream = |content: &[u8]| {
        let mut pieces = command("INSTREAM");
        for chunk in content.chunks(1024) {
            pieces.push(u32::try_from(chunk.len()).unwrap().to_be_bytes().to_vec());
            pieces.push(chunk.to_vec());
        }
        pieces.push(vec![0; 4]);
        pieces
    };
    let session = |pieces: Vec<Vec<u8>>| [command("IDSESSION"), pieces].concat();
    let found = format!("stream: {EICAR_NAME} FOUND\n");
    for (pieces, expected) in [
        (command("PING"), "PONG\n".to_owned()),
        (command("RELOAD"), "RELOADING\n".to_owned()),
        (stream(b"hello"), "stream: OK\n".to_owned()),
        (stream(&eicar()), found.clone()),
        (stream(&samples::noise(100_000)), "stream: OK\n".to_owned()),
        (stream(&read("locked.zip")), "stream: Clamgate.Unscannable.ENCRYPTED.Zip FOUND\n".to_owned()),
        (stream(&read("large")), "stream: Clamgate.Unscannable.TOO_LARGE.MaxFileSize FOUND\n".to_owned()),
        (session(command("PING")), "1: PONG\n".to_owned()),
        (session(stream(&eicar())), format!("1: {found}")),
        (command(&format!("SCAN {}", path("eicar"))), format!("{}: {EICAR_NAME} FOUND\n", path("eicar"))),
        (command(&format!("CONTSCAN {}", path("clean"))), format!("{}: OK\n", path("clean"))),
        (command(&format!("MULTISCAN {}", path("clean"))), format!("{}: OK\n", path("clean"))),
    ] {
        let mut client = connect(&socket(&service));
        for piece in &pieces {
            // A stream that is refused is read to its end all the same.
            client.write_all(piece).unwrap();
        }
        let mut reply = [0; 4096];
        let count = client.read(&mut reply).unwrap();
        assert_eq!(String::from_utf8_lossy(&reply[..count]), expected);
    }
}

/// What appwrite/php-clamav sends: commands without any terminator.
#[tokio::test]
async fn the_bytes_of_appwrite_php_clamav() {
    let service = start(&[]).await;
    let root = files(&service);
    let forged = root.join("x:OK");
    fs::write(&forged, eicar()).unwrap();
    let clean = root.join("clean/a");
    for (command, expected) in [
        ("PING".to_owned(), "PONG\n".to_owned()),
        (format!("SCAN {}", clean.display()), format!("{}: OK\n", clean.display())),
        // It looks between the first two colons.
        (format!("SCAN {}", forged.display()), format!("{}/x\\u{{3a}}OK: {EICAR_NAME} FOUND\n", root.display())),
    ] {
        let mut client = connect(&socket(&service));
        client.write_all(command.as_bytes()).unwrap();
        let mut reply = [0; 4096];
        let count = client.read(&mut reply).unwrap();
        assert_eq!(String::from_utf8_lossy(&reply[..count]), expected);
    }
}

/// freshclam tells clamd of what it has fetched; here the service is told, and looks at nothing by itself.
#[tokio::test]
async fn freshclam_notifies() {
    let service = start(&[]).await;
    let mirror = Mirror::default();
    mirror.publish(6);
    let url = mirror.start().await;
    let user = Command::new("id").arg("-un").output().unwrap();
    for tcp in [false, true] {
        let clamd = configuration(&service, tcp).await;
        if tcp {
            mirror.publish(5);
            fs::remove_file(service.database("daily.cvd")).unwrap();
        }
        let text = format!(
            "PrivateMirror {url}\nScriptedUpdates no\nDatabaseOwner {}DatabaseDirectory {}\nNotifyClamd {}\n",
            String::from_utf8(user.stdout.clone()).unwrap(),
            service.dir.path().join("db").display(),
            clamd.display(),
        );
        let conf = service.dir.path().join("freshclam.conf");
        fs::write(&conf, text).unwrap();
        let output = tokio::process::Command::new("freshclam").arg("--config-file").arg(&conf).output().await.unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        assert!(said.contains("Clamd successfully notified about the update."), "{said}");
        let lines = service.until_logged("definitions reloaded", 1 + usize::from(tcp)).await;
        assert!(lines.last().unwrap()["version"].as_u64().unwrap() > 0, "{lines:?}");
        let (code, version) = clamdscan(&clamd, &["--version"], None);
        assert_eq!(code, Some(0));
        assert_eq!(version[0].split('/').count(), 3, "engine, version and time: {version:?}");
    }
}
