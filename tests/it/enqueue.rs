//! `clamgate enqueue` on a real bucket and a real queue.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use clamgate::action::ScannedWith;
use clamgate::engine::Snapshot;
use clamgate::queue::{Event, ObjectEvent};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::aws::{self, Aws, Setup};
use crate::service::{Service, clamgate, signatures};
use crate::wait;

/// More than two pages of a list.
const MANY: usize = 2100;

fn enqueue(aws: &Aws, arguments: &[&str]) -> Command {
    let mut command = clamgate();
    command.envs(aws::environment()).env("CLAMGATE_QUEUE__URL", &aws.queue);
    command.arg("enqueue").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output, standard error.
fn shown(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn run(aws: &Aws, arguments: &[&str]) -> (Option<i32>, String, String) {
    shown(&enqueue(aws, arguments).output().unwrap())
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status().unwrap().success());
}

/// The objects of the jobs on the queue, which name one each.
async fn jobs(aws: &Aws) -> Vec<ObjectEvent> {
    let bodies = aws.take_all().await;
    let object = |body: &String| match Event::parse(body) {
        Ok(Event::Objects(objects)) if objects.len() == 1 => objects[0].clone(),
        other => panic!("{other:?} from {body}"),
    };
    bodies.iter().map(object).collect()
}

async fn queued_keys(aws: &Aws) -> Vec<String> {
    let mut keys: Vec<String> = jobs(aws).await.into_iter().map(|job| job.key).collect();
    keys.sort();
    keys
}

/// Where a state file can be, which goes with the directory.
fn state_file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    (dir, path)
}

/// Waits until the state file says that something has been sent.
async fn until_saved(state: &Path) {
    wait::until("progress in the state file", || async {
        let state: Value = serde_json::from_str(&fs::read_to_string(state).ok()?).ok()?;
        state["start_after"].as_str().map(drop)
    })
    .await;
}

#[tokio::test]
async fn every_object_once_whatever_its_key_and_again_after_an_interruption() {
    let aws = Aws::new().await;
    let odd = ["in/ ", "in/a+b%2Bc", "in/é🐚", "in/<&>\"'", "in/line\nbreak", "in/\u{1}\u{fffe}\u{ffff}", "in/dir/"];
    let keys: Vec<String> = (0..MANY).map(|n| format!("in/{n:05}")).chain(odd.map(str::to_owned)).collect();
    let others = ["inn".to_owned(), "out/1".to_owned()];
    let (_, root) = aws.existing(keys.iter().cloned().chain(others)).await;
    let source = format!("{root}in/");
    let (_dir, state) = state_file();
    let with_state = ["--state", state.to_str().unwrap()];

    let slowly = [&[source.as_str(), "--rate", "200"], &with_state[..]].concat();
    let child = enqueue(&aws, &slowly).spawn().unwrap();
    until_saved(&state).await;
    signal(&child, "INT");
    let (code, _, stderr) = shown(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("hint: to go on, run the same command again"), "{stderr}");
    let waiting = aws.depth(&aws.queue).await.0 as usize;
    assert!(0 < waiting && waiting < keys.len(), "{waiting}");

    let (code, _, stderr) = run(&aws, &[&[source.as_str()], &with_state[..]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains(&format!("{} enqueued, 0 skipped", keys.len() - waiting)), "{stderr}");
    assert!(!state.exists());
    let mut expected = keys;
    expected.sort();
    assert_eq!(queued_keys(&aws).await, expected);
}

#[tokio::test]
async fn a_crash_leaves_no_gap() {
    let aws = Aws::new().await;
    let keys: BTreeSet<String> = (0..200).map(|n| format!("{n:03}")).collect();
    let (_, source) = aws.existing(keys.iter().cloned()).await;
    let (dir, state) = state_file();
    let with_state = [source.as_str(), "--state", state.to_str().unwrap()];
    let mut child = enqueue(&aws, &[&with_state[..], &["--rate", "20"]].concat()).spawn().unwrap();
    until_saved(&state).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let (code, _, stderr) = run(&aws, &with_state);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.contains("200 listed"), "it began anew: {stderr}");
    assert_eq!(queued_keys(&aws).await.into_iter().collect::<BTreeSet<_>>(), keys);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn without_a_state_file_the_hint_says_how_to_go_on() {
    let aws = Aws::new().await;
    let keys: Vec<String> = (0..100).map(|n| format!("it's {n:03}")).collect();
    let (_, source) = aws.existing(keys.iter().cloned()).await;
    let child = enqueue(&aws, &[&source, "--rate", "20"]).spawn().unwrap();
    wait::until("the first batch", || async { (aws.depth(&aws.queue).await.0 >= 10).then_some(()) }).await;
    signal(&child, "TERM");
    let (code, _, stderr) = shown(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(2), "{stderr}");
    let go_on = stderr.lines().find_map(|line| line.strip_prefix("hint: to go on, run the same command with ")).unwrap();
    // As a shell reads it.
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("exec {} enqueue {source} {go_on}", env!("CARGO_BIN_EXE_clamgate"))]).env_clear();
    shell.envs(aws::environment()).env("CLAMGATE_QUEUE__URL", &aws.queue);
    let (code, _, stderr) = shown(&shell.output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(queued_keys(&aws).await, keys);
}

