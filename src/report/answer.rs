//! What an answer of AWS means for a report.

use aws_sdk_sns::error::{ProvideErrorMetadata, SdkError};

use super::{ScanReport, SinkError};
use crate::aws;

/// How many signatures are listed when all of them would be too long.
const MOST_SIGNATURES: usize = 100;

/// An operation that failed.
pub(super) fn failed<E>(operation: &str, error: &SdkError<E>) -> SinkError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    match error.code() {
        Some(code) => refused(operation, code, error.message().unwrap_or("")),
        None => SinkError::transient(format!("{operation}: {}", aws::causes(error))),
    }
}

/// An operation that was answered with an error code.
pub(super) fn refused(operation: &str, code: &str, text: &str) -> SinkError {
    SinkError { can_retry: !is_lasting(code), ..SinkError::transient(format!("{operation}: {code}: {text}")) }
}

/// Whether a place is there, by what was answered to a question about it. The permission to ask is no condition for sending: only the answer that
/// nothing is there is permanent.
pub(super) fn looked_up<T, E>(operation: &str, answer: Result<T, SdkError<E>>) -> Result<(), SinkError>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    answer.map(drop).map_err(|error| {
        let is_missing = error.code().is_some_and(|code| is_one_of(code, &MISSING));
        SinkError { can_retry: !is_missing, ..failed(operation, &error) }
    })
}

/// Codes of SQS, SNS and EventBridge for what does not exist.
const MISSING: [&str; 5] = ["NotFound", "NonExistentQueue", "QueueDoesNotExist", "QueueDeletedRecently", "ResourceNotFound"];

/// Codes for what only a change of permissions, of the configuration or of the report mends
/// (<https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>,
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>,
/// <https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-putevents.html>).
const LASTING: [&str; 19] = [
    "AccessDenied",
    "AuthorizationError",
    "BatchRequestTooLong",
    "InvalidAddress",
    "InvalidArgument",
    "InvalidMessageContents",
    "InvalidParameter",
    "InvalidParameterValue",
    "InvalidSecurity",
    "KMSAccessDenied",
    "KMSDisabled",
    "KMSInvalidState",
    "KMSNotFound",
    "MalformedDetail",
    "NotAuthorizedForDetailType",
    "NotAuthorizedForSource",
    "RequestSize",
    "UnsupportedOperation",
    "Validation",
];

/// Everything else is worth another attempt, credentials that have run out among it: they are renewed.
fn is_lasting(code: &str) -> bool {
    is_one_of(code, &LASTING) || is_one_of(code, &MISSING)
}

/// Compares codes as `com.amazonaws.sqs#AccessDeniedException` and `AWS.SimpleQueueService.NonExistentQueue`, too.
fn is_one_of(code: &str, codes: &[&str]) -> bool {
    let name = code.rsplit(['.', '#', ':']).next().unwrap_or(code);
    let name = name.strip_suffix("Exception").or_else(|| name.strip_suffix("Error")).unwrap_or(name);
    codes.iter().any(|known| *known == name || known.strip_suffix("Error") == Some(name))
}

/// The report's JSON in at most so many bytes: with fewer signatures if it must be.
pub(super) fn json_within(report: &ScanReport, most: usize) -> Result<String, SinkError> {
    let whole = crate::aws::sqs_text(&report.to_json()?);
    if whole.len() <= most {
        return Ok(whole);
    }
    let mut short = report.clone();
    let matched = short.signatures.len() + short.allowed.len();
    short.signatures.truncate(MOST_SIGNATURES);
    short.allowed.truncate(MOST_SIGNATURES);
    let cut = format!("{matched} signatures matched, not all of them are listed here");
    short.detail = Some(short.detail.map_or_else(|| cut.clone(), |detail| format!("{detail}; {cut}")));
    let short = crate::aws::sqs_text(&short.to_json()?);
    if short.len() <= most { Ok(short) } else { Err(too_long(whole.len(), most)) }
}

/// What cannot be sent.
pub(super) fn too_long(bytes: usize, most: usize) -> SinkError {
    SinkError::permanent(format!("the report has {bytes} bytes, and no more than {most} can be sent"))
}

#[cfg(test)]
mod tests {
    use super::super::scan_report::example;
    use super::*;

    #[test]
    fn what_another_attempt_can_mend() {
        for (code, can_retry) in [
            ("AccessDenied", false),
            ("AccessDeniedException", false),
            ("AuthorizationError", false),
            ("NotFound", false),
            ("NotFoundException", false),
            ("AWS.SimpleQueueService.NonExistentQueue", false),
            ("com.amazonaws.sqs#QueueDoesNotExist", false),
            ("ResourceNotFoundException", false),
            ("ValidationException", false),
            ("ValidationError", false),
            ("Throttling", true),
            ("ThrottlingException", true),
            ("InternalError", true),
            ("InternalException", true),
            ("ExpiredToken", true),
            ("ServiceUnavailable", true),
            ("", true),
        ] {
            assert_eq!(refused("Publish", code, "").can_retry, can_retry, "{code}");
        }
    }

    #[test]
    fn a_report_that_is_too_long_has_fewer_signatures() -> Result<(), Box<dyn std::error::Error>> {
        let report = ScanReport { signatures: (0..5000).map(|n| format!("Win.Test.{n:05}")).collect(), ..example() };
        assert_eq!(json_within(&report, 1_000_000)?, report.to_json()?);
        let short: ScanReport = serde_json::from_str(&json_within(&report, 50_000)?)?;
        assert_eq!((short.signatures.len(), short.status), (100, report.status));
        assert_eq!(short.detail.as_deref(), Some("5000 signatures matched, not all of them are listed here"));
        assert!(json_within(&report, 500).is_err_and(|error| !error.can_retry));
        Ok(())
    }
}
