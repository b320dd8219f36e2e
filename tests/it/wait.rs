//! Waiting for a condition instead of sleeping.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How long any condition may take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Asks again and again until there is an answer.
///
/// # Panics
///
/// When there is none within three minutes.
pub async fn until<T, F>(what: &str, condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    until_within(PATIENCE, what, condition).await
}

/// As [`until`], with a patience of its own.
pub async fn until_within<T, F>(patience: Duration, what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let began = Instant::now();
    let mut ticks = interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(answer) = condition().await {
            return answer;
        }
        assert!(began.elapsed() < patience, "waited {patience:?} in vain for: {what}");
    }
}

/// Writes to a named pipe whenever somebody reads it, until `done`.
pub async fn until_fed(pipe: &Path, content: &str, done: impl Fn() -> bool) {
    until("the readers of a pipe", || {
        if !done()
            && let Ok(mut writer) = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(pipe)
        {
            // The reader may go in the middle.
            let _ = writer.write_all(content.as_bytes());
        }
        let done = done().then_some(());
        async move { done }
    })
    .await;
}
