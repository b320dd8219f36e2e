//! What all routes share.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::Tokens;
use super::callback::Callbacks;
use super::error::ApiError;
use super::remembered::Remembered;
use crate::config::HttpConfig;
use crate::scan::ScanError;
use crate::service::{Parts, Service};
use crate::waiting::Waiting;

/// How long a body that is sent away may take to give its place up: it does so at once.
const GOING: Duration = Duration::from_secs(1);

/// What all routes share.
pub(super) struct Api {
    pub(super) service: Arc<Service>,
    pub(super) config: HttpConfig,
    pub(super) tokens: Tokens,
    /// Who may take objects out of quarantine.
    pub(super) admins: Tokens,
    pub(super) remembered: Remembered,
    pub(super) callbacks: Callbacks,
    /// Work that goes on when its client has gone.
    pub(super) work: TaskTracker,
    /// Ends that work too.
    pub(super) abandon: CancellationToken,
    scans: Arc<Semaphore>,
    /// Scans whose bodies do not come, each since it last moved on.
    pub(super) slow: Waiting,
}

impl Api {
    pub(super) fn new(
        config: &HttpConfig,
        service: &Arc<Service>,
        work: &TaskTracker,
        abandon: &CancellationToken,
    ) -> io::Result<Self> {
        Ok(Self {
            service: Arc::clone(service),
            config: config.clone(),
            tokens: Tokens::new(config),
            admins: Tokens::those(&config.admin_tokens),
            remembered: Remembered::new(config.remembered_scans),
            callbacks: Callbacks::new(config)?,
            work: work.clone(),
            abandon: abandon.clone(),
            scans: Arc::new(Semaphore::new(config.max_scans)),
            slow: Waiting::default(),
        })
    }

    /// The engine and all that stands on it.
    ///
    /// # Errors
    ///
    /// As long as it is being loaded, or when the service is ending.
    pub(super) fn parts(&self) -> Result<&Parts, ApiError> {
        if self.service.stop.is_cancelled() {
            return Err(ApiError::unavailable("the service is shutting down"));
        }
        self.service.parts().ok_or_else(|| ApiError::unavailable("the definitions are being loaded"))
    }

    /// Begins a scan, which ends when the permit is dropped. When `max_scans` are under way, the slowest body is sent away for it:
    /// else slow clients could keep all others out.
    ///
    /// # Errors
    ///
    /// When it is no use to begin: nothing can be scanned now, or `max_scans` are under way and no body is slow.
    pub(super) async fn begin_scan(&self) -> Result<(OwnedSemaphorePermit, &Parts), ApiError> {
        let parts = self.parts()?;
        let obstacles = self.service.readiness.obstacles().borrow().join("; ");
        if !obstacles.is_empty() {
            return Err(ApiError::unavailable(format!("cannot scan at this moment: {obstacles}")));
        }
        let too_many = || ApiError::too_many(format!("{} scans are under way, which is http.max_scans", self.config.max_scans));
        let permit = match Arc::clone(&self.scans).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) if self.slow.send_one_away() => {
                let free = timeout(GOING, Arc::clone(&self.scans).acquire_owned()).await;
                free.ok().and_then(Result::ok).ok_or_else(too_many)?
            }
            Err(_) => return Err(too_many()),
        };
        Ok((permit, parts))
    }

    /// Looks at the machine at once if it is to blame for a failure.
    pub(super) fn note_trouble(&self, error: &ScanError) {
        if matches!(error, ScanError::Trouble(_) | ScanError::Stuck) {
            self.service.readiness.look_now();
        }
    }
}
