//! Tells everybody, each with a patience of its own.

use std::io;
use std::time::Duration;

use aws_config::SdkConfig;
use futures_util::future::{BoxFuture, join_all};
use tokio::time::{Instant, sleep, timeout};

use super::{
    EventBridgeSink, Needs, Notice, NotifySink, ObjectSink, PostgresSink, SesSink, Sink, SinkError, SnsSink, SqsSink,
    WebhookSink,
};
use crate::aws;
use crate::backoff::backoff;
use crate::config::{ReportConfig, SinkConfig, SinkKind};
use crate::engine::Status;
use crate::telemetry::events;

/// The pauses between attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a receiver gets when it asks for one.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(120);

/// Everybody who is told.
#[derive(Default)]
pub struct Sinks(Vec<Configured>);

/// A sink, and how much it matters that its reports arrive.
struct Configured {
    name: String,
    sink: Box<dyn Sink>,
    required: bool,
    statuses: Option<Vec<Status>>,
    timeout: Duration,
    retry_for: Duration,
}

impl Sinks {
    /// The sinks of a configuration without [problems](crate::config::Config::problems).
    ///
    /// # Errors
    ///
    /// When a sink cannot work on this machine: when there are no certificates to trust, for example.
    pub fn new(config: &ReportConfig, sdk: &SdkConfig) -> io::Result<Self> {
        let mut sinks = Vec::new();
        for (name, config) in config.sinks() {
            let Some(kind) = config.kind() else { continue };
            let sink = sink(kind, sdk)
                .map_err(|error| io::Error::new(error.kind(), format!("cannot use report.sinks.{name}: {error}")))?;
            sinks.push(Configured::new(name, sink, &config));
        }
        Ok(Self(sinks))
    }

    /// What the sinks must know about an object with this status, beside the report.
    #[must_use]
    pub fn needs(&self, status: Status) -> Needs {
        let needs = self.0.iter().filter(|sink| sink.wants(status)).map(|sink| sink.sink.needs());
        needs.fold(Needs::default(), |all, one| Needs { headers: all.headers || one.headers, tags: all.tags || one.tags })
    }

    /// Gets all sinks ready, at the start. What is wrong with one that is not required, or may end by itself, is only logged.
    ///
    /// # Errors
    ///
    /// The first required sink's [`SinkError`] that certainly cannot be used.
    pub async fn prepare(&self) -> Result<(), SinkError> {
        let prepared = join_all(self.0.iter().map(|sink| async move { (sink, sink.within(sink.sink.prepare()).await) })).await;
        for (sink, outcome) in prepared {
            match outcome {
                Ok(()) => {}
                Err(error) if sink.required && !error.can_retry => return Err(error),
                Err(error) => events::sink_not_ready(&error),
            }
        }
        Ok(())
    }

    /// Tells everybody, at the same time, and returns when each has been told or given up. `on_wait` is called when somebody does not
    /// take the report at once, so that this can last.
    ///
    /// # Errors
    ///
    /// The first required sink's [`SinkError`]. Those that are not required, and those with nobody to tell, are only logged and counted.
    pub async fn tell(&self, notice: &Notice<'_>, on_wait: &(dyn Fn() + Sync)) -> Result<(), SinkError> {
        let wanted = self.0.iter().filter(|sink| sink.wants(notice.report.status));
        let told = join_all(wanted.map(|sink| async move { (sink, sink.tell(notice, on_wait).await) })).await;
        let mut first = Ok(());
        for (sink, outcome) in told {
            match outcome {
                Ok(()) => {}
                Err(error) if sink.required && !error.is_pointless => first = first.and(Err(error)),
                Err(error) => events::report_lost(&notice.report.target, &error),
            }
        }
        first
    }
}

impl Configured {
    fn new(name: String, sink: Box<dyn Sink>, config: &SinkConfig) -> Self {
        Self {
            name,
            sink,
            required: config.required,
            statuses: config.statuses.clone(),
            timeout: Duration::from_secs(config.timeout_secs),
            retry_for: Duration::from_secs(config.retry_for_secs),
        }
    }

    fn wants(&self, status: Status) -> bool {
        self.statuses.as_ref().is_none_or(|statuses| statuses.contains(&status))
    }

    /// Attempts until one succeeds, or the time is over.
    async fn tell(&self, notice: &Notice<'_>, on_wait: &(dyn Fn() + Sync)) -> Result<(), SinkError> {
        let until = Instant::now() + self.retry_for;
        for attempt in 1.. {
            let Err(error) = self.within(self.sink.deliver(notice)).await else { break };
            let asked = error.retry_after.unwrap_or_default().min(LONGEST_RETRY_AFTER);
            let pause = backoff(FIRST_PAUSE, attempt, LONGEST_PAUSE).max(asked);
            if !error.can_retry || Instant::now() + pause > until {
                return Err(error);
            }
            events::report_delayed(&notice.report.target, &error, attempt);
            on_wait();
            sleep(pause).await;
        }
        Ok(())
    }

