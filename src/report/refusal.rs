//! What a server's refusal of a report means.

use hyper::StatusCode;

use super::SinkError;
use crate::https::Answer;

/// The error for an answer that is no success. `said` is what the server said about it.
pub(super) fn refusal(answer: &Answer, said: &str) -> SinkError {
    let status = answer.status;
    let can_retry = status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS].contains(&status);
    let hint = if status.is_redirection() { "; redirects are not followed: configure the URL that it leads to" } else { "" };
    let message = format!("HTTP status {status}{said}{hint}");
    SinkError { can_retry, retry_after: answer.retry_after(), ..SinkError::transient(message) }
}
