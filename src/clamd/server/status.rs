//! What VERSION, VERSIONCOMMANDS and STATS say.

use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use super::Server;
use crate::clamd::command::COMMANDS;
use crate::engine::libclamav_version;

/// As ctime(3) writes it.
const CTIME: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short] [month repr:short] [day padding:space] [hour]:[minute]:[second] [year]");

/// `ClamAV 1.4.6/27500/Thu Nov 20 08:30:00 2025`: the definitions' version and time only when they have one. The time is UTC.
pub(super) fn version(server: &Server) -> String {
    let definitions = server.intake.pool.current().definitions;
    version_text(definitions.version, definitions.built_at)
}

fn version_text(version: u32, built_at: Option<OffsetDateTime>) -> String {
    let engine = libclamav_version();
    if version == 0 {
        return format!("ClamAV {engine}");
    }
    let built_at = built_at.unwrap_or(OffsetDateTime::UNIX_EPOCH).to_offset(time::UtcOffset::UTC);
    format!("ClamAV {engine}/{version}/{}", built_at.format(CTIME).unwrap_or_default())
}

pub(super) fn version_commands(server: &Server) -> String {
    format!("{}| COMMANDS: {COMMANDS}", version(server))
}

/// clamd's form, in which clamdtop reads it. One pool; its queue; the memory of the process in the place of the engine's.
pub(super) fn stats(server: &Server) -> String {
    let pool = &server.intake.pool;
    let (threads, busy) = (pool.threads(), pool.busy());
    let (working, waiting) = (busy.min(threads), busy.saturating_sub(threads));
    let idle = threads - working;
    let memory = resident_mib();
    format!(
        "POOLS: 1\n\nSTATE: VALID PRIMARY\nTHREADS: live {threads}  idle {idle} max {threads} idle-timeout 0\n\
         QUEUE: {waiting} items\n\nMEMSTATS: heap N/A mmap N/A used N/A free N/A releasable N/A pools 1 \
         pools_used {memory:.3}M pools_total {memory:.3}M\nEND"
    )
}

fn resident_mib() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u32 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    let page_kib = u32::try_from(rustix::param::page_size() / 1024).unwrap_or(4);
    f64::from(pages) * f64::from(page_kib) / 1024.0
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn versions() {
        let engine = libclamav_version();
        assert_eq!(version_text(0, None), format!("ClamAV {engine}"));
        let built_at = Some(datetime!(2025-11-05 09:03:04 +1));
        assert_eq!(version_text(27_500, built_at), format!("ClamAV {engine}/27500/Wed Nov  5 08:03:04 2025"));
    }
}
