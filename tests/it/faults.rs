//! Everything at once: every sink configured, each of them failing at random, and `kill -9` at random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;

use crate::aws::{Aws, Setup};
use crate::chance::Chance;
use crate::postgres::Postgres;
use crate::proxy::{Answer, Proxy};
use crate::receiver::{Does, OK, Receiver};
use crate::samples::{self, eicar};
use crate::service::Service;
use crate::sinks_aws::Listeners;
use crate::sinks_mail::notify;
use crate::wait;

const OBJECTS: usize = 500;
const KILLS: usize = 8;
const DELAYED: &str = "report not delivered yet";
/// How servers over HTTP fail; of so many requests, each way meets one.
const FAILURES: [Does; 3] = [Does::Says("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), Does::Closes, Does::Hangs];
const OF_REQUESTS: usize = 8;
/// Of so many reports to AWS, one meets an error.
const OF_CALLS: usize = 16;

/// What somebody was told, by the object's key. The same text twice is one.
type Told = BTreeMap<String, BTreeSet<String>>;

fn told<'a>(texts: impl IntoIterator<Item = &'a str>) -> Told {
    let mut told = Told::new();
    for text in texts {
        let report: Value = serde_json::from_str(text).unwrap();
        let key = report["target"]["key"].as_str().unwrap().to_owned();
        told.entry(key).or_default().insert(text.to_owned());
    }
    told
}

/// All messages of a queue.
async fn drain(aws: &Aws, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    loop {
        let request = aws.sqs.receive_message().queue_url(queue).max_number_of_messages(10);
        let received = request.send().await.unwrap().messages.unwrap_or_default();
        if received.is_empty() && aws.depth(queue).await == (0, 0) {
            return bodies;
        }
        for message in received {
            let receipt = message.receipt_handle().unwrap();
            aws.sqs.delete_message().queue_url(queue).receipt_handle(receipt).send().await.unwrap();
            bodies.push(message.body.unwrap());
        }
    }
}

async fn objects(aws: &Aws, bucket: &str, prefix: &str) -> Vec<String> {
    let mut texts = Vec::new();
    for key in aws.keys(bucket).await.into_iter().filter(|key| key.starts_with(prefix)) {
        texts.push(String::from_utf8(aws.get(bucket, &key).await.unwrap().body).unwrap());
    }
    texts
}

#[tokio::test]
async fn whatever_fails_each_object_has_one_place_and_everybody_was_told_the_same() {
    let aws = Aws::with(Setup { versioned: true, receives: 1000 }).await;
    let listeners = Listeners::new(&aws).await;
    let topic = listeners.topic("faults").await;
    let from_topic = listeners.subscriber(&topic, "from-topic", "").await;
    let (bus, from_bus) = listeners.bus("faults", "clamgate").await;
    let silent = aws.silent_bucket().await;
    let mut server = Postgres::new();
    server.start();
    let database = server.make_database().await;
    let chance = Chance::new();
    let receiver = |name| {
        let decisions = chance.of(name);
        Receiver::that(move || FAILURES.get(decisions.below(OF_REQUESTS)).copied().unwrap_or(Does::Says(OK)))
    };
    let (mut app, mut notify_server, mut ses) = (receiver("app").await, receiver("notify").await, receiver("ses").await);
    let of_aws = ["SendMessageBatch", "Publish", "PutEvents", "PutObject"].map(|operation| (operation, chance.of(operation)));
    let proxy = Proxy::start(move |call| {
        let is_report = call.operation != "PutObject" || call.key.starts_with("results/");
        let mut decisions = of_aws.iter().filter(|(operation, _)| is_report && *operation == call.operation);
        let fails = decisions.any(|(_, decisions)| decisions.below(OF_CALLS) == 0);
        async move { if fails { Answer::Stumble } else { Answer::Forward } }.boxed()
    })
    .await;
    let kills_at = chance.of("kills");
    let database_away = 1 + chance.of("database").below(KILLS / 2);

    let mut expected = [BTreeSet::new(), BTreeSet::new()];
    for n in 0..OBJECTS {
        let (bad, body) = if n % 5 == 0 { (1, eicar()) } else { (0, samples::noise(100 + n)) };
        let key = format!("{n:03}");
        let request = aws.s3.put_object().bucket(&aws.uploads).key(&key).body(body.into());
        request.metadata("uploader-email", "a@example.gov.uk").send().await.unwrap();
        expected[bad].insert(key);
    }

    let sink = |name: &str, field: &str| format!("CLAMGATE_REPORT__SINKS__{name}__{field}");
    let mut settings = vec![
        // Short leases, so that the messages of a killed process come back soon.
        ("CLAMGATE_QUEUE__VISIBILITY_TIMEOUT_SECS".to_owned(), "10".to_owned()),
        ("CLAMGATE_REPORT__OUTBOX".to_owned(), format!("s3://{silent}/outbox/")),
        (sink("TOPIC", "SNS__TOPIC_ARN"), topic),
        (sink("BUS", "EVENT_BRIDGE__BUS"), bus),
        (sink("FILES", "S3__TO"), format!("s3://{silent}/results/{{key}}.json")),
        (sink("DB", "POSTGRES__URL"), database.url()),
        (sink("APP", "WEBHOOK__URL"), app.url.clone()),
        (sink("NOTIFY", "NOTIFY"), notify(&notify_server.url)),
        (
            sink("SES", "SES"),
            "{ from = 'scans@example.gov.uk', to = { metadata = 'uploader-email' }, to_domains = ['example.gov.uk'], \
             subject = '{key}', body = 'No.', values = { key = { report = 'key' } } }"
                .to_owned(),
        ),
        ("AWS_ENDPOINT_URL".to_owned(), proxy.url.clone()),
        ("AWS_ENDPOINT_URL_SESV2".to_owned(), ses.url.clone()),
    ];
    for name in ["NOTIFY", "SES"] {
        settings.push((sink(name, "STATUSES"), "['INFECTED']".to_owned()));
    }
    for name in ["APP", "NOTIFY", "SES"] {
        settings.push((sink(name, "TIMEOUT_SECS"), "1".to_owned()));
    }
    let settings: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut service = Service::new(&aws, &settings);
    let mut kills = 0;
    loop {
        service.spawn();
        service.until_ready().await;
        if kills == database_away {
            // The database is away until somebody has noticed.
            let before = service.logged(DELAYED).len();
            server.kill();
            wait::until("a report that waits for the database", || async {
                let since = service.logged(DELAYED).split_off(before);
                since.iter().any(|line| line["sink"] == "db").then_some(())
            })
            .await;
            server.start();
        }
        let left = aws.keys(&aws.uploads).await.len();
        if left == 0 || kills == KILLS {
            break;
        }
        // Killed after some objects more, in the midst of the next ones.
        let stop_at = left.saturating_sub(10 + kills_at.below(60));
        wait::until("some progress", || async { (aws.keys(&aws.uploads).await.len() <= stop_at).then_some(()) }).await;
        service.signal("KILL");
        service.until_ended().await;
        kills += 1;
    }
    assert!(kills > KILLS / 2, "killed {kills} times only");
    wait::until_within(Duration::from_secs(300), "an empty queue", || async {
        (aws.depth(&aws.queue).await == (0, 0)).then_some(())
    })
    .await;
    assert_eq!(aws.depth(&aws.dead_letters).await, (0, 0));

    // Nobody got everything at once.
    let failed: BTreeSet<String> =
        service.logged(DELAYED).iter().map(|line| line["sink"].as_str().unwrap().to_owned()).collect();
    assert_eq!(failed, ["app", "bus", "db", "files", "notify", "queue", "ses", "topic"].map(str::to_owned).into());

    // Each object is in its one place, once.
    assert!(aws.keys(&aws.uploads).await.is_empty());
    for (bucket, keys) in [(&aws.clean, &expected[0]), (&aws.quarantine, &expected[1])] {
        let listed = aws.s3.list_object_versions().bucket(bucket).send().await.unwrap();
        assert_eq!(listed.is_truncated(), Some(false));
        let versions: Vec<&str> = listed.versions().iter().filter_map(|version| version.key()).collect();
        assert_eq!(versions, keys.iter().map(String::as_str).collect::<Vec<_>>(), "{bucket}");
    }

    // Everybody was told of each object, in the same words.
    let kept = told(objects(&aws, &silent, "outbox/").await.iter().map(String::as_str));
    assert!(kept.values().all(|texts| texts.len() == 1), "an object was written down twice");
    assert_eq!(kept.len(), OBJECTS);
    let webhooks = app.rest();
    for (name, told) in [
        ("SQS", told(drain(&aws, &aws.results).await.iter().map(String::as_str))),
        ("SNS", told(drain(&aws, &from_topic).await.iter().map(String::as_str))),
        ("S3", told(objects(&aws, &silent, "results/").await.iter().map(String::as_str))),
        ("webhook", told(webhooks.iter().map(|request| request.body.as_str()))),
    ] {
        assert!(told == kept, "{name} was told otherwise: {}", difference(&kept, &told));
    }
    let json = |told: &Told| told.values().flatten().map(|text| serde_json::from_str(text).unwrap()).collect::<Vec<Value>>();
    let mut events: Vec<Value> = drain(&aws, &from_bus).await.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    events.sort_by_key(|event| event["detail"]["target"]["key"].to_string());
    events.dedup_by(|one, other| one["detail"] == other["detail"]);
    assert_eq!(events.into_iter().map(|event| event["detail"].clone()).collect::<Vec<_>>(), json(&kept), "EventBridge");
    let rows = database.rows("select report from clamgate_scans order by key").await;
    assert_eq!(rows.into_iter().map(|row| row["report"].clone()).collect::<Vec<_>>(), json(&kept), "PostgreSQL");

    // Of an infected object, its uploader was told, in the same words each time.
    let infected: BTreeSet<&str> = expected[1].iter().map(String::as_str).collect();
    let references = |key: &&str| {
        let report: Value = serde_json::from_str(kept[*key].first().unwrap()).unwrap();
        format!("{}-INFECTED", report["scan_id"].as_str().unwrap())
    };
    let references: BTreeSet<String> = infected.iter().map(references).collect();
    let mails: BTreeSet<String> = notify_server.rest().into_iter().map(|request| request.body).collect();
    let found = |mail: &String| serde_json::from_str::<Value>(mail).unwrap()["reference"].as_str().unwrap().to_owned();
    assert_eq!(mails.len(), infected.len(), "Notify got different texts for one object");
    assert_eq!(mails.iter().map(found).collect::<BTreeSet<_>>(), references);
    let mails: BTreeSet<String> = ses.rest().into_iter().map(|request| request.body).collect();
    let found = |mail: &String| {
        let mail: Value = serde_json::from_str(mail).unwrap();
        mail["Content"]["Simple"]["Subject"]["Data"].as_str().unwrap().to_owned()
    };
    assert_eq!(mails.len(), infected.len(), "SES got different texts for one object");
    assert_eq!(mails.iter().map(found).collect::<BTreeSet<_>>(), infected.into_iter().map(str::to_owned).collect());
}

/// The first objects of which somebody was told otherwise.
fn difference(kept: &Told, told: &Told) -> String {
    let all: BTreeSet<&String> = kept.keys().chain(told.keys()).collect();
    let differ = all.into_iter().filter(|key| kept.get(*key) != told.get(*key)).take(3);
    differ.map(|key| format!("{key}: {:?} and {:?}", kept.get(key), told.get(key))).collect::<Vec<_>>().join("; ")
}
