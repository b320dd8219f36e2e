//! Reports as rows of a table that an application can join to.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::Value;
use sqlx::error::DatabaseError;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::postgres::{PgArguments, PgPoolOptions};
use sqlx::query::Query;
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection, Error, Executor, PgConnection, PgPool, Postgres, SqlSafeStr};
use time::OffsetDateTime;
use tokio::sync::Mutex;

use super::{Notice, ScanReport, Sink, SinkError, Target};
use crate::config::PostgresSinkConfig;

/// The table, its indexes and its view, for somebody who makes them by hand.
pub const POSTGRES_SCHEMA: &str = concat!(include_str!("postgres/1_scans.sql"), "\n", include_str!("postgres/2_latest.sql"));

const UPSERT: &str = include_str!("postgres/upsert.sql");

/// Where it is written down which migrations have run. Not sqlx's usual name, which the application's own may have.
const MIGRATIONS: &str = "clamgate_migrations";

/// The advisory lock under which a table that was dropped is made again: "clamgate" in ASCII.
const LOCK: i64 = 0x636c_616d_6761_7465;

/// The SQLSTATE for a table that is not there.
const UNDEFINED_TABLE: &str = "42P01";

/// How long a connection is waited for.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A connection that is not used for this long is closed.
const IDLE: Duration = Duration::from_secs(60);

/// A connection is closed at this age, so that a server which has taken over from another is found.
const OLD: Duration = Duration::from_secs(600);

/// The most bytes of a text that is searched for. S3's keys have at most 1,024; more than about 2,700 do not fit into an index.
const LONGEST_NAME: usize = 1024;

/// Writes each report into the table `clamgate_scans`, one row for each `scan_id`.
///
/// It connects, and makes the table if it is told to, when it is first needed: a database that is down delays reports alone. A table that was
/// dropped is made again.
pub struct PostgresSink {
    config: PostgresSinkConfig,
    /// `None` until the table has been seen to.
    pool: Mutex<Option<PgPool>>,
}

impl PostgresSink {
    /// A sink that has no connection yet.
    #[must_use]
    pub fn new(config: PostgresSinkConfig) -> Self {
        Self { config, pool: Mutex::new(None) }
    }

    async fn pool(&self) -> Result<PgPool, SinkError> {
        let mut pool = self.pool.lock().await;
        if let Some(pool) = &*pool {
            return Ok(pool.clone());
        }
        Ok(pool.insert(self.open().await?).clone())
    }

    /// Sees to the table on a connection of its own, which takes the lock of the migrations with it whatever happens.
    async fn open(&self) -> Result<PgPool, SinkError> {
        if let Some(file) = &self.config.ca_file {
            let found = tokio::fs::metadata(file).await;
            found.map_err(|error| SinkError::permanent(format!("cannot read ca_file {}: {error}", file.display())))?;
        }
        let problem = |problem| SinkError::permanent(format!("postgres{problem}"));
        let options = self.config.connect_options().map_err(problem)?;
        let mut connection = PgConnection::connect_with(&options).await.map_err(|error| failed(&error))?;
        let settings = self.settings();
        connection.execute(AssertSqlSafe(settings.clone())).await.map_err(|error| failed(&error))?;
        if self.config.migrate {
            // Not `run`, whose future is not known to be `Send`: "implementation of `Acquire` is not general enough".
            migrator().run_direct(None, &mut connection, false).await.map_err(|error| not_migrated(&error))?;
        }
        match connection.prepare(UPSERT.into_sql_str()).await {
            // The table was dropped, but not what says that it was made. Everything in one transaction.
            Err(error) if self.config.migrate && is_missing_table(&error) => {
                let again = AssertSqlSafe(format!("select pg_advisory_xact_lock({LOCK}); {POSTGRES_SCHEMA}"));
                connection.execute(again).await.map(|_| ()).map_err(|error| failed(&error))?;
            }
            prepared => prepared.map(|_| ()).map_err(|error| failed(&error))?,
        }
        // It has done its work: what it says at the end does not matter.
        let _ = connection.close().await;

        Ok(PgPoolOptions::new()
            .max_connections(self.config.max_connections)
            .acquire_timeout(CONNECT_WITHIN)
            .idle_timeout(IDLE)
            .max_lifetime(OLD)
            .after_connect(move |connection, _| {
                let settings = AssertSqlSafe(settings.clone());
                async move { connection.execute(settings).await.map(|_| ()) }.boxed()
            })
            .connect_lazy_with(options))
    }

