//! `clamgate serve`: the service.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::readiness::Readiness;
use super::{FAILED, OK, USAGE, engine_builder};
use crate::action::Actions;
use crate::aws;
use crate::config::Config;
use crate::definitions::{Freshclam, Keeper, reload_channel};
use crate::engine::exit_now;
use crate::health::{Health, HealthServer};
use crate::object::S3Store;
use crate::pipeline::Pipeline;
use crate::queue::{Consumer, SqsQueue};
use crate::report::{Sink, SqsSink};
use crate::scan::{Backend, Budget, Fitness, Pool, Scratch, Warm};
use crate::shutdown::{Shutdown, Terminate};

/// How long giving messages back may take after the grace period.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// What a worker thread of the runtime may still hold when the service has drained.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT; 0 after a clean drain.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    if config.queue.url.is_none() {
        eprintln!(
            "error: queue.url is not set: name the SQS queue of S3 events in the configuration, or in CLAMGATE_QUEUE__URL"
        );
        return ExitCode::from(USAGE);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::from(FAILED);
        }
    };
    let code = runtime.block_on(serve(Arc::new(config)));
    runtime.shutdown_timeout(LAST_WORDS);
    ExitCode::from(code)
}

/// What the health socket and SIGUSR1 look at, as far as it exists yet.
#[derive(Clone, Default)]
struct State {
    warm: Arc<OnceLock<Arc<Warm>>>,
    pool: Arc<OnceLock<Arc<Pool>>>,
    consumer: Arc<OnceLock<Arc<Consumer<SqsQueue>>>>,
    /// The first engine is being loaded.
    loading: Arc<AtomicBool>,
    readiness: Readiness,
    stop: CancellationToken,
}

impl State {
    fn libclamav_is_at_work(&self) -> bool {
        self.loading.load(Ordering::SeqCst)
            || self.warm.get().is_some_and(|warm| warm.is_loading())
            || self.pool.get().is_some_and(|pool| pool.busy() > 0)
    }

    fn health(&self) -> Health {
        let serving = self.consumer.get().is_some();
        let stopping = self.stop.is_cancelled();
        let obstacles = self.readiness.obstacles().borrow().clone();
        Health {
            ready: serving && !stopping && obstacles.is_empty(),
            state: if stopping {
                "stopping"
            } else if serving {
                "serving"
            } else {
                "loading"
            }
            .to_owned(),
            signatures: self.warm.get().map_or(0, |warm| warm.current().definitions.signatures),
            in_flight: self.consumer.get().map_or(0, |consumer| consumer.in_flight()),
            scans: self.pool.get().map_or(0, |pool| pool.busy()),
            overdue_threads: self.pool.get().map_or(0, |pool| *pool.overdue().borrow()),
            obstacles,
        }
    }
}

/// Serves, and says how it ended: the exit code.
async fn serve(config: Arc<Config>) -> u8 {
    let state = State::default();
    let code = match until_stopped(&config, &state).await {
        Ok(true) => {
            tracing::info!("drained");
            OK
        }
        Ok(false) => FAILED,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot go on");
            FAILED
        }
    };
    // Neither a load nor a scan can be stopped, and neither must meet the exit handlers.
    if state.libclamav_is_at_work() {
        tracing::warn!("leaving with libclamav at work; unfinished messages are back on the queue");
        exit_now(i32::from(code));
    }
    code
}

