//! `clamgate redrive` on real queues.

use std::collections::{BTreeSet, HashMap};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use aws_sdk_sqs::primitives::Blob;
use aws_sdk_sqs::types::{Message, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName};

use crate::aws::{self, Aws, Setup};
use crate::service::{Service, clamgate};
use crate::wait;

fn redrive(aws: &Aws, arguments: &[&str]) -> Command {
    let mut command = clamgate();
    command.envs(aws::environment()).env("CLAMGATE_QUEUE__URL", &aws.queue);
    command.arg("redrive").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit code, standard output, standard error.
fn shown(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Without keeping others on this thread from their work.
async fn run(aws: &Aws, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::from(redrive(aws, arguments));
    let ended = tokio::time::timeout(Duration::from_secs(180), command.kill_on_drop(true).output()).await;
    shown(&ended.expect("it goes on for ever").unwrap())
}

fn job(key: &str) -> String {
    format!(r#"{{"schema":"clamgate.job/1","objects":[{{"bucket":"b","key":"{key}"}}]}}"#)
}

async fn bury(aws: &Aws, bodies: impl IntoIterator<Item = String>) {
    for body in bodies {
        aws.sqs.send_message().queue_url(&aws.dead_letters).message_body(body).send().await.unwrap();
    }
}

/// Takes all messages that can be seen.
async fn take(aws: &Aws, queue: &str) -> Vec<Message> {
    let mut taken = Vec::new();
    loop {
        let request = aws.sqs.receive_message().queue_url(queue).max_number_of_messages(10).message_attribute_names("All");
        let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
        let received = request.send().await.unwrap().messages.unwrap_or_default();
        if received.is_empty() {
            return taken;
        }
        for message in received {
            let receipt = message.receipt_handle().unwrap();
            aws.sqs.delete_message().queue_url(queue).receipt_handle(receipt).send().await.unwrap();
            taken.push(message);
        }
    }
}

async fn bodies(aws: &Aws, queue: &str) -> BTreeSet<String> {
    take(aws, queue).await.into_iter().filter_map(|message| message.body).collect()
}

#[tokio::test]
async fn dead_letters_are_looked_at_and_moved_back_with_all_that_they_carry() {
    let aws = Aws::new().await;
    aws.take_all().await;
    let text = MessageAttributeValue::builder().data_type("String").string_value("ü").build().unwrap();
    let bytes = MessageAttributeValue::builder().data_type("Binary.x").binary_value(Blob::new([0, 255])).build().unwrap();
    let sent = HashMap::from([("text".to_owned(), text), ("bytes".to_owned(), bytes)]);
    let send = aws.sqs.send_message().queue_url(&aws.dead_letters).message_body(job("a b/ü"));
    send.set_message_attributes(Some(sent.clone())).send().await.unwrap();
    bury(&aws, ["hello \u{85}".to_owned()]).await;

    let (code, stdout, stderr) = run(&aws, &["--dry-run"]).await;
    assert_eq!((code, stderr.as_str()), (Some(0), "2 shown of about 2 that would be moved\n"));
    let lines: BTreeSet<String> = stdout.lines().map(|line| line.splitn(3, ' ').nth(2).unwrap().to_owned()).collect();
    assert!(lines.contains("s3://b/a b/ü") && lines.iter().any(|line| line.starts_with("not understood: ")), "{stdout}");
    assert_eq!((aws.depth(&aws.queue).await, aws.depth(&aws.dead_letters).await), ((0, 0), (2, 0)), "moved or hidden");

    let (code, stdout, stderr) = run(&aws, &[]).await;
    assert_eq!((code, stdout.as_str()), (Some(0), ""), "{stderr}");
    assert!(stderr.starts_with("2 moved, 0 left that arrived meanwhile"), "{stderr}");
    assert_eq!(aws.depth(&aws.dead_letters).await, (0, 0));
    let moved = take(&aws, &aws.queue).await;
    let first = moved.iter().find(|message| message.body() == Some(&job("a b/ü"))).unwrap();
    assert_eq!((moved.len(), first.message_attributes()), (2, Some(&sent)));
}

#[tokio::test]
async fn no_more_than_asked_for() {
    let aws = Aws::new().await;
    aws.take_all().await;
    bury(&aws, (0..25).map(|n| job(&n.to_string()))).await;
    for (arguments, moved) in [(&["--limit", "12"][..], 12), (&["--limit", "3", "--rate", "1000"], 15), (&[], 25)] {
        let (code, _, stderr) = run(&aws, arguments).await;
        assert_eq!(code, Some(0), "{stderr}");
        let (queue, dead) = (aws.depth(&aws.queue).await, aws.depth(&aws.dead_letters).await);
        assert_eq!((queue, dead), ((moved, 0), (25 - moved, 0)), "{arguments:?}");
    }
}

/// With a consumer that gives up at once, the same messages came back for ever.
#[tokio::test]
async fn what_fails_again_does_not_go_round() {
    let aws = Aws::with(Setup { versioned: false, receives: 1 }).await;
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    bury(&aws, (0..5).map(|n| format!("not understood {n}"))).await;
    let (code, _, stderr) = run(&aws, &["--rate", "2"]).await;
    assert!(code == Some(0) && stderr.starts_with("5 moved"), "{stderr}");
    wait::until("the dead letters", || async {
        let (waiting, hidden) = aws.depth(&aws.dead_letters).await;
        (waiting + hidden == 5 && aws.depth(&aws.queue).await == (0, 0)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_when_it_is_stopped() {
    let aws = Aws::new().await;
    for signal in ["INT", "KILL"] {
        aws.take_all().await;
        let all: BTreeSet<String> = (0..60).map(|n| job(&n.to_string())).collect();
        bury(&aws, all.iter().cloned()).await;
        let child = tokio::process::Command::from(redrive(&aws, &["--rate", "20"])).spawn().unwrap();
        wait::until("the first of them", || async { (aws.depth(&aws.queue).await.0 >= 10).then_some(()) }).await;
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").arg(format!("-{signal}")).arg(pid).status().unwrap().success());
        let ended = child.wait_with_output().await.unwrap();
        if signal == "INT" {
            let (code, _, stderr) = shown(&ended);
            assert_eq!(code, Some(2), "{stderr}");
            assert!(stderr.contains("hint: to go on, run the same command again"), "{stderr}");
            assert_eq!(aws.depth(&aws.dead_letters).await.1, 0, "hidden without need");
        }
        let moved = aws.depth(&aws.queue).await.0;
        assert!(moved < 60, "{moved}");
        let found = std::cell::RefCell::new(bodies(&aws, &aws.queue).await);
        wait::until("the others", || async {
            let more = bodies(&aws, &aws.dead_letters).await;
            found.borrow_mut().extend(more);
            (*found.borrow() == all).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn in_a_fifo_queue_the_order_stays_and_nothing_is_dropped_as_a_duplicate() {
    let aws = Aws::new().await;
    let create = |name: &str| {
        let request = aws.sqs.create_queue().queue_name(format!("{}-{name}.fifo", aws.uploads));
        async move { request.attributes(QueueAttributeName::FifoQueue, "true").send().await.unwrap().queue_url.unwrap() }
    };
    let (dead, queue) = (create("dead").await, create("queue").await);
    let mut expected = Vec::new();
    for n in 0..25 {
        let (group, body) = (format!("g{}", n % 2), job(&n.to_string()));
        // The queue knows the id from the first time.
        for url in [&queue, &dead] {
            let send = aws.sqs.send_message().queue_url(url).message_body(&body).message_group_id(&group);
            send.message_deduplication_id(format!("d{n}")).send().await.unwrap();
        }
        expected.push((group, body));
    }
    // Who worked on them before.
    while !take(&aws, &queue).await.is_empty() {}
    let (code, _, stderr) = run(&aws, &["--from", &dead, "--queue-url", &queue]).await;
    assert!(code == Some(0) && stderr.starts_with("25 moved"), "{stderr}");
    let mut found = Vec::new();
    while found.len() < 25 {
        let taken = take(&aws, &queue).await;
        assert!(!taken.is_empty(), "{found:?}");
        found.extend(taken.into_iter().map(|message| {
            (message.attributes().unwrap()[&MessageSystemAttributeName::MessageGroupId].clone(), message.body.unwrap())
        }));
    }
    for group in ["g0", "g1"] {
        let of_group = |all: &[(String, String)]| -> Vec<String> {
            all.iter().filter(|(name, _)| name == group).map(|(_, body)| body.clone()).collect()
        };
        assert_eq!(of_group(&found), of_group(&expected));
    }
}

#[tokio::test]
async fn a_letter_that_cannot_be_sent_stays() {
    let aws = Aws::new().await;
    bury(&aws, [job("k")]).await;
    let nowhere = format!("{}-nowhere", aws.queue);
    let (code, _, stderr) = run(&aws, &["--from", &aws.dead_letters, "--queue-url", &nowhere]).await;
    assert!(code == Some(2) && stderr.contains("0 moved") && stderr.contains("SendMessage"), "{stderr}");
    assert_eq!(aws.depth(&aws.dead_letters).await, (1, 0));
}

#[tokio::test]
async fn what_cannot_be_asked_for() {
    let aws = Aws::new().await;
    let (dead, fifo) = (aws.dead_letters.as_str(), format!("{}.fifo", aws.queue));
    for (arguments, code, said) in [
        (&["--queue-url", dead][..], 64, "has no redrive policy"),
        (&["--from", dead, "--queue-url", dead], 64, "moved to itself"),
        (&["--from", dead, "--queue-url", &fifo], 64, "both be FIFO queues"),
        (&["--limit", "0"], 64, "--limit"),
        (&["--from", &format!("{dead}-nowhere")], 2, "cannot use"),
        (&["--queue-url", &format!("{dead}-nowhere")], 2, "cannot use"),
    ] {
        let (found, _, stderr) = run(&aws, arguments).await;
        assert!(found == Some(code) && stderr.contains(said), "{arguments:?}: {found:?} {stderr}");
    }
    let mut nameless = redrive(&aws, &[]);
    let (code, _, stderr) = shown(&nameless.env_remove("CLAMGATE_QUEUE__URL").output().unwrap());
    assert!(code == Some(64) && stderr.contains("--queue-url"), "{stderr}");
}
