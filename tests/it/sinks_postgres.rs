//! Reports in PostgreSQL: the table, what happens twice, and a database that is down or does not let us in.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clamgate::config::PostgresSinkConfig;
use clamgate::report::{About, Notice, PostgresSink, ScanReport, Sink, SinkError};
use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::aws::{Aws, Setup};
use crate::postgres::{self, Database, PASSWORD, Postgres};
use crate::samples::{self, eicar};
use crate::service::{Service, clamgate};
use crate::wait;

const URL: &str = "CLAMGATE_REPORT__SINKS__DB__POSTGRES__URL";
/// Objects stay where they are.
const STAY: [(&str, &str); 2] = [("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")];

fn config(url: &str) -> PostgresSinkConfig {
    serde_json::from_value(json!({"url": url})).unwrap()
}

fn sink(url: &str) -> PostgresSink {
    PostgresSink::new(config(url))
}

/// A report; `changes` are merged into it.
fn report(scan_id: &str, status: &str, second: u32, changes: Value) -> ScanReport {
    let mut report = json!({
        "schema": "clamgate.scan/1", "scan_id": scan_id, "status": status, "signatures": [], "reason": null, "detail": null,
        "target": {"kind": "s3", "bucket": "b", "key": "k", "version_id": "v", "etag": "e", "size": 5}, "sha256": null,
        "definitions": {"version": 27000, "built_at": null, "signatures": 1, "fingerprint": "f"},
        "engine": {"libclamav": "1.0", "clamgate": "1.0"}, "scanned_at": format!("2026-01-01T00:00:{second:02}.125Z"),
        "timings_ms": {"queued": 0.0, "fetch": 0.0, "scan": f64::from(second), "act": 0.0, "total": 0.0}, "actions": [],
    });
    for (name, value) in changes.as_object().unwrap() {
        report[name] = value.clone();
    }
    serde_json::from_value(report).unwrap()
}

async fn deliver(sink: &PostgresSink, report: &ScanReport) -> Result<(), SinkError> {
    sink.deliver(&Notice { report, about: &About::default() }).await
}

#[tokio::test]
async fn each_object_has_a_row_that_says_what_was_reported() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let database = postgres::shared().database().await;
    let _service = Service::start(&aws, &[(URL, &database.url())]).await;
    for (key, body) in [
        ("a/clean", b"hello world".to_vec()),
        ("b 'infected'; drop table clamgate_scans; --", eicar()),
        ("c\"%00é", samples::encrypted_zip("a", b"x")),
    ] {
        aws.upload(key, body).await;
    }
    let custom = json!({"a\0": ["\0", 1.5]});
    let job = json!({"bucket": aws.uploads, "key": "d/missing", "trace_id": "t", "custom": custom});
    aws.send(&json!({"schema": "clamgate.job/1", "objects": [job]}).to_string()).await;
    aws.until_drained().await;

    let rows = database.rows("select * from clamgate_scans order by key").await;
    let mut reports = aws.reports(4).await;
    reports.sort_by_key(|report| report["target"]["key"].to_string());
    let told: Vec<_> = rows.iter().map(|row| (row["status"].as_str().unwrap(), &row["signatures"], &row["reason"])).collect();
    assert_eq!(
        told,
        [
            ("CLEAN", &json!([]), &Value::Null),
            ("INFECTED", &json!(["Win.Test.EICAR_HDB-1.UNOFFICIAL"]), &Value::Null),
            ("UNSCANNABLE", &json!([]), &json!("ENCRYPTED")),
            ("FAILED", &json!([]), &Value::Null),
        ]
    );
    for (row, report) in rows.iter().zip(&reports) {
        let mut report = report.clone();
        if report["status"] == "FAILED" {
            assert_eq!(report["custom"], custom);
            report["custom"] = json!({"a\u{fffd}": ["\u{fffd}", 1.5]});
        } else {
            assert!(row["version_id"].is_string() && row["sha256"].is_string() && row["etag"].is_string(), "{row}");
        }
        assert_eq!(row["report"], report);
        for (column, expected) in [
            ("scan_id", &report["scan_id"]),
            ("detail", &report["detail"]),
            ("kind", &json!("s3")),
            ("bucket", &json!(aws.uploads)),
            ("key", &report["target"]["key"]),
            ("version_id", &report["target"]["version_id"]),
            ("etag", &report["target"]["etag"]),
            ("size", &report["target"]["size"]),
            ("sha256", &report["sha256"]),
            ("definitions_version", &report["definitions"]["version"]),
            ("trace_id", &report["trace_id"]),
            ("custom", &report["custom"]),
        ] {
            assert_eq!(&row[column], expected, "{column}");
        }
        let same = format!("select '{}'::timestamptz = '{}' same", row["scanned_at"], report["scanned_at"]);
        assert_eq!(database.rows(&same.replace('"', "")).await, [json!({"same": true})]);
    }
}

