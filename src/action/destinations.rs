//! Refuses destinations whose new objects would come back to our queue, for ever.

use aws_sdk_s3::Client;
use aws_sdk_s3::types::{FilterRuleName, NotificationConfigurationFilter};

use super::ActionError;
use crate::config::Location;
use crate::s3::S3Error;

/// Looks at the notifications of the destination's bucket.
pub(super) async fn check(client: &Client, destination: &Location, queue_arn: &str) -> Result<(), ActionError> {
    let bucket = &destination.bucket;
    let notifications = client.get_bucket_notification_configuration().bucket(bucket).send().await.map_err(|error| {
        let error = S3Error::new("GetBucketNotificationConfiguration", bucket, "", &error);
        ActionError::Unchecked { destination: destination.clone(), error }
    })?;
    for rule in notifications.queue_configurations() {
        let prefix = prefix_of(rule.filter());
        if rule.queue_arn() == queue_arn && overlap(&prefix, &destination.prefix) {
            let why = format!("the bucket notifies the queue of keys that begin with {prefix:?}");
            return Err(ActionError::Loop { destination: destination.clone(), why });
        }
    }
    // Where these end up cannot be seen from here.
    if !notifications.topic_configurations().is_empty() || notifications.event_bridge_configuration().is_some() {
        tracing::warn!(%destination, "the bucket also notifies SNS or EventBridge; make sure that this does not reach our queue");
    }
    Ok(())
}

fn prefix_of(filter: Option<&NotificationConfigurationFilter>) -> String {
    filter
        .and_then(|filter| filter.key())
        .into_iter()
        .flat_map(|key| key.filter_rules())
        .find(|rule| rule.name().is_some_and(|name| name.as_str().eq_ignore_ascii_case(FilterRuleName::Prefix.as_str())))
        .and_then(|rule| rule.value())
        .unwrap_or("")
        .to_owned()
}

/// Whether a key can begin with both.
fn overlap(one: &str, other: &str) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn prefixes_that_share_keys() {
        for (rule, destination, shared) in [
            ("", "", true),
            ("", "clean/", true),
            ("in/", "clean/", false),
            ("in/", "", true),
            ("in/a/", "in/", true),
            ("in", "inbox/", true),
        ] {
            assert_eq!(overlap(rule, destination), shared, "{rule:?} {destination:?}");
        }
    }
}
