//! `[report.sinks.NAME.sns]`

use serde::{Deserialize, Serialize};

/// As messages on an SNS topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnsSinkConfig {
    /// The topic's ARN.
    pub topic_arn: String,
    /// The form of the messages.
    #[serde(default)]
    pub form: SnsForm,
}

/// The form of a message on a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnsForm {
    /// Our own report.
    #[default]
    Clamgate,
    /// What bucket-antivirus-function sends.
    BucketAntivirusFunction,
    /// What aws-s3-virusscan sends.
    AwsS3Virusscan,
}

impl SnsSinkConfig {
    /// What cannot work.
    pub(in super::super) fn problems(&self) -> Vec<String> {
        let parts: Vec<&str> = self.topic_arn.split(':').collect();
        match parts.as_slice() {
            ["arn", _, "sns", region, account, name] if [region, account, name].iter().all(|part| !part.is_empty()) => {
                Vec::new()
            }
            _ => vec![".sns.topic_arn must be the ARN of a topic, such as arn:aws:sns:eu-west-2:111122223333:scans".to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics() {
        for (topic_arn, is_right) in [
            ("arn:aws:sns:eu-west-2:111122223333:scans", true),
            ("arn:aws-cn:sns:cn-north-1:111122223333:scans.fifo", true),
            ("arn:aws:sqs:eu-west-2:111122223333:scans", false),
            ("arn:aws:sns:eu-west-2:111122223333:scans:9f86d081-884c", false),
            ("scans", false),
        ] {
            let config = SnsSinkConfig { topic_arn: topic_arn.to_owned(), form: SnsForm::Clamgate };
            assert_eq!(config.problems().is_empty(), is_right, "{topic_arn}");
        }
    }
}
