//! `clamgate serve`: the service.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Resource, getrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{FAILED, OK, Outside, USAGE, engine_builder};
use crate::aws;
use crate::clamd;
use crate::config::Config;
use crate::definitions::{Freshclam, Keeper, ReloadRequests, reload_channel};
use crate::engine::{allocator, exit_now};
use crate::health::HealthServer;
use crate::http;
use crate::intake::Intake;
use crate::object::S3Store;
use crate::pipeline::{Objects, Pipeline};
use crate::queue::{Consumer, Slot, SqsQueue};
use crate::scan::{Backend, Budget, Fitness, Pool, Scratch, Warm};
use crate::service::{Parts, Service};
use crate::shutdown::{Shutdown, Terminate};
use crate::telemetry::metrics;

/// How long giving messages back may take after the grace period.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// How many threads may wait for the disk at once, besides those that read the files which clients name.
const BLOCKING_THREADS: usize = 64;

/// How many files a scan opens, roughly: libclamav has some for each level of nesting.
const FILES_A_SCAN: usize = 64;

/// How many are open besides, roughly: definitions, connections to AWS, logs.
const OWN_FILES: usize = 100;

/// How often the metrics are tidied up.
const UPKEEP_EVERY: Duration = Duration::from_secs(30);

/// What a worker thread of the runtime may still hold when the service has drained.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs until SIGTERM or SIGINT; 0 after a clean drain.
#[must_use]
pub fn run(config: Config) -> ExitCode {
    if config.queue.url.is_none() && !config.http.enabled && !config.clamd.is_enabled() {
        eprintln!(
            "error: there is no way in: set queue.url (the SQS queue of S3 events), http.enabled, clamd.listen or clamd.socket in the \
             configuration, or CLAMGATE_QUEUE__URL and its like in the environment"
        );
        return ExitCode::from(USAGE);
    }
    warn_of_too_few_files(&config);
    let blocking_threads = BLOCKING_THREADS + Intake::readers(config.threads());
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.worker_threads(workers()).max_blocking_threads(blocking_threads).enable_all().build() {
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

/// How many threads move bytes and wait for S3, SQS and clients: one for two processors. Scans have threads of their own; with as many as
/// there are processors, the same work took more time (ADR 19).
fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

/// Says so when clients can take all files that the system lets this process open. Nothing wrong is answered then, but others find no
/// connection or no room.
fn warn_of_too_few_files(config: &Config) {
    let needed = config.http.open_files() + config.clamd.open_files() + config.threads() * FILES_A_SCAN + OWN_FILES;
    let Some(limit) = getrlimit(Resource::Nofile).current else { return };
    if limit < needed as u64 {
        let hint = "raise the hard limit (LimitNOFILE= in systemd, --ulimit nofile= in Docker), or lower http.max_connections and \
                    clamd.max_connections";
        tracing::warn!(limit, needed, hint, "fewer files can be opened than the clients may need");
    }
}

/// Serves, and says how it ended: the exit code.
async fn serve(config: Arc<Config>) -> u8 {
    metrics::install();
    let (reload, requests) = reload_channel();
    let max_age = Duration::from_secs(config.definitions.max_age_secs);
    let service = Arc::new(Service::new(reload, CancellationToken::new(), max_age));
    let code = match until_stopped(&config, &service, requests).await {
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
    if service.libclamav_is_at_work() {
        tracing::warn!("leaving with libclamav at work; unfinished messages are back on the queue");
        exit_now(i32::from(code));
    }
    code
}

/// Runs all parts; true when they drained, false when a second signal ended them.
async fn until_stopped(config: &Config, service: &Arc<Service>, requests: ReloadRequests) -> Result<bool> {
    let shutdown = Shutdown { stop: service.stop.clone(), abandon: CancellationToken::new() };
    let abandon = shutdown.abandon.clone();
    let terminate = Terminate::new().context("cannot handle signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("cannot handle SIGHUP")?;
    let mut usr1 = signal(SignalKind::user_defined1()).context("cannot handle SIGUSR1")?;
    let second_signal = tokio::spawn(shutdown.run(terminate, Duration::from_secs(config.service.grace_secs)));

    let socket = config.health_socket();
    let health = HealthServer::bind(&socket).await.with_context(|| format!("cannot listen on {}", socket.display()))?;
    let answer = {
        let service = Arc::clone(service);
        Arc::new(move || service.health())
    };
    let answering = CancellationToken::new();
    let health = tokio::spawn(health.run(answer, answering.clone()));
    let scratch = Scratch::create(&config.scan.scratch_dir)
        .with_context(|| format!("cannot use scan.scratch_dir {}", config.scan.scratch_dir.display()))?;

    // Health and metrics are served from the beginning.
    let http =
        async { if config.http.enabled { http::serve(&config.http, service, &abandon).await.context("http") } else { Ok(()) } };
    let work = async { tokio::try_join!(http, work(config, service, scratch.path(), requests, &abandon)) };
    let signals = async {
        let mut upkeep = tokio::time::interval(UPKEEP_EVERY);
        loop {
            tokio::select! {
                _ = upkeep.tick() => metrics::upkeep(),
                _ = hangup.recv() => service.reload.request(),
                _ = usr1.recv() => tracing::info!(state = serde_json::to_string(&service.health()).unwrap_or_default(), "state"),
            }
        }
    };
    let last_calls = async {
        abandon.cancelled().await;
        tokio::time::sleep(LAST_CALLS).await;
        tracing::warn!("not all messages could be given back; they return when their visibility ends");
    };
    let ended = tokio::select! {
        ended = work => ended.map(|_| true),
        () = signals => Ok(false),
        _ = second_signal => Ok(false),
        () = last_calls => Ok(true),
    };
    answering.cancel();
    let _ = health.await;
    ended
}

/// Warms the engine up, then opens the other ways in until told to stop.
async fn work(
    config: &Config,
    service: &Arc<Service>,
    scratch_dir: &Path,
    requests: ReloadRequests,
    abandon: &CancellationToken,
) -> Result<()> {
    let stop = &service.stop;
    // What the load waits for is the processor, and what the connections wait for is the network.
    let ready = async { tokio::try_join!(start_engine(config, service, scratch_dir), connect(config)) };
    let (warm, connected) = tokio::select! {
        ready = ready => ready?,
        () = stop.cancelled() => return Ok(()),
    };
    let (parts, queue) = assemble(config, &warm, scratch_dir, connected)?;
    let fitness = Fitness::new(scratch_dir, config.scan.min_free_bytes);
    let pool = &parts.pool;
    let trouble = move || fitness.trouble();
    tokio::spawn(service.readiness.clone().watch(trouble, pool.overdue(), pool.threads(), stop.clone()));
    tokio::spawn(Keeper::new(warm, Arc::clone(pool), service.readiness.clone(), config).run(requests, stop.clone()));
    if config.definitions.freshclam.enabled {
        tokio::spawn(freshclam(config).run(service.reload.clone(), stop.clone()));
    }
    let consuming = queue.zip(parts.objects.clone()).map(|(queue, objects)| consume(config, service, queue, objects, abandon));
    tracing::info!(threads = pool.threads(), max_in_flight = config.max_in_flight(), "serving");
    service.set_parts(parts);
    let clamd = async {
        if config.clamd.is_enabled() { clamd::serve(&config.clamd, service, abandon).await.context("clamd") } else { Ok(()) }
    };
    let consuming = async {
        match consuming {
            Some(consuming) => consuming.await,
            None => stop.cancelled().await,
        }
    };
    tokio::try_join!(clamd, async {
        consuming.await;
        Ok(())
    })
    .map(|_| ())
}

/// Gets definitions if there are none, and loads them. Dropped meanwhile, it leaves libclamav at work.
async fn start_engine(config: &Config, service: &Service, scratch_dir: &Path) -> Result<Arc<Warm>> {
    let dir = config.definitions.dir.clone();
    if config.definitions.freshclam.enabled {
        freshclam(config).first_download().await;
    }
    tracing::info!(dir = %dir.display(), allocator = allocator(), "loading the definitions");
    let builder = engine_builder(config, scratch_dir);
    service.set_progress(builder.progress());
    service.set_loading(true);
    let began = Instant::now();
    let loaded = tokio::task::spawn_blocking(move || Warm::load(builder, dir)).await;
    service.set_loading(false);
    let warm = loaded.context("loading the definitions panicked")??;
    let definitions = warm.current().definitions;
    tracing::info!(
        version = definitions.version,
        signatures = definitions.signatures,
        fingerprint = definitions.fingerprint,
        took_ms = began.elapsed().as_millis(),
        "definitions loaded; the canary was found"
    );
    Ok(Arc::new(warm))
}

fn freshclam(config: &Config) -> Freshclam {
    Freshclam::new(config.definitions.freshclam.clone(), config.definitions.dir.clone(), config.required_databases())
}

/// A queue that can be received from.
struct Source {
    queue: SqsQueue,
    most_receives: Option<u32>,
}

/// What the configuration needs beyond this machine.
struct Connected {
    outside: Outside,
    source: Option<Source>,
}

/// Connects, after checking that queue and destinations can be used; `None` when nothing is needed.
async fn connect(config: &Config) -> Result<Option<Connected>> {
    if config.queue.url.is_none() && config.http.s3_buckets.is_empty() {
        return Ok(None);
    }
    let sdk = aws::config().await;
    let sqs = aws::sqs(&sdk);
    let outside = Outside::new(config, &sdk)?;
    outside.sinks.prepare().await?;
    let Some(url) = config.queue.url.clone() else { return Ok(Some(Connected { outside, source: None })) };

    let queue = SqsQueue::new(sqs.clone(), url, Duration::from_secs(config.queue.wait_secs.into()));
    let arn = queue.arn().await.context("cannot use queue.url")?;
    let most_receives = queue.most_receives().await.context("cannot use queue.url")?;
    if most_receives.is_none() {
        tracing::warn!("the queue has no redrive policy: a message that cannot be worked off comes back for ever");
    }
    for url in config.report.queue_urls() {
        let reports = SqsQueue::new(sqs.clone(), url.to_owned(), Duration::ZERO).arn().await;
        let reports = reports.with_context(|| format!("cannot use {url}, which reports should go to"))?;
        anyhow::ensure!(reports != arn, "{url}, which reports should go to, is the queue that the events come from");
    }
    outside.actions.check_destinations(&arn, &config.report.locations()).await?;
    Ok(Some(Connected { outside, source: Some(Source { queue, most_receives }) }))
}

/// Joins the engine and the connections.
fn assemble(
    config: &Config,
    warm: &Arc<Warm>,
    scratch_dir: &Path,
    connected: Option<Connected>,
) -> Result<(Parts, Option<Source>)> {
    let pool = Pool::new(Arc::clone(warm) as Arc<dyn Backend>, config.threads(), config.scan_timeout())
        .context("cannot start scan threads")?;
    let scan = &config.scan;
    let pool = Arc::new(pool.remembering(scan.cached_verdicts));
    let budget = Budget::new(scan.memory_bytes, scan.spool_bytes, scan.in_memory_max_bytes);
    let intake = Intake::new(Arc::clone(&pool), budget, scratch_dir.to_owned(), config.limits.max_file_size_bytes);
    let (outside, source) = connected.map(|connected| (connected.outside, connected.source)).unzip();
    let objects = outside.map(|outside| Arc::new(outside.objects(config, &intake)));
    Ok((Parts { warm: Arc::clone(warm), pool, intake: Arc::new(intake), objects }, source.flatten()))
}

/// Works off the queue until told to stop.
async fn consume(
    config: &Config,
    service: &Service,
    source: Source,
    objects: Arc<Objects<S3Store>>,
    abandon: &CancellationToken,
) {
    let readiness = service.readiness.clone();
    let pipeline =
        Arc::new(Pipeline { objects, most_receives: source.most_receives, on_trouble: Box::new(move || readiness.look_now()) });
    let visibility = Duration::from_secs(config.queue.visibility_timeout_secs.into());
    let (in_flight, waiting) = (config.max_in_flight(), config.report.max_waiting);
    let consumer = Arc::new(Consumer::new(source.queue, config.queue.receivers, in_flight, waiting, visibility));
    service.set_consumer(Arc::clone(&consumer));
    let handler = move |message, slot: Arc<Slot>| {
        let pipeline = Arc::clone(&pipeline);
        async move { pipeline.handle(message, &slot).await }
    };
    consumer.run(handler, service.readiness.obstacles(), service.stop.clone(), abandon.clone()).await;
}
