//! The configuration: plain documented structs, merged from a TOML file, the environment and flags by [`load`].
//!
//! AWS settings are not here: they come from the standard AWS variables and files (`AWS_ENDPOINT_URL`, profiles, container
//! credentials).

mod actions;
mod clamd;
mod destination;
mod dialect;
mod filter;
mod http;
mod load;
mod location;
mod pieces;
mod report;
mod secret;
mod sinks;
mod template;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use actions::{ActionsConfig, Disposal, Policy, RuleConfig};
pub use clamd::{ClamdConfig, Unscannable};
pub use destination::{Destination, Placeholder, Values};
pub use dialect::TagDialect;
pub use filter::{Condition, FilterConfig};
pub use http::HttpConfig;
pub use load::{ConfigError, Overrides, load};
pub use location::Location;
pub use report::{ReportConfig, SinkConfig, SinkKind, SqsSinkConfig};
pub use secret::Secret;
pub use sinks::{
    EventBridgeForm, EventBridgeSinkConfig, NotifyConfig, ObjectSinkConfig, PostgresSinkConfig, Recipient, ReportField,
    SesConfig, SnsForm, SnsSinkConfig, TextTemplate, UpscanConfig, Value, WebhookConfig, WebhookForm, is_address,
};
pub use template::Template;

use crate::engine::{Limits, is_detection};

/// Everything that can be configured. Every field has a default; `serve` needs a way in: `queue.url`, `http.enabled`, `clamd.listen` or
/// `clamd.socket`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the signatures are, and how they stay current.
    pub definitions: DefinitionsConfig,
    /// Scan threads, memory and time.
    pub scan: ScanConfig,
    /// What libclamav looks at before it gives up on a file.
    pub limits: Limits,
    /// The SQS queue of S3 event notifications.
    pub queue: QueueConfig,
    /// The HTTP API.
    pub http: HttpConfig,
    /// clamd's protocol.
    pub clamd: ClamdConfig,
    /// What happens to an object.
    pub actions: ActionsConfig,
    /// Who is told.
    pub report: ReportConfig,
    /// The process.
    pub service: ServiceConfig,
    /// The log.
    pub log: LogConfig,
}

/// `[definitions]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefinitionsConfig {
    /// The database directory.
    pub dir: PathBuf,
    /// How often the directory is looked at for a change; 0 for never (SIGHUP still reloads).
    pub poll_secs: u64,
    /// The signed databases that must be there for the definitions to be complete, such as `["daily", "main"]`. Unset: these
    /// two if this process runs freshclam, else none.
    pub required: Option<Vec<String>>,
    /// A file that the definitions must detect before they are used, instead of EICAR.
    pub canary: Option<PathBuf>,
    /// Whether signatures of potentially unwanted applications are used.
    pub pua: bool,
    /// When the definitions were built longer ago, `/readyz` says that this service is not ready; 0 for never. It goes on working off
    /// its queue. Databases that do not say when they were built have no age.
    pub max_age_secs: u64,
    /// Whether a reload keeps the old engine in use until the new one is proved, which takes memory for two.
    pub reload: ReloadMode,
    /// Where libclamav 1.5 finds the certificates that verify signed databases, instead of its built-in directory.
    pub certs_dir: Option<PathBuf>,
    /// The updater that this process runs itself.
    pub freshclam: FreshclamConfig,
}

/// How definitions are reloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadMode {
    /// Beside the old engine where memory holds two (the limits of control groups and what the machine has left), else after
    /// it.
    Auto,
    /// Beside the old engine: scans go on.
    Beside,
    /// After the old engine: scans wait until the new one is loaded. When it cannot be, nothing is scanned until it can.
    Drain,
}

/// `[definitions.freshclam]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FreshclamConfig {
    /// Whether this process runs freshclam; off when something else does (cron, a sidecar).
    pub enabled: bool,
    /// The program, looked up in PATH.
    pub program: PathBuf,
    /// Its configuration file; freshclam's own default when unset.
    pub config_file: Option<PathBuf>,
    /// Time between two runs; up to a tenth is added or taken off at random. ClamAV's mirrors ask for no more than one an hour.
    pub interval_secs: u64,
    /// A run that takes longer is ended.
    pub timeout_secs: u64,
}