#[tokio::test]
async fn only_what_is_selected() {
    let aws = Aws::new().await;
    aws.take_all().await;
    let bucket = aws.silent_bucket().await;
    let snapshot = Snapshot::take(&signatures()).unwrap();
    let current = ScannedWith::new(snapshot.version().unwrap(), &snapshot.fingerprint().unwrap()).to_string();
    let tagged = [
        ("current", vec![("clamgate-status", "CLEAN"), ("clamgate-definitions", current.as_str())]),
        ("newer", vec![("clamgate-status", "CLEAN"), ("clamgate-definitions", "1 ffff")]),
        ("none", vec![]),
        ("older", vec![("clamgate-status", "INFECTED"), ("clamgate-definitions", "0 ffff")]),
        ("status", vec![("clamgate-status", "CLEAN")]),
        ("theirs", vec![("team", "a")]),
    ];
    for (key, tags) in &tagged {
        let tags: Vec<String> = tags.iter().map(|(name, value)| format!("{name}={}", value.replace(' ', "%20"))).collect();
        let put = aws.s3.put_object().bucket(&bucket).key(*key).body(b"x".to_vec().into());
        put.tagging(tags.join("&")).send().await.unwrap();
    }
    let source = format!("s3://{bucket}/");
    let db = signatures().display().to_string();
    for (options, expected) in [
        (vec![], "current newer none older status theirs"),
        (vec!["--untagged"], "none theirs"),
        (vec!["--older-than-definitions", "--db", &db], "none older status theirs"),
        (vec!["--since", "2001-01-01", "--untagged"], "none theirs"),
        (vec!["--since", "2999-01-01T00:00:00Z"], ""),
        (vec!["--limit", "3"], "current newer none"),
        (vec!["--start-after", "older"], "status theirs"),
    ] {
        let (code, stdout, stderr) = run(&aws, &[&[source.as_str(), "--dry-run"], &options[..]].concat());
        assert_eq!(code, Some(0), "{options:?}: {stderr}");
        let found: Vec<&str> = stdout.lines().map(|line| line.strip_prefix(&source).unwrap()).collect();
        assert_eq!(found.join(" "), expected, "{options:?}");
    }
    // A run that began with other definitions goes on with those, and not with what is current by now.
    let (_dir, state) = state_file();
    let begun = json!({"schema": "clamgate.enqueue/1", "start_after": null, "work": {
        "source": source, "queue_url": aws.queue, "versions": false, "trace_id": null, "custom": null,
        "selection": {"since": null, "tags": {"older_than": "0 ffff"}, "tag_prefix": "clamgate-"},
    }});
    fs::write(&state, begun.to_string()).unwrap();
    let resumed = [source.as_str(), "--dry-run", "--older-than-definitions", "--db", &db, "--state", state.to_str().unwrap()];
    let (code, stdout, stderr) = run(&aws, &resumed);
    assert_eq!((code, stdout.replace(&source, "").as_str()), (Some(0), "current\nnone\nstatus\ntheirs\n"), "{stderr}");
    assert!(stderr.contains(&format!("older than 0 ffff, as this run began; then run it again for {current}")), "{stderr}");
    assert_eq!(aws.depth(&aws.queue).await, (0, 0), "a dry run sends nothing");

    let with = ["--trace-id", "case 17", "--custom", r#"{"by": "me"}"#];
    let job = json!({"bucket": bucket, "key": "none", "if_exists": true, "trace_id": "case 17", "custom": {"by": "me"}});
    let arguments = [&[source.as_str(), "--untagged", "--limit", "1"], &with[..]].concat();
    let (_, stdout, _) = run(&aws, &[&arguments[..], &["--dry-run", "--format", "json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap(), job);
    let (code, stdout, stderr) = run(&aws, &arguments);
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("--start-after 'none'"), "{stderr}");
    let found = aws.take_all().await;
    assert_eq!(serde_json::from_str::<Value>(&found[0]).unwrap(), json!({"schema": "clamgate.job/1", "objects": [job]}));
    assert_eq!(found.len(), 1);
}

#[tokio::test]
async fn versions_are_pinned_and_delete_markers_left_out() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    aws.take_all().await;
    let mut expected = Vec::new();
    for key in ["1", "2", "2", "2", "3"] {
        let put = aws.s3.put_object().bucket(&aws.uploads).key(key).body(b"hello world".to_vec().into());
        expected.push((key.to_owned(), put.send().await.unwrap().version_id));
    }
    aws.s3.delete_object().bucket(&aws.uploads).key("3").send().await.unwrap();
    aws.take_all().await;
    let source = format!("s3://{}", aws.uploads);
    let sorted = |mut pairs: Vec<(String, Option<String>)>| {
        pairs.sort();
        pairs
    };
    // One after the other, by the limit: the versions of a key stay together.
    let (code, _, stderr) = run(&aws, &[&source, "--versions", "--limit", "2"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("4 enqueued") && stderr.contains("--start-after '2'"), "{stderr}");
    let (code, _, stderr) = run(&aws, &[&source, "--versions", "--start-after", "2"]);
    assert_eq!(code, Some(0), "{stderr}");
    let found = jobs(&aws).await;
    assert!(found.iter().all(|job| job.size == Some(11) && job.etag.is_some()), "{found:?}");
    assert_eq!(sorted(found.into_iter().map(|job| (job.key, job.version_id)).collect()), sorted(expected));

    // Without --versions: what is there now, whatever that will be. The key under the delete marker is not.
    let (code, _, stderr) = run(&aws, &[&source]);
    assert_eq!(code, Some(0), "{stderr}");
    let found = jobs(&aws).await;
    assert_eq!(
        sorted(found.into_iter().map(|job| (job.key, job.version_id)).collect()),
        [("1".into(), None), ("2".into(), None)]
    );
}

#[tokio::test]
async fn a_null_version_behind_a_newer_one_is_not_passed_over_in_silence() {
    let aws = Aws::new().await;
    let (bucket, source) = aws.existing(["alone".to_owned(), "covered".to_owned()]).await;
    let enabled = aws_sdk_s3::types::VersioningConfiguration::builder();
    let enabled = enabled.status(aws_sdk_s3::types::BucketVersioningStatus::Enabled).build();
    aws.s3.put_bucket_versioning().bucket(&bucket).versioning_configuration(enabled).send().await.unwrap();
    aws.fill(&bucket, ["covered".to_owned()]).await;
    let (code, _, stderr) = run(&aws, &[&source, "--versions"]);
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("1 null version"), "{stderr}");
    let found: Vec<_> = jobs(&aws).await.into_iter().map(|job| (job.key, job.version_id.is_some())).collect();
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([("alone".into(), false), ("covered".into(), true)]));
}

#[tokio::test]
async fn a_second_worker_takes_its_share() {
    let aws = Aws::new().await;
    let keys: BTreeSet<String> = (0..100).map(|n| format!("{n:03}")).collect();
    let (bucket, source) = aws.existing(keys.iter().cloned()).await;
    let (_dir, state) = state_file();
    let with_state = [source.as_str(), "--state", state.to_str().unwrap()];
    let stay = [("CLAMGATE_ACTIONS__PROMOTE_TO", "")];

    let one = Service::start(&aws, &stay).await;
    let (code, _, stderr) = run(&aws, &[&with_state[..], &["--limit", "20"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    one.until_logged("object scanned", 20).await;
    let two = Service::start(&aws, &stay).await;
    let (code, _, stderr) = run(&aws, &with_state);
    assert_eq!(code, Some(0), "{stderr}");
    aws.until_drained().await;
    let scanned = |service: &Service| service.logged("object scanned").len();
    assert!(scanned(&one) > 20 && scanned(&two) > 0, "{} and {}", scanned(&one), scanned(&two));
    assert_eq!(scanned(&one) + scanned(&two), keys.len());
    for key in ["000", "020", "099"] {
        assert_eq!(aws.get(&bucket, key).await.unwrap().status(), Some("CLEAN"), "{key}");
    }
    let reported: BTreeSet<String> =
        aws.reports(keys.len()).await.iter().map(|report| report["target"]["key"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reported, keys);
}

/// A queue that refuses some messages: `refuses` is asked with the number of the request and the place in the batch. Its URL, and the
/// bodies that it took.
fn refusing_queue(refuses: fn(usize, usize) -> bool) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let bodies = Arc::clone(&taken);
    std::thread::spawn(move || {
        for (request, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let (mut successful, mut failed) = (Vec::new(), Vec::new());
            for (place, entry) in body["Entries"].as_array().unwrap().iter().enumerate() {
                if refuses(request, place) {
                    failed.push(json!({"Id": entry["Id"], "Code": "InternalError", "SenderFault": false}));
                } else {
                    bodies.lock().unwrap().push(entry["MessageBody"].as_str().unwrap().to_owned());
                    successful.push(json!({"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "0"}));
                }
            }
            let answer = json!({"Successful": successful, "Failed": failed}).to_string();
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length";
            write!(stream.get_mut(), "{head}: {}\r\n\r\n{answer}", answer.len()).unwrap();
        }
    });
    (url, taken)
}

#[tokio::test]
async fn what_the_queue_refuses_is_sent_again_alone() {
    let aws = Aws::new().await;
    let (bucket, source) = aws.existing((0..25).map(|n| format!("{n:02}"))).await;
    let (url, taken) = refusing_queue(|request, place| request < 3 && place % 2 == 0);
    let mut command = enqueue(&aws, &[&source, "--queue-url", &format!("{url}/1/q")]);
    let (code, _, stderr) = shown(&command.env("AWS_ENDPOINT_URL_SQS", &url).output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    let mut taken = taken.lock().unwrap().clone();
    taken.sort();
    let object = |n: usize| json!({"bucket": bucket, "key": format!("{n:02}"), "if_exists": true});
    let body = |n: usize| json!({"schema": "clamgate.job/1", "objects": [object(n)]});
    let taken: Vec<Value> = taken.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    assert_eq!(taken, (0..25).map(body).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_the_queue_never_takes_is_an_error_and_where_to_go_on_is_before_it() {
    let aws = Aws::new().await;
    let (_, source) = aws.existing((0..25).map(|n| format!("{n:02}"))).await;
    // The first of each batch, and so of each batch of it alone.
    let (url, taken) = refusing_queue(|_, place| place == 0);
    let (_dir, state) = state_file();
    let queue_url = format!("{url}/1/q");
    let arguments = [source.as_str(), "--state", state.to_str().unwrap(), "--queue-url", &queue_url];
    let (code, _, stderr) = shown(&enqueue(&aws, &arguments).env("AWS_ENDPOINT_URL_SQS", &url).output().unwrap());
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("error: SendMessageBatch: InternalError"), "{stderr}");
    let state: Value = serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
    assert_eq!(state["start_after"], Value::Null, "one of the first ten was never taken");
    assert!(taken.lock().unwrap().iter().all(|body| !body.contains(r#""key":"00""#)));
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let aws = Aws::new().await;
    let (_, source) = aws.existing(["k".to_owned()]).await;
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let state_of = |source: &str, prefix: &str| {
        json!({"schema": "clamgate.enqueue/1", "start_after": "zzz", "work": {
            "source": source, "queue_url": aws.queue, "versions": false, "trace_id": null, "custom": null,
            "selection": {"since": null, "tags": "any", "tag_prefix": prefix},
        }})
        .to_string()
    };
    let (other_state, no_state) = (file("other", &state_of("s3://other/", "clamgate-")), file("none", "precious"));
    let other_tags = file("tags", &state_of(&source, "theirs-"));
    let below = format!("{source}in/");
    let elsewhere = file("elsewhere", &state_of(&below, "clamgate-"));
    let long = "x".repeat(257);
    let no_queue = format!("{}-missing", aws.queue);
    for (arguments, code, says) in [
        (vec![], 64, "S3-LOCATION"),
        (vec!["/tmp"], 64, "not of the form s3://bucket/prefix/"),
        (vec!["s3://b/prefix"], 64, "must end in /"),
        (vec![&source, "--since", "yesterday"], 64, "neither a date"),
        (vec![&source, "--limit", "0"], 64, "--limit"),
        (vec![&source, "--rate", "0"], 64, "--rate"),
        (vec![&source, "--custom", "[1]"], 64, "not a JSON object"),
        (vec![&source, "--trace-id", &long], 64, "at most 256 characters"),
        (vec![&source, "--untagged", "--older-than-definitions"], 64, "cannot be used with"),
        (vec![&source, "--state", "s", "--start-after", "k"], 64, "cannot be used with"),
        (vec![&source, "--queue-url", "http://q/1/jobs.fifo"], 64, "a standard queue is needed"),
        (vec![&source, "--state", &other_state], 64, "s3://other/"),
        (vec![&source, "--state", &other_tags], 64, "theirs-"),
        // Nothing would have been listed, and all of it been called done.
        (vec![&below, "--state", &elsewhere], 64, "'zzz' is not in s3://"),
        (vec![&below, "--start-after", "inn"], 64, "'inn' is not in s3://"),
        (vec![&source, "--state", &no_state], 64, "not one of clamgate enqueue"),
        (vec![&source, "--state", "/no/such/dir/state"], 2, "/no/such/dir/state"),
        (vec![&source, "--older-than-definitions", "--db", "/no/such/dir"], 2, "which definitions are current"),
        (vec!["s3://no-such-bucket-here"], 2, "NoSuchBucket"),
        (vec![&source, "--queue-url", &no_queue], 2, "SendMessageBatch"),
    ] {
        let (found, stdout, stderr) = run(&aws, &arguments);
        assert_eq!((found, stdout.as_str()), (Some(code), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(says), "{arguments:?}: {stderr}");
    }
    let mut unset = enqueue(&aws, &[&source]);
    let (code, _, stderr) = shown(&unset.env_remove("CLAMGATE_QUEUE__URL").output().unwrap());
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("--queue-url"), "{stderr}");
    assert_eq!(fs::read_to_string(no_state).unwrap(), "precious");
}

#[tokio::test]
async fn scanning_our_own_results_is_warned_of() {
    let aws = Aws::new().await;
    let bucket = aws.silent_bucket().await;
    for (promote_to, options, warns) in [
        (format!("s3://{bucket}/clean/"), vec![], true),
        (format!("s3://{bucket}-other/"), vec![], false),
        (format!("s3://{bucket}-other/"), vec!["--versions"], true),
    ] {
        let source = format!("s3://{bucket}/");
        let mut command = enqueue(&aws, &[&[source.as_str()], &options[..]].concat());
        let (code, _, stderr) = shown(&command.env("CLAMGATE_ACTIONS__PROMOTE_TO", &promote_to).output().unwrap());
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stderr.contains("warning: "), warns, "{promote_to} {options:?}: {stderr}");
    }
}

#[tokio::test]
async fn after_an_update_what_was_scanned_before_it_is_scanned_again_once() {
    let aws = Aws::new().await;
    let (_, source) = aws.existing(["1".to_owned(), "2".to_owned()]).await;
    let service = Service::start(&aws, &[("CLAMGATE_ACTIONS__PROMOTE_TO", "")]).await;
    let db = service.dir.path().join("db").display().to_string();
    let enqueued = async || {
        let (code, _, stderr) = run(&aws, &[&source, "--older-than-definitions", "--db", &db]);
        assert_eq!(code, Some(0), "{stderr}");
        aws.until_drained().await;
        stderr.split(' ').nth(2).unwrap().parse::<u32>().unwrap()
    };
    assert_eq!(enqueued().await, 2, "never scanned");
    assert_eq!(enqueued().await, 0);
    fs::write(service.database("more.hdb"), "00000000000000000000000000000000:12345:More\n").unwrap();
    service.signal("HUP");
    service.until_logged("definitions reloaded", 1).await;
    assert_eq!(enqueued().await, 2, "scanned with other definitions");
    assert_eq!(enqueued().await, 0);
}

/// Behind a firewall, nothing else gets out. The SDK does so by itself, unless it is given a client.
#[test]
fn requests_to_aws_take_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = clamgate();
    command.envs(aws::environment()).env_remove("no_proxy").env_remove("NO_PROXY");
    command.env("AWS_ENDPOINT_URL", "http://s3.invalid").env("http_proxy", format!("http://{}", proxy.local_addr().unwrap()));
    command.env("CLAMGATE_QUEUE__URL", "http://sqs.invalid/1/queue").args(["enqueue", "s3://somebodys"]);
    let (sender, asked) = mpsc::channel();
    // It waits for ever if nobody asks the proxy.
    thread::spawn(move || {
        let (mut connection, _) = proxy.accept().unwrap();
        let mut request = String::new();
        BufReader::new(&connection).read_line(&mut request).unwrap();
        sender.send(request).unwrap();
        connection.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").unwrap();
    });
    let (code, _, stderr) = shown(&command.output().unwrap());
    let request = asked.try_recv().unwrap_or_default();
    assert!(request.starts_with("GET http://s3.invalid/somebodys"), "{request}: {stderr}");
    assert_eq!(code, Some(2), "{stderr}");
}
