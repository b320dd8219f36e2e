//! The envelope that SNS puts around a message, unless the subscription has raw message delivery
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html>).
//!
//! Its signature is not checked: who may send to the queue is up to the queue's policy, envelope or not.

use serde::Deserialize;

use super::{Event, EventError, MOST_ENVELOPES, excerpt, from_json};

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Message")]
    message: Option<String>,
    #[serde(rename = "TopicArn")]
    topic: Option<String>,
}

/// Reads what is in the envelope, which is in so many envelopes itself.
pub(super) fn parse(body: &str, envelopes: usize) -> Result<Event, EventError> {
    if envelopes == MOST_ENVELOPES {
        return Err(EventError::Nested);
    }
    let Envelope { kind, message, topic } = from_json(body, "an SNS message")?;
    match kind.as_str() {
        "Notification" => super::parse(&message.ok_or(EventError::Missing("Message"))?, envelopes + 1),
        "SubscriptionConfirmation" => Err(EventError::Confirmation(excerpt(&topic.unwrap_or_default()))),
        other => Err(EventError::SnsType(excerpt(other))),
    }
}