#[tokio::test]
async fn a_message_that_comes_twice_leaves_one_row() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let database = postgres::shared().database().await;
    let _service = Service::start(&aws, &[&[(URL, &*database.url())][..], &STAY].concat()).await;
    aws.upload("k", b"hello world".to_vec()).await;
    aws.until_drained().await;
    let columns = "select scan_id, status, version_id, created_at, updated_at from clamgate_scans";
    let once = database.rows(columns).await;
    assert_eq!(once.len(), 1);
    let first = &aws.reports(1).await[0];

    let job = json!({"bucket": aws.uploads, "key": "k", "version_id": once[0]["version_id"]});
    aws.send(&json!({"schema": "clamgate.job/1", "objects": [job]}).to_string()).await;
    aws.until_drained().await;
    let second = &aws.reports(1).await[0];
    assert_eq!(database.rows(columns).await, once);
    assert_eq!((&first["scan_id"], &first["actions"]), (&second["scan_id"], &second["actions"]));
    let scanned_at = database.rows("select report -> 'scanned_at' as at from clamgate_scans").await;
    assert_eq!(scanned_at, [json!({"at": second["scanned_at"]})]);
}

/// Deliveries in their order, each with its status and second, and what remains: the status, the second, and how often `updated_at` moved.
#[tokio::test]
async fn the_order_of_deliveries_does_not_matter() {
    let database = postgres::shared().database().await;
    let sink = sink(&database.url());
    for (n, (deliveries, expected, expected_updates)) in [
        (&[("CLEAN", 1), ("CLEAN", 1)][..], ("CLEAN", 1), 0),
        (&[("CLEAN", 1), ("CLEAN", 2)], ("CLEAN", 2), 0),
        (&[("CLEAN", 2), ("CLEAN", 1)], ("CLEAN", 2), 0),
        (&[("FAILED", 1), ("CLEAN", 2)], ("CLEAN", 2), 1),
        (&[("FAILED", 1), ("CLEAN", 2), ("FAILED", 1)], ("CLEAN", 2), 1),
        (&[("CLEAN", 1), ("FAILED", 2)], ("CLEAN", 1), 0),
        (&[("FAILED", 2), ("CLEAN", 1)], ("CLEAN", 1), 1),
        (&[("CLEAN", 1), ("INFECTED", 2)], ("INFECTED", 2), 1),
        (&[("INFECTED", 2), ("CLEAN", 1)], ("INFECTED", 2), 0),
        (&[("FAILED", 1), ("FAILED", 2)], ("FAILED", 2), 0),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("id{n}");
        let query = format!(
            "select status, report ->> 'scanned_at' as at, scanned_at, updated_at, xmin::text from clamgate_scans \
                             where scan_id = '{id}'"
        );
        let mut updates = 0;
        let mut before: Option<Value> = None;
        for &(status, second) in deliveries {
            deliver(&sink, &report(&id, status, second, json!({}))).await.unwrap();
            let row = database.rows(&query).await.remove(0);
            let unchanged = |before: &Value| row["scanned_at"] == before["scanned_at"] && row["status"] == before["status"];
            if let Some(before) = before {
                updates += usize::from(before["updated_at"] != row["updated_at"]);
                assert_eq!(
                    unchanged(&before),
                    before["xmin"] == row["xmin"],
                    "{deliveries:?}: nothing is written without need"
                );
            }
            before = Some(row);
        }
        let row = before.unwrap();
        let at = format!("2026-01-01T00:00:{:02}.125Z", expected.1);
        assert_eq!((&row["status"], &row["at"], updates), (&json!(expected.0), &json!(at), expected_updates), "{deliveries:?}");
    }
    assert_eq!(database.rows("select count(*) from clamgate_scans").await, [json!({"count": 10})]);
    // The view: the latest of the same object version.
    deliver(&sink, &report("later", "SUSPICIOUS", 30, json!({}))).await.unwrap();
    let latest = database.rows("select scan_id, status from clamgate_latest").await;
    assert_eq!(latest, [json!({"scan_id": "later", "status": "SUSPICIOUS"})]);
}