/// `[scan]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScanConfig {
    /// Scan threads; 0 for one per processor.
    pub threads: usize,
    /// How long one scan may take before it is `UNSCANNABLE TIMED_OUT`. libclamav can be late by some seconds.
    pub timeout_secs: u64,
    /// Signatures whose matches do not count, by their full names: a false positive is released without editing the database. The report
    /// lists them under `allowed`.
    pub allowed_signatures: Vec<String>,
    /// Whether regular-expression signatures run as machine code (PCRE2's JIT).
    pub pcre_jit: bool,
    /// Whether the expressions of logical signatures are evaluated by code of this program, as far as they are plain.
    pub fast_logical_expressions: bool,
    /// How many verdicts are remembered: the same content, with the same definitions and options, is scanned once. Some 300 bytes each;
    /// 0 to scan everything.
    pub cached_verdicts: usize,
    /// Where temporary files go: what libclamav unpacks, and objects too large for memory. A tmpfs is fastest.
    pub scratch_dir: PathBuf,
    /// While less is free there, no messages are received.
    pub min_free_bytes: u64,
    /// Memory for objects in flight, over all, and for the buffers that fetch them. The engine's own memory comes on top.
    pub memory_bytes: u64,
    /// Objects above this size are spooled to `scratch_dir` instead of being held in memory.
    pub in_memory_max_bytes: u64,
    /// Disk space for spooled objects in flight, over all.
    pub spool_bytes: u64,
    /// Objects above this size are fetched from S3 in several requests at once, each for so many bytes at most. S3 charges each
    /// request.
    pub ranged_fetch_bytes: u64,
}

/// `[queue]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// The queue's URL.
    pub url: Option<String>,
    /// How many requests for messages are made at once while there are many; a queue that is nearly empty gets one at a time.
    pub receivers: usize,
    /// How many messages are worked on at once, most of them waiting for S3; 0 for 16 per scan thread, at least 32 and at most
    /// 256, or four per thread if that is more.
    pub max_in_flight: usize,
    /// How long a message stays hidden from others. It is extended for as long as the message is worked on.
    pub visibility_timeout_secs: u32,
    /// How long one request for messages waits when there are none (long polling, at most 20).
    pub wait_secs: u32,
    /// Rules for objects that are not scanned.
    pub filters: Vec<FilterConfig>,
}

/// `[service]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceConfig {
    /// How long SIGTERM waits for scans under way. ECS and Docker kill after 30 and 10 seconds unless told otherwise.
    pub grace_secs: u64,
    /// The socket that `clamgate health` asks; in `scan.scratch_dir` when unset.
    pub health_socket: Option<PathBuf>,
}

/// `[log]`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// The form of a line.
    pub format: LogFormat,
    /// The least level, or a filter such as `info,clamgate::queue=debug`.
    pub level: String,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

impl Default for DefinitionsConfig {
    fn default() -> Self {
        Self {
            dir: "/var/lib/clamav".into(),
            poll_secs: 60,
            required: None,
            canary: None,
            pua: false,
            max_age_secs: 7 * 24 * 3600,
            reload: ReloadMode::Auto,
            certs_dir: None,
            freshclam: FreshclamConfig::default(),
        }
    }
}

impl Default for FreshclamConfig {
    fn default() -> Self {
        Self { enabled: false, program: "freshclam".into(), config_file: None, interval_secs: 2 * 3600, timeout_secs: 1800 }
    }
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self {
            threads: 0,
            timeout_secs: 120,
            allowed_signatures: Vec::new(),
            pcre_jit: true,
            fast_logical_expressions: true,
            cached_verdicts: 50_000,
            scratch_dir: std::env::temp_dir(),
            min_free_bytes: 64 * MIB,
            memory_bytes: 512 * MIB,
            in_memory_max_bytes: 32 * MIB,
            spool_bytes: 4 * GIB,
            ranged_fetch_bytes: 16 * MIB,
        }
    }
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self { url: None, receivers: 2, max_in_flight: 0, visibility_timeout_secs: 60, wait_secs: 20, filters: Vec::new() }
    }
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self { grace_secs: 25, health_socket: None }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}

