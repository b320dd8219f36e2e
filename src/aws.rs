//! AWS clients, from the standard AWS variables and files.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};

/// Loads region, credentials and endpoint as every AWS tool does (`AWS_REGION`, profiles, container credentials, …).
pub async fn config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        // Longer than SQS's long poll of at most 20 seconds.
        .read_timeout(Duration::from_secs(30))
        .build();
    aws_config::defaults(BehaviorVersion::latest())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .load()
        .await
}

/// An S3 client. With an endpoint other than AWS's, bucket names go into the path: such servers rarely have a name per bucket.
#[must_use]
pub fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let own_endpoint = config.endpoint_url().is_some() || std::env::var_os("AWS_ENDPOINT_URL_S3").is_some();
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(own_endpoint).build())
}

/// An SES client, which makes one attempt: an attempt that got no answer may have sent the mail, and whether there is another is decided
/// elsewhere.
#[must_use]
pub fn ses(config: &SdkConfig) -> aws_sdk_sesv2::Client {
    let config = aws_sdk_sesv2::config::Builder::from(config).retry_config(RetryConfig::disabled());
    aws_sdk_sesv2::Client::from_conf(config.build())
}

/// An SQS client. Without the SDK's watch for stalled streams, which wakes up twenty times a second for as long as a request
/// waits: a long poll is meant to wait, and the read timeout ends it if SQS does not.
#[must_use]
pub fn sqs(config: &SdkConfig) -> aws_sdk_sqs::Client {
    let config = aws_sdk_sqs::config::Builder::from(config);
    aws_sdk_sqs::Client::from_conf(config.stalled_stream_protection(StalledStreamProtectionConfig::disabled()).build())
}

/// Text in characters that SQS takes: the others as `\\u0001`. SNS passes messages and their attributes on to queues.
#[must_use]
pub fn sqs_plain_text(text: &str) -> String {
    let is_taken = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().fold(String::with_capacity(text.len()), |mut taken, c| {
        if is_taken(c) {
            taken.push(c);
        } else {
            taken.push_str(&format!("\\u{:04x}", u32::from(c)));
        }
        taken
    })
}

/// JSON in characters that SQS takes
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>): of those that JSON need not escape, it
/// refuses two.
#[must_use]
pub fn sqs_text(json: &str) -> String {
    json.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff")
}