#[tokio::test]
async fn hostile_names_are_rows_like_others() {
    let database = postgres::shared().database().await;
    let sink = sink(&database.url());
    let noise: String =
        samples::noise(341).iter().map(|byte| char::from_u32(0x4e00 + u32::from(*byte) * 37).unwrap()).collect();
    let mixed: String = samples::noise(512).iter().flat_map(|byte| ['\0', char::from(byte % 94 + 33)]).collect();
    for (n, key) in
        ["\0", "a\0b\\u0000", "'; drop table clamgate_scans; --", "\u{ffff}\u{fffe}\u{202e}", "\n\t\u{1}\u{7f}", "{}", ""]
            .map(str::to_owned)
            .into_iter()
            .chain(["\0".repeat(1024), noise, mixed, "k".repeat(5000), "é".repeat(600)])
            .enumerate()
    {
        let target =
            json!({"kind": "s3", "bucket": "b".repeat(255), "key": key, "version_id": key, "etag": key, "size": u64::MAX});
        let changes =
            json!({"target": target, "detail": key, "trace_id": key, "signatures": [key], "custom": {&key: [{&key: key}]}});
        deliver(&sink, &report(&n.to_string(), "INFECTED", 1, changes)).await.unwrap();
        let stored = key.replace('\0', "\u{fffd}");
        let row = database.rows(&format!("select * from clamgate_scans where scan_id = '{n}'")).await.remove(0);
        assert_eq!((&row["detail"], &row["trace_id"]), (&json!(stored), &json!(stored)));
        assert_eq!((&row["signatures"], &row["custom"]), (&json!([stored]), &json!({&stored: [{&stored: stored}]})));
        assert_eq!((&row["report"]["target"]["key"], &row["size"]), (&json!(stored), &json!(i64::MAX)));
        let name = if key.len() > 1024 { key[..1024].to_owned() } else { stored };
        assert_eq!((&row["key"], &row["version_id"], &row["etag"]), (&json!(name), &json!(name), &json!(name)));
    }
    for (n, (target, kind, name)) in [
        (json!({"kind": "file", "path": "/inbox/f", "size": 1}), "file", "/inbox/f"),
        (json!({"kind": "stream", "name": "-", "size": 1}), "stream", "-"),
    ]
    .into_iter()
    .enumerate()
    {
        deliver(&sink, &report(&format!("local{n}"), "CLEAN", 1, json!({"target": target}))).await.unwrap();
        let row = database.rows(&format!("select * from clamgate_scans where scan_id = 'local{n}'")).await.remove(0);
        assert_eq!((&row["kind"], &row["key"], &row["bucket"]), (&json!(kind), &json!(name), &Value::Null));
    }
}

