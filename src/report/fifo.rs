//! What FIFO topics and FIFO queues are told beside the report: its place in the order, and what makes two reports the same.

use sha2::{Digest, Sha256};

use super::{ScanReport, SinkError, Target, outbox};
use crate::engine::hex;

/// The message group and the deduplication id for a topic's ARN or a queue's URL; `None` unless it is FIFO.
///
/// Reports on one key stay in order. Of two on the same work with the same result, the second is dropped within five minutes.
pub(super) fn ids(place: &str, report: &ScanReport) -> Result<Option<(String, String)>, SinkError> {
    if !place.ends_with(".fifo") {
        return Ok(None);
    }
    Ok(Some((group(&report.target), outbox::name(report)?)))
}

fn group(target: &Target) -> String {
    let bucket = match target {
        Target::S3 { bucket, .. } => bucket,
        Target::File { .. } | Target::Stream { .. } => "",
    };
    hex(&Sha256::digest(format!("{bucket}/{}", target.name()))[..16])
}

#[cfg(test)]
mod tests {
    use super::super::scan_report::example;
    use super::*;
    use crate::engine::Status;

    #[test]
    fn a_group_for_each_key_and_an_id_for_each_result() -> Result<(), Box<dyn std::error::Error>> {
        let of = |report: &ScanReport| {
            ids("https://sqs.eu-west-2.amazonaws.com/1/q.fifo", report)?.ok_or_else(|| SinkError::permanent(""))
        };
        let target = Target::S3 { bucket: "b".into(), key: "other".into(), version_id: None, etag: None, size: 1 };
        let (group, id) = of(&example())?;
        for (report, same_group, same_id) in [
            (ScanReport { scanned_at: time::OffsetDateTime::UNIX_EPOCH, ..example() }, true, true),
            (ScanReport { status: Status::Clean, ..example() }, true, false),
            (ScanReport { scan_id: "another".into(), ..example() }, true, false),
            (ScanReport { trace_id: Some("t".into()), ..example() }, true, false),
            (ScanReport { target, ..example() }, false, true),
        ] {
            let found = of(&report)?;
            assert_eq!((found.0 == group, found.1 == id), (same_group, same_id), "{report:?}");
        }
        assert_eq!(ids("arn:aws:sns:eu-west-2:1:t", &example())?, None);
        Ok(())
    }
}
