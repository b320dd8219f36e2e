//! The real program as a child process, with a directory of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use clamgate::health::Health;
use tempfile::TempDir;

use crate::aws::{self, Aws};
use crate::wait;

/// The test signatures: EICAR, and ClamAV's test file.
pub fn signatures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/signatures")
}

/// The program, without anything of this machine's configuration.
pub fn clamgate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clamgate"));
    command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

/// A service that runs, or ran.
pub struct Service {
    pub dir: TempDir,
    environment: Vec<(String, String)>,
    /// Shell commands before the program.
    setup: String,
    child: Option<Child>,
}

impl Service {
    /// A service on the test's queue, that promotes, quarantines and reports; `settings` are added to its environment.
    pub fn new(aws: &Aws, settings: &[(&str, &str)]) -> Self {
        let of_queue: [(&str, &str); 5] = [
            ("CLAMGATE_QUEUE__URL", &aws.queue),
            ("CLAMGATE_QUEUE__WAIT_SECS", "1"),
            ("CLAMGATE_REPORT__QUEUE_URL", &aws.results),
            ("CLAMGATE_ACTIONS__PROMOTE_TO", &format!("s3://{}", aws.clean)),
            ("CLAMGATE_ACTIONS__QUARANTINE_TO", &format!("s3://{}", aws.quarantine)),
        ];
        let all = aws::environment().into_iter().chain(of_queue).chain(settings.iter().copied());
        Self::local(&all.collect::<Vec<_>>())
    }

    /// A service without a queue, on the HTTP API alone.
    pub fn http(settings: &[(&str, &str)]) -> Self {
        let own = [("CLAMGATE_HTTP__ENABLED", "true"), ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0")];
        Self::local(&own.into_iter().chain(settings.iter().copied()).collect::<Vec<_>>())
    }

    /// A service without a queue and without AWS; in `settings`, `{dir}` is its directory.
    pub fn local(settings: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("db")).unwrap();
        fs::create_dir(dir.path().join("scratch")).unwrap();
        for file in fs::read_dir(signatures()).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), dir.path().join("db").join(file.file_name())).unwrap();
        }
        let own = |path: &str| dir.path().join(path).display().to_string();
        let mut environment: Vec<(String, String)> = [
            ("CLAMGATE_DEFINITIONS__DIR", own("db")),
            ("CLAMGATE_DEFINITIONS__POLL_SECS", "0".to_owned()),
            ("CLAMGATE_SCAN__SCRATCH_DIR", own("scratch")),
            ("CLAMGATE_SCAN__THREADS", "2".to_owned()),
            ("CLAMGATE_LOG__FORMAT", "json".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (name, value) in settings {
            environment.retain(|(other, _)| other != name);
            if !value.is_empty() {
                environment.push(((*name).to_owned(), value.replace("{dir}", &dir.path().display().to_string())));
            }
        }
        Self { dir, environment, setup: String::new(), child: None }
    }

    /// Where it serves the HTTP API, as it says itself.
    pub async fn http_address(&self) -> String {
        self.until_logged("the HTTP API listens", 1).await[0]["address"].as_str().unwrap().to_owned()
    }

    /// A service that is ready.
    pub async fn start(aws: &Aws, settings: &[(&str, &str)]) -> Self {
        let mut service = Self::new(aws, settings);
        service.spawn();
        service.until_ready().await;
        service
    }

    /// A service without a queue that is ready.
    pub async fn start_local(settings: &[(&str, &str)]) -> Self {
        let mut service = Self::local(settings);
        service.spawn();
        service.until_ready().await;
        service
    }

    /// A service without a queue that is ready, and the URL of its HTTP API.
    pub async fn start_http(settings: &[(&str, &str)]) -> (Self, String) {
        let mut service = Self::http(settings);
        service.spawn();
        service.until_ready().await;
        let url = format!("http://{}", service.http_address().await);
        (service, url)
    }

    /// The same on a local AWS, for its uploads and a bucket that does not exist. Nobody reads its queue.
    pub async fn start_http_beside(aws: &Aws, settings: &[(&str, &str)]) -> (Self, String) {
        let buckets = format!("['{}', 'no-such-bucket']", aws.uploads);
        let mut all = vec![
            ("CLAMGATE_HTTP__ENABLED", "true"),
            ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
            ("CLAMGATE_HTTP__S3_BUCKETS", &buckets),
            ("CLAMGATE_QUEUE__URL", ""),
        ];
        all.extend_from_slice(settings);
        let service = Self::start(aws, &all).await;
        let url = format!("http://{}", service.http_address().await);
        (service, url)
    }

    /// A service that is ready, with limits that a shell has set for it.
    pub async fn start_after(aws: &Aws, settings: &[(&str, &str)], setup: &str) -> Self {
        let mut service = Self::new(aws, settings).after(setup);
        service.spawn();
        service.until_ready().await;
        service
    }

    /// Its environment.
    pub fn settings(&self) -> &[(String, String)] {
        &self.environment
    }

    /// With these shell commands before the program.
    pub fn after(mut self, setup: &str) -> Self {
        self.setup = format!("{setup}\n");
        self
    }

    /// Starts the program, again or for the first time.
    pub fn spawn(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("sh");
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.args(["-c", &format!("{}exec \"$0\" serve", self.setup), env!("CARGO_BIN_EXE_clamgate")]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    }

    pub async fn until_ready(&mut self) {
        wait::until("the service to be ready", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            let health = self.health();
            async move {
                assert!(ended.is_none(), "the service ended: {ended:?}");
                health.await.filter(|health| health.ready)
            }
        })
        .await;
    }

    /// What `clamgate health` would get.
    pub fn health(&self) -> impl Future<Output = Option<Health>> + use<> {
        let socket = self.dir.path().join("scratch/clamgate-health.sock");
        async move { clamgate::health::ask(&socket).await.ok() }
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        assert!(Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().unwrap().success());
    }

    /// Waits for the end.
    pub async fn until_ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().unwrap();
        wait::until("the service to end", || {
            let ended = child.try_wait().unwrap();
            async move { ended }
        })
        .await
    }

    /// The log as it was written. Panics without one: a search for what must not be there would find nothing.
    pub fn log_text(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }

    /// The log's lines, parsed.
    pub fn log(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The log's lines with this message.
    pub fn logged(&self, message: &str) -> Vec<serde_json::Value> {
        self.log().into_iter().filter(|line| line["message"] == message).collect()
    }

    /// Waits until the log has `count` lines with this message.
    pub async fn until_logged(&self, message: &str, count: usize) -> Vec<serde_json::Value> {
        wait::until(&format!("{count} log lines {message:?}"), || async {
            Some(self.logged(message)).filter(|lines| lines.len() >= count)
        })
        .await
    }

    pub fn database(&self, file: &str) -> PathBuf {
        self.dir.path().join("db").join(file)
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory_kib("VmRSS")
    }

    /// A line of /proc/PID/status in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            eprintln!("--- the service's log\n{log}---");
        }
    }
}