    /// What each connection is told first. Statements that nobody waits for any more, such as those of a process that was killed, end; soon,
    /// from PostgreSQL 14 on, which can look every second whether the client is still there.
    fn settings(&self) -> String {
        let mut settings = "set statement_timeout = '30s'; set client_min_messages = warning; \
             select set_config(name, '1s', false) from pg_settings where name = 'client_connection_check_interval'"
            .to_owned();
        if let Some(schema) = &self.config.schema {
            // A plain name; the configuration was checked.
            settings += &format!("; set search_path = \"{}\"", schema.replace('"', ""));
        }
        settings
    }
}

impl Sink for PostgresSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        async move {
            let row = Row::new(notice.report)?;
            let pool = self.pool().await?;
            let upsert = sqlx::query(UPSERT)
                .bind(row.scan_id)
                .bind(row.status)
                .bind(row.signatures)
                .bind(row.reason)
                .bind(row.detail)
                .bind(row.kind)
                .bind(row.bucket)
                .bind(row.key)
                .bind(row.version_id)
                .bind(row.etag)
                .bind(row.size)
                .bind(row.sha256)
                .bind(row.definitions_version)
                .bind(row.scanned_at)
                .bind(row.trace_id)
                .bind(row.custom)
                .bind(row.report);
            match execute(&pool, upsert).await {
                // The next attempt makes it.
                Err(error) if self.config.migrate && is_missing_table(&error) => {
                    *self.pool.lock().await = None;
                    Err(SinkError { can_retry: true, ..failed(&error) })
                }
                written => written.map_err(|error| failed(&error)),
            }
        }
        .boxed()
    }

    fn prepare(&self) -> BoxFuture<'_, Result<(), SinkError>> {
        // Whatever is wrong with the database or the account can be mended while the service runs.
        async move { self.pool().await.map(|_| ()).map_err(|error| SinkError { can_retry: true, ..error }) }.boxed()
    }
}

/// Runs a statement on a connection that the pool has back soon, whatever happens. Left to itself, sqlx asks a connection whether it is
/// well before the pool gets it back, and waits for the answer without end: each one to a server that froze would be lost to the pool.
async fn execute(pool: &PgPool, statement: Query<'_, Postgres, PgArguments>) -> Result<(), Error> {
    let mut connection = pool.acquire().await?;
    // If nobody waits for the statement any more.
    connection.close_on_drop();
    let done = statement.execute(&mut *connection).await;
    tokio::spawn(tokio::time::timeout(CONNECT_WITHIN, connection.return_to_pool()));
    done.map(|_| ())
}

/// A report in PostgreSQL's types.
struct Row<'a> {
    scan_id: &'a str,
    status: String,
    signatures: Vec<Cow<'a, str>>,
    reason: Option<String>,
    detail: Option<Cow<'a, str>>,
    kind: &'static str,
    bucket: Option<Cow<'a, str>>,
    key: Cow<'a, str>,
    version_id: Option<Cow<'a, str>>,
    etag: Option<Cow<'a, str>>,
    size: i64,
    sha256: Option<&'a str>,
    definitions_version: i64,
    scanned_at: OffsetDateTime,
    trace_id: Option<Cow<'a, str>>,
    custom: Option<Json<Value>>,
    report: Json<Value>,
}

impl<'a> Row<'a> {
    fn new(report: &'a ScanReport) -> Result<Self, SinkError> {
        let (kind, bucket, version_id, etag) = match &report.target {
            Target::S3 { bucket, version_id, etag, .. } => ("s3", Some(bucket), version_id.as_ref(), etag.as_ref()),
            Target::File { .. } => ("file", None, None, None),
            Target::Stream { .. } => ("stream", None, None, None),
        };
        let json = serde_json::to_value(report).map_err(|error| SinkError::permanent(error.to_string()))?;
        // As in the JSON, so that a report that was written down and read again is the same.
        let milliseconds = report.scanned_at.nanosecond() / 1_000_000;
        let scanned_at = report.scanned_at.replace_nanosecond(milliseconds * 1_000_000).unwrap_or(report.scanned_at);
        Ok(Self {
            scan_id: &report.scan_id,
            status: report.status.to_string(),
            signatures: report.signatures.iter().map(|name| text(name)).collect(),
            reason: report.reason.map(|reason| reason.to_string()),
            detail: report.detail.as_deref().map(text),
            kind,
            bucket: bucket.map(|bucket| name(bucket)),
            key: name(report.target.name()),
            version_id: version_id.map(|version| name(version)),
            etag: etag.map(|etag| name(etag)),
            size: i64::try_from(report.target.size()).unwrap_or(i64::MAX),
            sha256: report.sha256.as_deref(),
            definitions_version: report.definitions.version.into(),
            scanned_at,
            trace_id: report.trace_id.as_deref().map(text),
            custom: report.custom.clone().map(|custom| Json(without_nul(Value::Object(custom)))),
            report: Json(without_nul(json)),
        })
    }
}