/// Runs all parts; true when they drained, false when a second signal ended them.
async fn until_stopped(config: &Config, state: &State) -> Result<bool> {
    let shutdown = Shutdown { stop: state.stop.clone(), abandon: CancellationToken::new() };
    let (stop, abandon) = (shutdown.stop.clone(), shutdown.abandon.clone());
    let terminate = Terminate::new().context("cannot handle signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let mut usr1 = signal(SignalKind::user_defined1()).context("cannot handle SIGUSR1")?;
    let second_signal = tokio::spawn(shutdown.run(terminate, Duration::from_secs(config.service.grace_secs)));

    let socket = config.health_socket();
    let health = HealthServer::bind(&socket).await.with_context(|| format!("cannot listen on {}", socket.display()))?;
    let answer = {
        let state = state.clone();
        Arc::new(move || state.health())
    };
    let answering = CancellationToken::new();
    let health = tokio::spawn(health.run(answer, answering.clone()));
    let scratch = Scratch::create(&config.scan.scratch_dir)
        .with_context(|| format!("cannot use scan.scratch_dir {}", config.scan.scratch_dir.display()))?;

    let (reload, requests) = reload_channel();
    let work = async {
        let Some(warm) = start_engine(config, state, scratch.path().to_owned()).await? else { return Ok(()) };
        let _ = state.warm.set(Arc::clone(&warm));
        let (consumer, pipeline) = tokio::select! {
            parts = assemble(config, &warm, scratch.path().to_owned(), state.readiness.clone()) => parts?,
            () = stop.cancelled() => return Ok(()),
        };
        let _ = state.pool.set(Arc::clone(&pipeline.pool));
        let fitness = Fitness::new(scratch.path(), config.scan.min_free_bytes);
        let (readiness, pool) = (state.readiness.clone(), &pipeline.pool);
        tokio::spawn(readiness.watch(fitness, pool.overdue(), pool.threads(), stop.clone()));
        let consumer = Arc::new(consumer);
        let _ = state.consumer.set(Arc::clone(&consumer));

        tokio::spawn(Keeper::new(warm, &config.definitions).run(requests, stop.clone()));
        if config.definitions.freshclam.enabled {
            tokio::spawn(freshclam(config).run(reload.clone(), stop.clone()));
        }
        tracing::info!(threads = pipeline.pool.threads(), max_in_flight = config.max_in_flight(), "serving");
        let handler = {
            let pipeline = Arc::clone(&pipeline);
            move |message| {
                let pipeline = Arc::clone(&pipeline);
                async move { pipeline.handle(message).await }
            }
        };
        consumer.run(handler, state.readiness.obstacles(), stop.clone(), abandon.clone()).await;
        Ok(())
    };
    let signals = async {
        loop {
            tokio::select! {
                _ = hangup.recv() => reload.request(),
                _ = usr1.recv() => tracing::info!(state = serde_json::to_string(&state.health()).unwrap_or_default(), "state"),
            }
        }
    };
    let last_calls = async {
        abandon.cancelled().await;
        tokio::time::sleep(LAST_CALLS).await;
        tracing::warn!("not all messages could be given back; they return when their visibility ends");
    };
    let ended = tokio::select! {
        ended = work => ended.map(|()| true),
        () = signals => Ok(false),
        _ = second_signal => Ok(false),
        () = last_calls => Ok(true),
    };
    answering.cancel();
    let _ = health.await;
    ended
}

/// Gets definitions if there are none, and loads them; `None` when told to stop meanwhile.
async fn start_engine(config: &Config, state: &State, scratch: PathBuf) -> Result<Option<Arc<Warm>>> {
    let stop = &state.stop;
    let dir = config.definitions.dir.clone();
    if config.definitions.freshclam.enabled {
        let freshclam = freshclam(config);
        tokio::select! {
            () = freshclam.first_download() => {}
            () = stop.cancelled() => return Ok(None),
        }
    }
    tracing::info!(dir = %dir.display(), "loading the definitions");
    let builder = engine_builder(config, &scratch);
    state.loading.store(true, Ordering::SeqCst);
    let load = tokio::task::spawn_blocking(move || Warm::load(builder, dir));
    let loaded = tokio::select! {
        loaded = load => loaded.context("loading the definitions panicked"),
        () = stop.cancelled() => return Ok(None),
    };
    state.loading.store(false, Ordering::SeqCst);
    let warm = loaded??;
    let definitions = warm.current().definitions;
    tracing::info!(
        version = definitions.version,
        signatures = definitions.signatures,
        fingerprint = definitions.fingerprint,
        "definitions loaded; the canary was found"
    );
    Ok(Some(Arc::new(warm)))
}

fn freshclam(config: &Config) -> Freshclam {
    Freshclam::new(config.definitions.freshclam.clone(), config.definitions.dir.clone(), config.required_databases())
}

/// Connects the parts, after checking that queue and destinations can be used.
async fn assemble(
    config: &Config,
    warm: &Arc<Warm>,
    scratch_dir: PathBuf,
    readiness: Readiness,
) -> Result<(Consumer<SqsQueue>, Arc<Pipeline<S3Store>>)> {
    let sdk = aws::config().await;
    let (s3, sqs) = (aws::s3(&sdk), aws::sqs(&sdk));
    let queue_url = config.queue.url.clone().context("queue.url is not set")?;
    let queue = SqsQueue::new(sqs.clone(), queue_url, Duration::from_secs(config.queue.wait_secs.into()));
    let arn = queue.arn().await.context("cannot use queue.url")?;
    let most_receives = queue.most_receives().await.context("cannot use queue.url")?;
    if most_receives.is_none() {
        tracing::warn!("the queue has no redrive policy: a message that cannot be worked off comes back for ever");
    }
    if let Some(url) = &config.report.queue_url {
        let reports =
            SqsQueue::new(sqs.clone(), url.clone(), Duration::ZERO).arn().await.context("cannot use report.queue_url")?;
        anyhow::ensure!(reports != arn, "report.queue_url is the queue that the events come from");
    }
    let actions = Actions::new(s3.clone(), config.actions.clone());
    actions.check_destinations(&arn).await?;
    let pool = Pool::new(Arc::clone(warm) as Arc<dyn Backend>, config.threads(), config.scan_timeout())
        .context("cannot start scan threads")?;
    let sink = config.report.queue_url.clone().map(|url| Box::new(SqsSink::new(sqs.clone(), url)) as Box<dyn Sink>);
    let scan = &config.scan;
    let pipeline = Pipeline {
        store: S3Store::new(s3),
        pool: Arc::new(pool),
        budget: Budget::new(scan.memory_bytes, scan.spool_bytes, scan.in_memory_max_bytes),
        actions,
        policy: config.actions.clone(),
        sinks: sink.into_iter().collect(),
        scratch_dir,
        max_file_size_bytes: config.limits.max_file_size_bytes,
        most_receives,
        on_trouble: Box::new(move || readiness.look_now()),
    };
    let visibility = Duration::from_secs(config.queue.visibility_timeout_secs.into());
    let consumer = Consumer::new(queue, config.queue.receivers, config.max_in_flight(), visibility);
    Ok((consumer, Arc::new(pipeline)))
}
