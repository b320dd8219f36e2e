//! PostgreSQL as Debian packs it, in directories of the tests' own.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::geteuid;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use tempfile::TempDir;

use crate::wait;

pub const PASSWORD: &str = "s3cret/word";

/// A server on a port and a Unix socket, with a certificate for `localhost` (not for 127.0.0.1) by an authority of its own.
pub struct Postgres {
    dir: PathBuf,
    port: u16,
    /// Ends the server when its standard input ends.
    guard: Option<Child>,
    /// Removes the directory in the end, but for the server that lives as long as this process.
    _dir: Option<TempDir>,
}

/// One server for all tests of this binary; it ends with this process.
pub fn shared() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut server = Postgres::new();
        let _ = server._dir.take().unwrap().keep();
        server.start_and("cd /; rm -rf \"$dir\"");
        server
    })
}

impl Postgres {
    /// A server that does not run yet.
    pub fn new() -> Self {
        // Not below the target directory: a socket's path must be short.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        certificates(&path);
        let mut password = fs::File::create(path.join("password")).unwrap();
        writeln!(password, "{PASSWORD}").unwrap();
        give_away(&path);
        for name in ["server.key", "server.pem", "password"] {
            give_away(&path.join(name));
        }
        let server = Self { dir: path, port, guard: None, _dir: Some(dir) };
        let mut initdb = server.program("initdb");
        initdb.args(["--username=postgres", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]);
        initdb.arg("--pwfile").arg(server.dir.join("password")).arg("-D").arg(server.dir.join("data"));
        run(&mut initdb);
        server
    }

    /// Starts it, again or for the first time.
    pub fn start(&mut self) {
        self.start_and("true");
    }

    fn start_and(&mut self, in_the_end: &str) {
        let script = format!(r#""$@" & server=$!; read -r _; kill -QUIT $server; wait $server; {in_the_end}"#);
        let mut postgres = self.program("postgres");
        postgres.arg("-D").arg(self.dir.join("data")).arg("-k").arg(&self.dir).args(["-p", &self.port.to_string()]);
        let certificate = format!("ssl_cert_file={}", self.dir.join("server.pem").display());
        let key = format!("ssl_key_file={}", self.dir.join("server.key").display());
        for setting in ["listen_addresses=127.0.0.1", "ssl=on", "fsync=off", &certificate, &key] {
            postgres.args(["-c", setting]);
        }
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut guard = Command::new("sh");
        guard.args(["-c", &script, "sh"]).arg(postgres.get_program()).args(postgres.get_args());
        guard.current_dir("/").env("dir", &self.dir).stdin(Stdio::piped());
        self.guard = Some(guard.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }

    /// A database of its own for a test, when the server runs.
    pub async fn database(&'static self) -> Database {
        self.make_database().await
    }

    /// As [`Self::database`], on a server of the test's own.
    pub async fn make_database(&self) -> Database {
        static DATABASES: AtomicU32 = AtomicU32::new(0);
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let mut connection = wait::until("PostgreSQL", || async { self.options("postgres").connect().await.ok() }).await;
        connection.execute(AssertSqlSafe(format!("create database {name}"))).await.unwrap();
        connection.close().await.unwrap();
        Database { name: name.clone(), dir: self.dir.clone(), port: self.port, options: self.options(&name) }
    }

    fn options(&self, database: &str) -> PgConnectOptions {
        let options = PgConnectOptions::new_without_pgpass().socket(&self.dir).port(self.port).database(database);
        options.username("postgres").password(PASSWORD).application_name("the test").disable_statement_logging()
    }

    /// A program of PostgreSQL's, which refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let found = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
        let found = found.filter_map(|version| Some(version.ok()?.path().join("bin").join(name)).filter(|path| path.exists()));
        let program = found.max().expect("PostgreSQL is missing: run `make setup`");
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(&self.dir);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A test's own database.
pub struct Database {
    pub name: String,
    dir: PathBuf,
    port: u16,
    options: PgConnectOptions,
}

impl Database {
    /// The URL for an account, through the Unix socket.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let [password, dir] = [password, self.dir.to_str().unwrap()].map(|text| text.replace('/', "%2F"));
        format!("postgres://{user}:{password}@{dir}:{}/{}", self.port, self.name)
    }

    pub fn url(&self) -> String {
        self.url_of("postgres", PASSWORD)
    }

    /// The URL through TCP.
    pub fn tcp_url(&self, host: &str) -> String {
        format!("postgres://postgres:{}@{host}:{}/{}", PASSWORD.replace('/', "%2F"), self.port, self.name)
    }

    /// A file beside the server's: `ca.pem`, `other.pem`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub async fn connect(&self) -> PgConnection {
        self.options.connect().await.unwrap()
    }

    /// Runs statements.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        connection.execute(AssertSqlSafe(sql.to_owned())).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// The rows of a query as JSON.
    pub async fn rows(&self, query: &str) -> Vec<serde_json::Value> {
        let query = format!("select to_jsonb(found) from ({}) found", query.trim().trim_end_matches(';'));
        let rows: Vec<(serde_json::Value,)> =
            sqlx::query_as(AssertSqlSafe(query)).fetch_all(&mut self.connect().await).await.unwrap();
        rows.into_iter().map(|(row,)| row).collect()
    }
}

/// An authority, a certificate by it for `localhost`, and another authority.
fn certificates(dir: &Path) {
    let openssl = |arguments: &str| run(Command::new("openssl").args(arguments.split(' ')).current_dir(dir));
    for name in ["ca", "other"] {
        openssl(&format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"));
    }
    openssl("req -newkey rsa:2048 -nodes -subj /CN=server -keyout server.key -out server.csr");
    fs::write(dir.join("names"), "subjectAltName=DNS:localhost\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem");
    fs::set_permissions(dir.join("server.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// To the account that PostgreSQL runs as.
fn give_away(path: &Path) {
    if geteuid().is_root() {
        let users = fs::read_to_string("/etc/passwd").unwrap();
        let user = users.lines().find(|line| line.starts_with("postgres:")).expect("no user postgres: run `make setup`");
        let ids: Vec<u32> = user.split(':').skip(2).take(2).map(|id| id.parse().unwrap()).collect();
        chown(path, Some(ids[0]), Some(ids[1])).unwrap();
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