#[tokio::test]
async fn a_database_that_is_down_delays_reports_and_loses_none() {
    let aws = Aws::new().await;
    let mut server = Postgres::new();
    server.start();
    let database = server.make_database().await;
    server.kill();

    let service = Service::start(&aws, &[&[(URL, &*database.url())][..], &STAY].concat()).await;
    service.until_logged("not ready for reports", 1).await;
    aws.upload("first", b"hello world".to_vec()).await;
    let delayed = service.until_logged("report not delivered yet", 1).await;
    assert_eq!(delayed[0]["sink"], "db", "{delayed:?}");
    assert_eq!(aws.depth(&aws.queue).await, (0, 1), "its message is kept");
    server.start();
    aws.until_drained().await;

    // With connections that break.
    server.kill();
    aws.upload("second", eicar()).await;
    service.until_logged("report not delivered yet", delayed.len() + 1).await;
    server.start();
    aws.until_drained().await;
    let rows = database.rows("select key, status from clamgate_scans order by key").await;
    assert_eq!(rows, [json!({"key": "first", "status": "CLEAN"}), json!({"key": "second", "status": "INFECTED"})]);
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let aws = Aws::with(Setup { versioned: false, receives: 1 }).await;
    let database = postgres::shared().database().await;
    let url = database.url_of("postgres", "wr0ng");
    let service = Service::start(&aws, &[&[(URL, &*url)][..], &STAY].concat()).await;
    let said = service.until_logged("not ready for reports", 1).await;
    assert!(said[0]["error"].as_str().unwrap().contains("password authentication failed for user \"postgres\""), "{said:?}");
    aws.upload("k", b"hello world".to_vec()).await;
    wait::until("a dead letter", || async { (aws.depth(&aws.dead_letters).await.0 == 1).then_some(()) }).await;
    let log = service.log_text();
    assert!(log.contains("28P01") && !log.contains("wr0ng"), "{log}");

    let printed = clamgate().arg("check-config").env(URL, &url).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("[report.sinks.db.postgres]") && !printed.contains("wr0ng"), "{printed}");
}

#[tokio::test]
async fn the_server_must_be_who_it_should_be() {
    let database = postgres::shared().database().await;
    let file = |name: &str| Some(database.file(name));
    for (url, ca_file, expected) in [
        (database.tcp_url("localhost"), file("ca.pem"), Ok(true)),
        (database.tcp_url("localhost"), None, Ok(true)),
        (database.tcp_url("127.0.0.1") + "?sslmode=verify-ca", file("ca.pem"), Ok(true)),
        (database.tcp_url("localhost") + "?sslmode=require", None, Ok(true)),
        (database.tcp_url("localhost") + "?sslmode=disable", None, Ok(false)),
        (database.url(), None, Ok(false)),
        (database.tcp_url("localhost"), file("other.pem"), Err("UnknownIssuer")),
        (database.tcp_url("localhost") + "?sslmode=verify-full", None, Err("UnknownIssuer")),
        (database.tcp_url("127.0.0.1"), file("ca.pem"), Err("not valid for name")),
        (database.tcp_url("localhost"), file("missing.pem"), Err("missing.pem")),
    ] {
        let what = format!("{url} {ca_file:?}");
        let sink = PostgresSink::new(PostgresSinkConfig { ca_file, ..config(&url) });
        match (deliver(&sink, &report("id", "CLEAN", 1, json!({}))).await, expected) {
            (Ok(()), Ok(encrypted)) => {
                let query = "select ssl from pg_stat_ssl join pg_stat_activity using (pid) \
                             where application_name = 'clamgate' and datname = current_database() order by backend_start desc limit 1";
                assert_eq!(database.rows(query).await, [json!({"ssl": encrypted})], "{what}");
            }
            (Err(error), Err(text)) => {
                assert!(error.message.contains(text) && !error.can_retry, "{what}: {error:?}");
                assert!(!error.message.contains(PASSWORD) && !error.message.contains("s3cret"), "{error}");
            }
            (found, _) => panic!("{what}: {found:?}"),
        }
    }
}

