//! `[report.sinks.NAME.event_bridge]`

use serde::{Deserialize, Serialize};

/// The most characters of a bus's name or ARN, and of a source
/// (<https://docs.aws.amazon.com/eventbridge/latest/APIReference/API_PutEventsRequestEntry.html>; a source has no limit of its own).
const LONGEST_BUS: usize = 1600;
const LONGEST_SOURCE: usize = 256;

/// As events on an EventBridge bus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventBridgeSinkConfig {
    /// The bus, by its name or ARN.
    pub bus: String,
    /// The source of the events, for rules to match.
    pub source: String,
    /// The form of the events.
    pub form: EventBridgeForm,
}

/// The form of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventBridgeForm {
    /// Our own report.
    #[default]
    Clamgate,
    /// What GuardDuty Malware Protection for S3 sends, but for the source.
    GuardDuty,
}

impl Default for EventBridgeSinkConfig {
    fn default() -> Self {
        Self { bus: "default".to_owned(), source: "clamgate".to_owned(), form: EventBridgeForm::Clamgate }
    }
}

impl EventBridgeSinkConfig {
    /// What cannot work.
    pub(in super::super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let fits = |text: &str, most: usize, special: &str| {
            (1..=most).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || special.contains(c))
        };
        if !fits(&self.bus, LONGEST_BUS, "/.-_:") {
            problems.push(".event_bridge.bus must be the name or ARN of an event bus".to_owned());
        }
        if self.source.starts_with("aws.") {
            problems.push(".event_bridge.source must not begin with aws., which AWS keeps for itself".to_owned());
        } else if !fits(&self.source, LONGEST_SOURCE, "/.-_") {
            problems.push(format!(".event_bridge.source must be 1 to {LONGEST_SOURCE} of a-z, A-Z, 0-9 and /.-_"));
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buses_and_sources() {
        for (bus, source, is_right) in [
            ("default", "clamgate", true),
            ("arn:aws:events:eu-west-2:111122223333:event-bus/scans", "my.app/scans", true),
            ("", "clamgate", false),
            ("de fault", "clamgate", false),
            ("default", "aws.guardduty", false),
            ("default", "", false),
            ("default", "ü", false),
        ] {
            let config = EventBridgeSinkConfig { bus: bus.into(), source: source.into(), form: EventBridgeForm::Clamgate };
            assert_eq!(config.problems().is_empty(), is_right, "{bus} {source}");
        }
    }
}
