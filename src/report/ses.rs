//! Reports as emails through Amazon SES.

use std::io;

use aws_sdk_sesv2::Client;
use aws_sdk_sesv2::error::SdkError;
use aws_sdk_sesv2::types::{Body, Content, Destination, EmailContent, Message, MessageHeader, MessageTag};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::answer::failed;
use super::email::{self, Mail, reference};
use super::{Needs, Notice, Sink, SinkError};
use crate::config::{SesConfig, TextTemplate};

/// The name of the mail's header and of SES's message tag that hold the [`reference`].
const REFERENCE_HEADER: &str = "X-Clamgate-Reference";
const REFERENCE_TAG: &str = "clamgate-reference";

/// Has SES send a mail about each report.
pub struct SesSink {
    client: Client,
    config: SesConfig,
    subject: TextTemplate,
    body: TextTemplate,
    mail: Mail,
}

impl SesSink {
    /// A sink as configured.
    ///
    /// # Errors
    ///
    /// When subject or body are no templates; see `config`.
    pub fn new(client: Client, config: &SesConfig) -> io::Result<Self> {
        let template =
            |text: &str| TextTemplate::parse(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error));
        let mail = Mail::new(&config.to, &config.to_domains, &config.values);
        let (subject, body) = (template(&config.subject)?, template(&config.body)?);
        Ok(Self { client, config: config.clone(), subject, body, mail })
    }

    async fn send(&self, notice: &Notice<'_>) -> Result<(), SinkError> {
        let recipient = self.mail.recipient(notice)?;
        let values = self.mail.values(notice);
        let content = |template: &TextTemplate| {
            let text = template.fill(|name| values.get(name).cloned().unwrap_or_default());
            Content::builder().data(text).charset("UTF-8").build().map_err(unbuilt)
        };
        let reference = reference(notice.report);
        let header = MessageHeader::builder().name(REFERENCE_HEADER).value(&reference).build().map_err(unbuilt)?;
        let message = Message::builder()
            .subject(content(&self.subject)?)
            .body(Body::builder().text(content(&self.body)?).build())
            .headers(header)
            .build();
        let tag = MessageTag::builder().name(REFERENCE_TAG).value(&reference).build().map_err(unbuilt)?;
        let sent = self
            .client
            .send_email()
            .from_email_address(&self.config.from)
            .destination(Destination::builder().to_addresses(recipient).build())
            .set_reply_to_addresses(self.config.reply_to.clone().map(|address| vec![address]))
            .content(EmailContent::builder().simple(message).build())
            .email_tags(tag)
            .set_configuration_set_name(self.config.configuration_set.clone())
            .send()
            .await;
        sent.map(|_| ()).map_err(|error| {
            let status = error.raw_response().map(|response| response.status().as_u16());
            let is_refused =
                matches!(error, SdkError::ServiceError(_)) && status.is_some_and(|status| status < 500 && status != 429);
            let message = email::said(&failed("SendEmail", &error).message, &self.config.from);
            SinkError { can_retry: !is_refused, ..SinkError::transient(message) }
        })
    }
}

impl Sink for SesSink {
    fn deliver<'a>(&'a self, notice: &'a Notice<'a>) -> BoxFuture<'a, Result<(), SinkError>> {
        self.send(notice).boxed()
    }

    fn needs(&self) -> Needs {
        self.mail.needs()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn unbuilt(error: aws_sdk_sesv2::error::BuildError) -> SinkError {
    SinkError::permanent(error.to_string())
}