    /// One attempt, within the time that it may take, with the sink's name in its error.
    async fn within(&self, attempt: BoxFuture<'_, Result<(), SinkError>>) -> Result<(), SinkError> {
        let late = |_| Err(SinkError::transient(format!("no answer in {} seconds", self.timeout.as_secs())));
        let done = timeout(self.timeout, attempt).await.unwrap_or_else(late);
        done.map_err(|error| SinkError { sink: self.name.clone(), ..error })
    }
}

fn sink(kind: SinkKind<'_>, sdk: &SdkConfig) -> io::Result<Box<dyn Sink>> {
    Ok(match kind {
        SinkKind::EventBridge(config) => Box::new(EventBridgeSink::new(aws_sdk_eventbridge::Client::new(sdk), config.clone())),
        SinkKind::Notify(config) => Box::new(NotifySink::new(config)?),
        SinkKind::Postgres(config) => Box::new(PostgresSink::new(config.clone())),
        SinkKind::S3(config) => Box::new(ObjectSink::new(aws::s3(sdk), config.clone())),
        SinkKind::Ses(config) => Box::new(SesSink::new(aws::ses(sdk), config)?),
        SinkKind::Sns(config) => Box::new(SnsSink::new(aws_sdk_sns::Client::new(sdk), config.clone())),
        SinkKind::Sqs(config) => Box::new(SqsSink::new(aws::sqs(sdk), config.queue_url.clone())),
        SinkKind::Webhook(config) => Box::new(WebhookSink::new(aws::s3(sdk), config)?),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::{pending, ready};

    use super::super::{About, ScanReport};
    use super::*;
    use crate::report::scan_report::example;

    /// What a sink does, attempt by attempt.
    #[derive(Clone, Copy)]
    enum Answer {
        Takes,
        Fails,
        Refuses,
        Hangs,
        Busy,
        Nobody,
    }
    use Answer::*;

    struct Scripted(Mutex<VecDeque<Answer>>);

    impl Sink for Scripted {
        fn deliver<'a>(&'a self, _: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
            match self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front() {
                Some(Takes) => ready(Ok(())).boxed(),
                Some(Fails) => ready(Err(SinkError::transient("down"))).boxed(),
                Some(Refuses) => ready(Err(SinkError::permanent("no"))).boxed(),
                Some(Hangs) => pending().boxed(),
                Some(Busy) => {
                    let error = SinkError { retry_after: Some(Duration::from_secs(3)), ..SinkError::transient("busy") };
                    ready(Err(error)).boxed()
                }
                Some(Nobody) => ready(Err(SinkError::pointless("to whom?"))).boxed(),
                None => ready(Err(SinkError::permanent("called too often"))).boxed(),
            }
        }
    }

    fn configured(name: &str, answers: &[Answer], config: &SinkConfig) -> Configured {
        Configured::new(name.to_owned(), Box::new(Scripted(Mutex::new(answers.iter().copied().collect()))), config)
    }

    async fn tell(sinks: Vec<Configured>, report: &ScanReport) -> (Result<(), SinkError>, usize) {
        let waits = AtomicUsize::new(0);
        let on_wait = || {
            waits.fetch_add(1, Ordering::Relaxed);
        };
        let told = Sinks(sinks).tell(&Notice { report, about: &About::default() }, &on_wait).await;
        (told, waits.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn a_sink_is_tried_for_its_time_and_no_longer() {
        let config = SinkConfig { timeout_secs: 2, retry_for_secs: 4, ..SinkConfig::default() };
        for (answers, expected, waits) in [
            (&[Takes][..], Ok(()), 0),
            (&[Fails, Fails, Takes], Ok(()), 2),
            (&[Hangs, Takes], Ok(()), 1),
            (&[Refuses], Err("no"), 0),
            (&[Fails, Refuses], Err("no"), 1),
            (&[Hangs, Hangs, Takes], Err("no answer in 2 seconds"), 1),
            (&[Busy, Takes], Ok(()), 1),
            (&[Busy, Busy, Takes], Err("busy"), 1),
            (&[Nobody, Takes], Ok(()), 0),
        ] {
            let (told, waited) = tell(vec![configured("app", answers, &config)], &example()).await;
            let told = told.map_err(|error| {
                assert_eq!(error.sink, "app");
                error.message
            });
            assert_eq!((told.as_ref().map_err(String::as_str).copied(), waited), (expected, waits));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_sink_does_not_keep_the_others_from_being_told() {
        let required = SinkConfig { retry_for_secs: 60, ..SinkConfig::default() };
        let optional = SinkConfig { required: false, ..required.clone() };
        let not_this = SinkConfig { statuses: Some(vec![Status::Clean]), ..required.clone() };
        for (first, expected) in [(&required, Err("first".to_owned())), (&optional, Ok(())), (&not_this, Ok(()))] {
            let second = Scripted(Mutex::new([Fails, Takes].into()));
            let sinks =
                vec![configured("first", &[Refuses], first), Configured::new("second".to_owned(), Box::new(second), &required)];
            let (told, waits) = tell(sinks, &example()).await;
            assert_eq!((told.map_err(|error| error.sink), waits), (expected, 1));
        }
    }
}