#[tokio::test]
async fn workers_that_start_together_make_the_table_once() {
    let database = postgres::shared().database().await;
    database.execute("create schema scans").await;
    let delivered = join_all((0..8).map(|n| {
        let sink = PostgresSink::new(PostgresSinkConfig { schema: Some("scans".into()), ..config(&database.url()) });
        async move { deliver(&sink, &report(&n.to_string(), "CLEAN", 1, json!({}))).await }
    }));
    assert_eq!(delivered.await, vec![Ok(()); 8]);
    assert_eq!(database.rows("select count(*) from scans.clamgate_scans").await, [json!({"count": 8})]);
    assert_eq!(
        database.rows("select version from scans.clamgate_migrations").await,
        [json!({"version": 1}), json!({"version": 2})]
    );
    assert_eq!(database.rows("select 1 from pg_tables where schemaname = 'public'").await, [] as [Value; 0]);
}

#[tokio::test]
async fn a_table_that_was_dropped_is_made_again() {
    let database = postgres::shared().database().await;
    let (sinks, by_hand) = (
        [sink(&database.url()), sink(&database.url())],
        PostgresSink::new(PostgresSinkConfig { migrate: false, ..config(&database.url()) }),
    );
    for (n, dropped) in
        ["", "drop table clamgate_scans cascade", "drop table clamgate_scans cascade; drop table clamgate_migrations"]
            .into_iter()
            .enumerate()
    {
        database.execute(dropped).await;
        if !dropped.is_empty() {
            let refused = deliver(&by_hand, &report("id", "CLEAN", 1, json!({}))).await.unwrap_err();
            assert!(refused.message.contains("42P01") && !refused.can_retry, "{dropped}: {refused:?}");
        }
        // In two workers, all at once, each as often as it takes.
        let reports: Vec<_> = (0..8).map(|id| report(&format!("{n}-{id}"), "CLEAN", 1, json!({}))).collect();
        join_all(reports.iter().zip(sinks.iter().cycle()).map(|(report, sink)| async move {
            for attempt in 0..=20 {
                match deliver(sink, report).await {
                    Ok(()) => break,
                    Err(error) => assert!(error.can_retry && attempt < 20, "{dropped}: {error:?}"),
                }
            }
        }))
        .await;
        deliver(&by_hand, &report("id", "CLEAN", 1, json!({}))).await.unwrap();
        assert_eq!(database.rows("select count(*) from clamgate_scans").await, [json!({"count": 9})], "{dropped}");
        assert_eq!(database.rows("select count(*) from clamgate_latest").await, [json!({"count": 1})], "{dropped}");
    }
}

/// A sink with so many connections, and one that keeps every row waiting.
async fn locked(database: &Database, max_connections: u32) -> (PostgresSink, PgConnection) {
    let sink = PostgresSink::new(PostgresSinkConfig { max_connections, ..config(&database.url()) });
    sink.prepare().await.unwrap();
    let mut holder = database.connect().await;
    sqlx::raw_sql("begin; lock table clamgate_scans").execute(&mut holder).await.unwrap();
    (sink, holder)
}

/// The server's processes for the sink's connections.
async fn backends(database: &Database, condition: &str) -> Vec<Pid> {
    let ours = "select pid from pg_stat_activity where application_name = 'clamgate' and datname = current_database()";
    let rows = database.rows(&format!("{ours} and {condition}")).await;
    rows.iter().map(|row| Pid::from_raw(row["pid"].as_i64().unwrap().try_into().unwrap()).unwrap()).collect()
}

/// Waits until so many of them wait for the table.
async fn until_waiting(database: &Database, connections: usize) -> Vec<Pid> {
    wait::until("connections that wait", || async {
        Some(backends(database, "wait_event_type = 'Lock'").await).filter(|waiting| waiting.len() == connections)
    })
    .await
}

#[tokio::test]
async fn connections_are_bounded() {
    let database = postgres::shared().database().await;
    let (sink, mut holder) = locked(&database, 2).await;
    let reports: Vec<_> = (0..6).map(|n| report(&n.to_string(), "CLEAN", 1, json!({}))).collect();
    let release = async {
        until_waiting(&database, 2).await;
        assert_eq!(backends(&database, "true").await.len(), 2);
        sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    };
    let (delivered, ()) =
        futures_util::future::join(join_all(reports.iter().map(|report| deliver(&sink, report))), release).await;
    assert_eq!(delivered, vec![Ok(()); 6]);
}

