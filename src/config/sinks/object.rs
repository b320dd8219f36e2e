//! `[report.sinks.NAME.s3]`

use serde::{Deserialize, Serialize};

use super::super::Template;

/// As one object in S3 for each scan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectSinkConfig {
    /// The place, such as `s3://results/{bucket}/{key}.json`. Placeholders: [`ObjectSinkConfig::PLACEHOLDERS`].
    pub to: Template,
}

impl ObjectSinkConfig {
    /// What can stand in the place.
    pub const PLACEHOLDERS: [&str; 5] = ["bucket", "key", "scan_id", "status", "date"];

    /// What cannot work.
    pub(in super::super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(unknown) = self.to.unknown(&Self::PLACEHOLDERS) {
            let known = Self::PLACEHOLDERS.map(|name| format!("{{{name}}}")).join(", ");
            problems.push(format!(".s3.to has the unknown placeholder {{{unknown}}}; there are {known}"));
        }
        if !self.to.has("key") && !self.to.has("scan_id") {
            problems.push(".s3.to must have {key} or {scan_id}: every report would overwrite the one before".to_owned());
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() -> Result<(), String> {
        for (to, expected) in [
            ("s3://r/{bucket}/{key}.json", ""),
            ("s3://r/{date}/{status}/{scan_id}.json", ""),
            ("s3://r/{date}.json", "must have {key} or {scan_id}"),
            ("s3://r/{key}/{sha256}.json", "unknown placeholder {sha256}"),
        ] {
            let problems = ObjectSinkConfig { to: to.parse()? }.problems().concat();
            assert!(problems.contains(expected) && problems.is_empty() == expected.is_empty(), "{to}: {problems}");
        }
        Ok(())
    }
}
