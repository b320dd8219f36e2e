//! AWS clients, from the standard AWS variables and files.

use std::error::Error;
use std::iter;
use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_s3::config::SharedHttpClient;
use aws_sdk_s3::error::SdkError;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, ConnectorBuilder};

/// How long a connection stays open without a request. Each keeps the buffer that it has read into, up to 408 KiB
/// (hyper's `http1_max_buf_size`), and there are as many as there were requests at once.
const IDLE: Duration = Duration::from_secs(10);

/// How long an answer may take to begin. Longer than SQS's long poll of at most 20 seconds.
const ANSWER: Duration = Duration::from_secs(30);

/// How long an attempt to ask SQS may take: to connect, to wait for the answer, to read it to its end.
const SQS_ATTEMPT: Duration = Duration::from_secs(45);

/// How long credentials are waited for. All clients wait together; of itself, the SDK would wait as long as all attempts of whichever request
/// happens to find that they are too old.
const CREDENTIALS: Duration = Duration::from_secs(30);

/// Loads region, credentials and endpoint as every AWS tool does (`AWS_REGION`, profiles, container credentials, …).
pub async fn config() -> SdkConfig {
    let timeouts = TimeoutConfig::builder().connect_timeout(Duration::from_secs(5)).read_timeout(ANSWER).build();
    aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(IDLE))
        .identity_cache(IdentityCache::lazy().load_timeout(CREDENTIALS).build())
        .timeout_config(timeouts)
        .retry_config(RetryConfig::standard().with_max_attempts(4))
        .load()
        .await
}

/// The SDK's own HTTP client, which closes connections when they had no request for so long; the SDK has 90 seconds. Its
/// `build_https` would leave out the proxy of the environment.
fn http_client(idle: Duration) -> SharedHttpClient {
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = ConnectorBuilder::default()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .proxy_config(ProxyConfig::from_env())
            .pool_idle_timeout(idle);
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.build()
    })
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
/// waits: a long poll is meant to wait.
#[must_use]
pub fn sqs(config: &SdkConfig) -> aws_sdk_sqs::Client {
    sqs_within(config, SQS_ATTEMPT)
}

/// The same, where `attempt` is how long an attempt may take in all: the read timeout ends when an answer begins.
fn sqs_within(config: &SdkConfig, attempt: Duration) -> aws_sdk_sqs::Client {
    let timeouts = config.timeout_config().map_or_else(TimeoutConfig::builder, TimeoutConfig::to_builder);
    let config = aws_sdk_sqs::config::Builder::from(config)
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts.operation_attempt_timeout(attempt).build());
    aws_sdk_sqs::Client::from_conf(config.build())
}

/// Why a request got no answer that says so itself: the causes, one after the other. `DisplayErrorContext` would add the answer as it came,
/// and that can name people.
pub fn causes<E: Error + 'static>(error: &SdkError<E>) -> String {
    if let Some(status) = error.raw_response().map(|answer| answer.status()).filter(|status| !status.is_success()) {
        return format!("HTTP status {}", status.as_u16());
    }
    let chain = iter::successors(Some(error as &(dyn Error + 'static)), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
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

#[cfg(test)]
pub(crate) mod tests {
    use aws_sdk_s3::config::{Credentials, Region, SharedCredentialsProvider};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// For a server of the test's own, which gets one attempt. Connections are closed at once when they have no request.
    pub(crate) fn one_attempt(listener: &TcpListener) -> Result<SdkConfig, Box<dyn Error>> {
        Ok(SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http_client(Duration::from_millis(1)))
            .retry_config(RetryConfig::disabled())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "test")))
            .endpoint_url(format!("http://{}", listener.local_addr()?))
            .build())
    }

    /// Takes a connection, reads the head of a request and answers.
    pub(crate) async fn answered(listener: &TcpListener, answer: &[u8]) -> std::io::Result<TcpStream> {
        let (mut connection, _) = listener.accept().await?;
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            request.push(connection.read_u8().await?);
        }
        connection.write_all(answer).await?;
        Ok(connection)
    }

    /// After a burst, hundreds of connections kept what they had read into for a minute and a half.
    #[tokio::test]
    async fn connections_without_a_request_kept_their_buffers() -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = s3(&one_attempt(&listener)?);
        let server = tokio::spawn(async move {
            let mut connection = answered(&listener, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
            let mut next = [0];
            let closed = connection.read(&mut next);
            tokio::time::timeout(Duration::from_secs(60), closed).await.map_err(std::io::Error::other)?
        });
        client.head_bucket().bucket("b").send().await?;
        assert_eq!(server.await??, 0, "the client closed the connection");
        drop(client);
        Ok(())
    }

    /// What nobody answers to was shown with all that the SDK has of it: the answer as it came, and with it whose it was.
    #[tokio::test]
    async fn a_failed_request_was_logged_with_the_answer_as_it_came() -> Result<(), Box<dyn Error>> {
        for (answer, expected) in [
            ("HTTP/1.1 418 No\r\ncontent-length: 20\r\n\r\n{\"to\":\"a@b.example\"}", "HTTP status 418"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"to\":\"a@b.example\")", "service error: "),
            ("", "dispatch failure: "),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let client = sqs(&one_attempt(&listener)?);
            let served = async {
                let connection = answered(&listener, answer.as_bytes()).await?;
                std::io::Result::Ok((!answer.is_empty()).then_some(connection))
            };
            let (received, served) = tokio::join!(client.receive_message().queue_url("q").send(), served);
            drop(served?);
            let shown = causes(&received.err().ok_or("an answer")?);
            assert!(shown.starts_with(expected) && !shown.contains("a@b.example") && !shown.contains('{'), "{shown}");
        }
        Ok(())
    }

    /// An answer that broke off, on a connection that nobody closed, was waited for without end: nothing was received any more.
    #[tokio::test]
    async fn an_answer_of_sqs_that_stopped_halfway_was_waited_for() -> Result<(), Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let client = sqs_within(&one_attempt(&listener)?, Duration::from_secs(5));
        let received = client.receive_message().queue_url("q").send();
        let server = answered(&listener, b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{\"Messages\"");
        // The connection stays open.
        let both = async { tokio::join!(received, server) };
        let (received, connection) = tokio::time::timeout(Duration::from_secs(60), both).await?;
        drop(connection?);
        assert!(matches!(received, Err(aws_sdk_sqs::error::SdkError::TimeoutError(_))), "{received:?}");
        Ok(())
    }
}