/// A text that PostgreSQL takes: it has no NUL (<https://www.postgresql.org/docs/current/datatype-character.html>).
fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A text that fits into an index.
fn name(name: &str) -> Cow<'_, str> {
    text(&name[..name.floor_char_boundary(LONGEST_NAME)])
}

/// JSON that PostgreSQL takes as `jsonb`, without NUL, too (<https://www.postgresql.org/docs/current/datatype-json.html>).
fn without_nul(value: Value) -> Value {
    match value {
        Value::String(string) if string.contains('\0') => Value::String(text(&string).into_owned()),
        Value::Array(values) => values.into_iter().map(without_nul).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (text(&name).into_owned(), without_nul(value))).collect()
        }
        other => other,
    }
}

fn migrator() -> Migrator {
    // What has run somewhere must not change any more.
    let migrations = [(1, "scans", include_str!("postgres/1_scans.sql")), (2, "latest", include_str!("postgres/2_latest.sql"))];
    let migrations = migrations
        .map(|(version, name, sql)| Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false));
    let mut migrator = Migrator::with_migrations(migrations.into());
    migrator.dangerous_set_table_name(MIGRATIONS);
    // Those of a newer version that runs beside this one.
    migrator.set_ignore_missing(true);
    migrator
}

fn not_migrated(error: &MigrateError) -> SinkError {
    let cause = match error {
        MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) => failed(cause),
        other => SinkError::permanent(other.to_string()),
    };
    SinkError { message: format!("cannot make the table: {}", cause.message), ..cause }
}

/// No error of sqlx holds the URL or a password.
fn failed(error: &Error) -> SinkError {
    match error {
        Error::Database(error) => of_database(error.as_ref()),
        // How rustls says that it does not trust the server.
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => SinkError::permanent(error.to_string()),
        Error::Configuration(_) | Error::Encode(_) | Error::InvalidArgument(_) | Error::Tls(_) => {
            SinkError::permanent(error.to_string())
        }
        Error::PoolTimedOut => SinkError::transient(format!(
            "no connection to the database within {} seconds: it is down, or all max_connections are at work",
            CONNECT_WITHIN.as_secs()
        )),
        _ => SinkError::transient(error.to_string()),
    }
}

/// Whether somebody has dropped the table.
fn is_missing_table(error: &Error) -> bool {
    matches!(error, Error::Database(error) if error.code().as_deref() == Some(UNDEFINED_TABLE))
}

/// By the code's class (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): connections, read-only transactions (a server
/// that has handed over to another), conflicts, resources, locks, operators and the system are troubles that end by themselves.
fn of_database(error: &dyn DatabaseError) -> SinkError {
    let code = error.code().unwrap_or_default();
    let message = format!("{} (SQLSTATE {code})", error.message());
    let passes = code == "25006" || ["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class));
    match &*code {
        _ if passes => SinkError::transient(message),
        "42501" | UNDEFINED_TABLE | "42703" | "3F000" => {
            SinkError::permanent(format!("{message}: see docs/ways-out/postgres.md on what the account needs"))
        }
        _ => SinkError::permanent(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_replaced_and_nothing_else() {
        let json = serde_json::json!({"a\0": ["\0", "\\u0000", {"b": "x\0y"}], "n": 1.5, "t": true, "z": null});
        let expected =
            serde_json::json!({"a\u{fffd}": ["\u{fffd}", "\\u0000", {"b": "x\u{fffd}y"}], "n": 1.5, "t": true, "z": null});
        assert_eq!(without_nul(json), expected);
        assert_eq!((text("a\0b"), text("ab")), ("a\u{fffd}b".into(), "ab".into()));
    }

    #[test]
    fn a_name_that_no_object_can_have_is_cut() {
        assert_eq!(name(&"é".repeat(512)), "é".repeat(512));
        assert_eq!(name(&format!("a{}", "é".repeat(600))), format!("a{}", "é".repeat(511)));
    }
}
