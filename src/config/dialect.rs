//! `actions.tag_dialects`: whose tags are written.

use serde::{Deserialize, Serialize};

/// A scanner whose tags are written, so that the bucket policies and programs which were made for it go on working.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagDialect {
    /// Our own; the names begin with `actions.tag_prefix`.
    Clamgate,
    /// Amazon GuardDuty Malware Protection for S3.
    Guardduty,
    /// bucketAV.
    Bucketav,
    /// widdix/aws-s3-virusscan, from which bucketAV was made.
    AwsS3Virusscan,
    /// bluesentry/bucket-antivirus-function.
    BucketAntivirusFunction,
    /// awslabs/cdk-serverless-clamscan.
    CdkServerlessClamscan,
    /// The scanner of CMS MacPro and the programs made from it.
    Macpro,
}

impl TagDialect {
    /// The name of the tag that says the status.
    #[must_use]
    pub fn status_key(self, prefix: &str) -> String {
        match self {
            Self::Clamgate => format!("{prefix}status"),
            Self::Guardduty => "GuardDutyMalwareScanStatus".to_owned(),
            Self::Bucketav => "bucketav".to_owned(),
            Self::AwsS3Virusscan => "clamav-status".to_owned(),
            Self::BucketAntivirusFunction => "av-status".to_owned(),
            Self::CdkServerlessClamscan => "scan-status".to_owned(),
            Self::Macpro => "virusScanStatus".to_owned(),
        }
    }

    /// Whether it has a word for an object that is being scanned.
    #[must_use]
    pub fn knows_in_progress(self) -> bool {
        matches!(self, Self::Clamgate | Self::CdkServerlessClamscan)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ActionsConfig;

    #[test]
    fn dialects_that_cannot_work() {
        for (text, wrong) in [
            ("", None),
            ("tag_dialects = ['clamgate', 'guardduty', 'bucketav', 'aws-s3-virusscan', 'macpro']", None),
            ("tag_dialects = ['bucket-antivirus-function', 'cdk-serverless-clamscan']", None),
            ("tag_dialects = []", Some("actions.tag = false")),
            ("tag_dialects = ['macpro', 'macpro']", Some("name each once")),
            ("tag_prefix = 'av-'", None),
            ("tag_prefix = 'av-'\ntag_dialects = ['clamgate', 'bucket-antivirus-function']", Some("actions.tag_prefix")),
            ("tag_prefix = 'scan-'\ntag_dialects = ['cdk-serverless-clamscan', 'clamgate']", Some("actions.tag_prefix")),
            ("tag_in_progress = true", None),
            ("tag_in_progress = true\ntag = false", Some("actions.tag_in_progress needs")),
            ("tag_in_progress = true\ntag_dialects = ['guardduty']", Some("actions.tag_in_progress needs")),
        ] {
            let config = toml::from_str::<ActionsConfig>(text);
            let problems = config.map(|config| config.problems().join("\n")).unwrap_or_else(|error| format!("{error}"));
            assert!(wrong.map_or(problems.is_empty(), |wrong| problems.contains(wrong)), "{text}: {problems}");
        }
    }
}