/// A process that is stopped until the test ends, however it does.
struct Frozen(Pid);

impl Frozen {
    fn new(process: Pid) -> Self {
        kill_process(process, Signal::STOP).unwrap();
        Self(process)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// A server that takes what it is sent and never answers kept each connection for good: with the last one, all reports failed, though the
/// database was back.
#[tokio::test]
async fn a_server_that_froze_kept_the_connections() {
    let database = postgres::shared().database().await;
    let (sink, mut holder) = locked(&database, 1).await;
    let report = report("1", "CLEAN", 1, json!({}));
    // Given up when the server is frozen, as when its time is over.
    let _frozen = tokio::select! {
        waiting = async { Frozen::new(until_waiting(&database, 1).await[0]) } => waiting,
        delivered = deliver(&sink, &report) => panic!("{delivered:?}"),
    };
    sqlx::raw_sql("commit").execute(&mut holder).await.unwrap();
    wait::until("a report", || async { deliver(&sink, &report).await.ok() }).await;
    assert_eq!(database.rows("select scan_id from clamgate_scans").await, [json!({"scan_id": "1"})]);
}

/// Given up here, a statement went on there: the server had more connections than `max_connections`.
#[tokio::test]
async fn a_statement_that_was_given_up_kept_its_connection_at_the_server() {
    let database = postgres::shared().database().await;
    let (sink, _holder) = locked(&database, 1).await;
    let report = report("1", "CLEAN", 1, json!({}));
    tokio::select! {
        _ = until_waiting(&database, 1) => {}
        delivered = deliver(&sink, &report) => panic!("{delivered:?}"),
    }
    // Its own time limit is 30 seconds.
    wait::until_within(Duration::from_secs(20), "its end", || async {
        backends(&database, "true").await.is_empty().then_some(())
    })
    .await;
}

fn page() -> String {
    let page: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ways-out/postgres.md");
    fs::read_to_string(page).unwrap()
}

/// The page's SQL with this name.
fn sql<'page>(page: &'page str, name: &str) -> &'page str {
    page.split_once(&format!("```sql {name}\n")).unwrap().1.split_once("```").unwrap().0
}

/// The page's accounts, with names of the test's own: accounts are the server's, not the database's.
fn account(database: &Database, text: &str) -> String {
    text.replace("to clamgate;", &format!("to clamgate_{};", database.name))
        .replace("to app;", &format!("to app_{};", database.name))
}

async fn make_accounts(database: &Database) {
    for name in ["clamgate", "app"] {
        database.execute(&format!("create role {name}_{} login password 'p'", database.name)).await;
    }
}

