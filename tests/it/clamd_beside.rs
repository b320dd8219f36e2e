//! Beside a real clamd: the same bytes in, the same bytes out, but where clamd is wrong.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::clamd::{ask, chunks, connect, instream, pass, rest, socket, start, without_numbers};
use crate::samples::eicar;
use crate::service::signatures;
use crate::wait;

/// A real clamd on the test signatures.
pub struct Clamd {
    pub dir: TempDir,
    child: Child,
}

impl Clamd {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let conf = format!(
            "Foreground yes\nLocalSocket {}\nDatabaseDirectory {}\nCommandReadTimeout 2\nReadTimeout 2\nStreamMaxLength 1M\nMaxThreads 4\nUser {user}",
            dir.path().join("clamd.ctl").display(),
            signatures().display(),
        );
        fs::write(dir.path().join("clamd.conf"), conf).unwrap();
        let child = Command::new("/usr/sbin/clamd")
            .arg("-c")
            .arg(dir.path().join("clamd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("clamd is missing: run `make setup`");
        let clamd = Self { dir, child };
        wait::until("clamd", || async { UnixStream::connect(clamd.socket()).ok() }).await;
        clamd
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("clamd.ctl")
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line each, in an order of their own: sessions and directories answer in any.
fn normal(reply: &[u8]) -> Vec<String> {
    let text = without_numbers(std::str::from_utf8(reply).unwrap());
    let mut lines: Vec<String> = text.split_inclusive(['\0', '\n']).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn the_same_bytes() {
    let clamd = Clamd::start().await;
    let ours = start(&[
        ("CLAMGATE_CLAMD__READ_TIMEOUT_SECS", "2"),
        ("CLAMGATE_CLAMD__IDLE_TIMEOUT_SECS", "2"),
        ("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "1048576"),
        ("CLAMGATE_CLAMD__UNSCANNABLE", "error"),
    ])
    .await;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    for folder in ["clean", "mixed/sub"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    for (name, content) in [("clean/a", &b"hello"[..]), ("mixed/x", &eicar()), ("mixed/sub/y", &eicar()), ("mixed/z", b"fine")]
    {
        fs::write(dir.path().join(name), content).unwrap();
    }

    let mut table: Vec<Vec<u8>> = [
        &b"PING"[..],
        b"PING\n",
        b"PING\r\n",
        b"PING x",
        b"nPING\n",
        b"nPING\r\n",
        b"nPING \n",
        b"zPING\0",
        b"zPING\n\0",
        b"zping\0",
        b"zPING\0zPING\0",
        b"nPING\nzVERSION\0",
        b"\n",
        b"\0",
        b"n\n",
        b"z\0",
        b"FOO",
        b"nFOO\n",
        b"zFOO\0",
        b"VERSION",
        b"nVERSION\n",
        b"zVERSION\0",
        b"VERSIONCOMMANDS\n",
        b"nVERSIONCOMMANDS\n",
        b"zVERSIONCOMMANDS\0",
        b"RELOAD",
        b"nRELOAD\n",
        b"zRELOAD\0",
        b"STATS\n",
        b"END",
        b"nEND\n",
        b"IDSESSION",
        b"nDETSTATS\n",
        b"nDETSTATSCLEAR\n",
        b"SCAN",
        b"nSCAN\n",
        b"nSCAN /missing\n",
        b"SCAN /missing",
        b"zCONTSCAN /missing\0",
        b"zMULTISCAN /missing\0",
        b"zALLMATCHSCAN /missing\0",
        b"ALLMATCHSCAN /missing",
        b"INSTREAM",
        b"nINSTREAM x\n",
        b"zFILDES\0x",
        b"zIDSESSION\0zPING\0zVERSION\0zEND\0",
        b"zIDSESSION\0nPING\nzPING\0nEND\n",
        b"zIDSESSION\0zEND\0zPING\0",
        b"zIDSESSION\0zCONTSCAN /\0zPING\0",
        b"zIDSESSION\0zMULTISCAN /\0",
        b"zIDSESSION\0zALLMATCHSCAN /\0",
        b"zIDSESSION\0zRELOAD\0",
        b"zIDSESSION\0zSHUTDOWN\0",
        b"zIDSESSION\0zFOO\0zPING\0",
        b"nIDSESSION\nnIDSESSION\n",
        b"zIDSESSION\0zVERSIONCOMMANDS\0zEND\0",
        b"zIDSESSION\0zSCAN /missing\0zEND\0",
        b"zIDSESSION\0zFILDES\0x",
        b"zIDSESSION\0zINSTREAM\0\xff\xff\xff\xff",
        b"zINSTREAM\0\0\0\0\0",
        b"zINSTREAM\0\xff\xff\xff\xff",
        b"zINSTREAM\0\0\0\0\x05he",
        b"nIDSESSION\n",
        b"zPING",
        b"",
        b"zIDSESSION\0zPING\0",
    ]
    .map(<[u8]>::to_vec)
    .into();
    table.push(instream(&eicar()));
    table.push(instream(b"hello world"));
    table.push([&b"nINSTREAM\n"[..], &chunks(&eicar().chunks(11).collect::<Vec<_>>())].concat());
    table.push([b"nIDSESSION\n".to_vec(), instream(b"hello"), instream(&eicar()), b"nEND\n".to_vec()].concat());
    table.push([b"zSCAN /".to_vec(), vec![b'a'; 4096], b"\0".to_vec()].concat());
    table.push([b"n".to_vec(), vec![b'A'; 4000], b"\n".to_vec()].concat());
    for command in ["SCAN", "CONTSCAN", "MULTISCAN", "ALLMATCHSCAN"] {
        for name in ["clean", "clean/", "clean/a", "mixed/x", "mixed/sub", "clean/../clean//a"] {
            table.push(format!("z{command} {}\0", at(name)).into_bytes());
        }
    }
    for command in ["CONTSCAN", "MULTISCAN"] {
        table.push(format!("n{command} {}\n", at("mixed")).into_bytes());
    }
    let compare = |bytes: &[u8]| {
        let (theirs, ours) = (ask_all(&clamd.socket(), bytes), ask_all(&socket(&ours), bytes));
        assert_eq!(normal(&ours), normal(&theirs), "{:?}", String::from_utf8_lossy(&bytes[..bytes.len().min(100)]));
    };
    table.iter().for_each(|bytes| compare(bytes));

    let (infected, folder) = (File::open(dir.path().join("mixed/x")).unwrap(), File::open(dir.path()).unwrap());
    for (command, descriptor) in [
        ("zFILDES\0", &infected),
        ("nFILDES\n", &infected),
        ("FILDES\n", &infected),
        ("zFILDES\0", &folder),
        ("zIDSESSION\0zFILDES\0", &infected),
    ] {
        let replies = [clamd.socket(), socket(&ours)].map(|path| {
            let mut stream = connect(&path);
            stream.write_all(command.as_bytes()).unwrap();
            pass(&stream, b"\0", &[descriptor.as_fd()]);
            normal(&rest(stream))
        });
        assert_eq!(replies[0], replies[1], "{command}");
    }
}

/// As [`ask`]; where clamd closes with bytes unread, its reply counts, and not how the connection ends.
fn ask_all(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(path);
    if stream.write_all(bytes).is_err() {
        return ask(path, &bytes[..bytes.len().min(64)]);
    }
    rest(stream)
}