/// Of all that could be wrong, what is.
fn those_that_are<const N: usize>(problems: [(bool, &'static str); N]) -> Vec<&'static str> {
    problems.into_iter().filter_map(|(is_wrong, problem)| is_wrong.then_some(problem)).collect()
}

impl Config {
    /// What cannot work, one sentence each, with the field's name.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.limits.problems().into_iter().map(|problem| format!("limits.{problem}")).collect();
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let (scan, queue) = (&self.scan, &self.queue);
        require(scan.timeout_secs >= 1, "scan.timeout_secs must be at least 1: libclamav takes 0 as no limit");
        require(scan.timeout_secs <= 24 * 3600, "scan.timeout_secs must be at most 86400");
        require(scan.in_memory_max_bytes <= scan.memory_bytes, "scan.in_memory_max_bytes must not exceed scan.memory_bytes");
        require(
            self.limits.max_file_size_bytes <= scan.in_memory_max_bytes || self.limits.max_file_size_bytes <= scan.spool_bytes,
            "scan.spool_bytes must hold at least one object of limits.max_file_size_bytes",
        );
        require(
            scan.ranged_fetch_bytes >= 64 * 1024,
            "scan.ranged_fetch_bytes must be at least 65536: each part is a request that S3 charges",
        );
        for name in &scan.allowed_signatures {
            require(
                is_detection(name),
                "scan.allowed_signatures holds a name that no signature has: what libclamav did not look at can only be let through \
                 as a whole, with actions.unscannable",
            );
        }
        require(queue.receivers >= 1, "queue.receivers must be at least 1");
        require(
            (10..=43_200).contains(&queue.visibility_timeout_secs),
            "queue.visibility_timeout_secs must be between 10 and 43200",
        );
        require(
            (1..=20).contains(&queue.wait_secs),
            "queue.wait_secs must be between 1 and 20: without waiting, an empty queue costs time and money",
        );
        require(
            self.report.queue_urls().all(|url| Some(url) != queue.url.as_deref()),
            "report.queue_url and the queues of report.sinks must not be queue.url: every report would come back as an event",
        );
        problems.extend(self.actions.problems());
        problems.extend(self.report.problems());
        problems.extend(self.queue.filters.iter().flat_map(FilterConfig::problems));
        problems.extend(self.http.problems().into_iter().chain(self.clamd.problems()).map(str::to_owned));
        let mut require = |holds: bool, problem: &str| {
            if !holds {
                problems.push(problem.to_owned());
            }
        };
        let freshclam = &self.definitions.freshclam;
        require(freshclam.interval_secs >= 60, "definitions.freshclam.interval_secs must be at least 60");
        require(freshclam.timeout_secs >= 1, "definitions.freshclam.timeout_secs must be at least 1");
        problems
    }

    /// The databases that must be there, in effect.
    #[must_use]
    pub fn required_databases(&self) -> Vec<String> {
        let by_default =
            || if self.definitions.freshclam.enabled { vec!["daily".to_owned(), "main".to_owned()] } else { Vec::new() };
        self.definitions.required.clone().unwrap_or_else(by_default)
    }

    /// The number of scan threads in effect.
    #[must_use]
    pub fn threads(&self) -> usize {
        match self.scan.threads {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            threads => threads,
        }
    }

    /// How long one scan may take.
    #[must_use]
    pub fn scan_timeout(&self) -> Duration {
        Duration::from_secs(self.scan.timeout_secs)
    }

    /// The number of messages worked on at once in effect.
    #[must_use]
    pub fn max_in_flight(&self) -> usize {
        match self.queue.max_in_flight {
            0 => (self.threads() * 16).clamp(32, 256).max(self.threads() * 4),
            messages => messages,
        }
    }

    /// The health socket's path in effect.
    #[must_use]
    pub fn health_socket(&self) -> PathBuf {
        self.service.health_socket.clone().unwrap_or_else(|| self.scan.scratch_dir.join("clamgate-health.sock"))
    }
}