#[tokio::test]
async fn an_application_joins_to_the_table() {
    let (database, page) = (postgres::shared().database().await, page());
    make_accounts(&database).await;
    database.execute(&account(&database, sql(&page, "migrate"))).await;
    let sink = sink(&database.url_of(&format!("clamgate_{}", database.name), "p"));
    let target = |key: &str, version: Option<&str>, etag: &str| json!({"kind": "s3", "bucket": "b", "key": key, "version_id": version, "etag": etag, "size": 5});
    let moved = json!([{"action": "promote", "outcome": "done", "destination": "s3://clean/plain"}, {"action": "tag", "outcome": "done"}]);
    for (id, status, second, key, version, etag) in [
        ("1", "CLEAN", 1, "plain", None, "e"),
        ("2", "INFECTED", 2, "versions", Some("v1"), "e"),
        ("3", "CLEAN", 3, "versions", Some("v2"), "e"),
        ("4", "FAILED", 4, "again", None, "e"),
        ("5", "CLEAN", 5, "again", None, "e"),
        // The scan of what was there before ends later.
        ("6", "INFECTED", 6, "replaced", None, "newer"),
        ("7", "CLEAN", 7, "replaced", None, "older"),
        ("8", "INFECTED", 8, "overwritten", Some("v2"), "newer"),
        ("9", "CLEAN", 9, "overwritten", Some("v1"), "older"),
        // Another version with the same content, and a result on a content that the application has not uploaded.
        ("10", "FAILED", 10, "overwritten", Some("v3"), "older"),
        ("11", "CLEAN", 11, "new", None, "older"),
    ] {
        let actions = if key == "plain" { moved.clone() } else { json!([]) };
        let signatures = if status == "INFECTED" { json!(["Eicar"]) } else { json!([]) };
        let changes = json!({"target": target(key, version, etag), "actions": actions, "signatures": signatures});
        deliver(&sink, &report(id, status, second, changes)).await.unwrap();
    }
    database.execute(sql(&page, "application")).await;
    database
        .execute(
            "insert into uploads values (1, 'b', 'plain', null, 'e'), (2, 'b', 'versions', 'v1', 'e'), \
             (3, 'b', 'versions', 'v2', 'e'), (4, 'b', 'again', null, 'e'), (5, 'b', 'new', null, 'newer'), \
             (6, 'b', 'replaced', null, 'older'), (7, 'b', 'replaced', null, 'newer'), (8, 'b', 'overwritten', 'v1', 'older'), \
             (9, 'b', 'overwritten', 'v2', 'newer'), (10, 'b', 'overwritten', 'v3', 'older')",
        )
        .await;
    database.execute(&account(&database, sql(&page, "reader"))).await;
    let app = format!("app_{}", database.name);
    database.execute(&format!("grant select on uploads to {app}; set role {app}; {}", sql(&page, "join"))).await;
    let row = |id: u32, status: &str, signatures: Value| json!({"id": id, "status": status, "signatures": signatures});
    let expected = [
        row(1, "CLEAN", json!([])),
        row(2, "INFECTED", json!(["Eicar"])),
        row(3, "CLEAN", json!([])),
        row(4, "CLEAN", json!([])),
        row(5, "PENDING", Value::Null),
        row(6, "CLEAN", json!([])),
        row(7, "INFECTED", json!(["Eicar"])),
        row(8, "CLEAN", json!([])),
        row(9, "INFECTED", json!(["Eicar"])),
        row(10, "FAILED", json!([])),
    ];
    assert_eq!(database.rows(sql(&page, "join")).await, expected);
    let moved = json!({"key": "plain", "action": "promote", "destination": "s3://clean/plain"});
    assert_eq!(database.rows(sql(&page, "moved")).await, [moved]);
}

#[tokio::test]
async fn an_account_that_may_only_write_rows_is_enough() {
    let (database, page) = (postgres::shared().database().await, page());
    make_accounts(&database).await;
    let url = database.url_of(&format!("clamgate_{}", database.name), "p");
    let by_hand = || PostgresSink::new(PostgresSinkConfig { migrate: false, ..config(&url) });
    let first = report("id", "FAILED", 1, json!({}));
    let missing = by_hand().prepare().await.unwrap_err();
    assert!(missing.message.contains("42P01") && missing.can_retry, "the start does not depend on it: {missing}");

    let schema = clamgate().args(["check-config", "--postgres-schema"]).output().unwrap();
    database.execute(std::str::from_utf8(&schema.stdout).unwrap()).await;
    let refused = deliver(&by_hand(), &first).await.unwrap_err();
    assert!(refused.message.contains("42501") && refused.message.contains("postgres.md") && !refused.can_retry, "{refused}");

    database.execute(&account(&database, sql(&page, "grants"))).await;
    let sink_by_hand = by_hand();
    sink_by_hand.prepare().await.unwrap();
    for report in [first, report("id", "CLEAN", 2, json!({}))] {
        deliver(&sink_by_hand, &report).await.unwrap();
    }
    assert_eq!(database.rows("select status from clamgate_scans").await, [json!({"status": "CLEAN"})]);

    let refused = deliver(&sink(&url), &report("id", "CLEAN", 3, json!({}))).await.unwrap_err();
    assert!(refused.message.starts_with("cannot make the table: ") && !refused.can_retry, "{refused}");
    // The owner of the database may turn migrations on later.
    sink(&database.url()).prepare().await.unwrap();
}
