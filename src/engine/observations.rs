//! Everything that libclamav said during one scan.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::formats::Findings;
use super::handle::{code_name, unrar_is_available};
use super::meanings::{Means, Source, meaning};
use super::members::Members;

/// The raw material of a verdict. [`judge`](super::judge) reads it; nothing else does.
///
/// The default value is "nothing is known", which is never clean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Observations {
    /// What `cl_scanmap_callback` or `cl_scandesc_callback` returned (`cl_error_t`).
    pub return_code: u32,
    /// All alerts, malware and heuristics alike, from the `virus_found` callback.
    pub signatures: BTreeSet<String>,
    /// Signatures that matched and are on the engine's list of allowed ones.
    pub allowed: BTreeSet<String>,
    /// What is encrypted, by name; at most eight.
    pub encrypted: BTreeSet<String>,
    /// What this libclamav does not read, by name; at most eight.
    pub unsupported: BTreeSet<String>,
    /// What libclamav's metadata lists under `ParseErrors`, in any layer, with the layer's type: `ERROR in CL_TYPE_ZIP`.
    pub parse_errors: BTreeSet<String>,
    /// What archives announced, and what was scanned of it.
    pub members: Members,
    /// The size in bytes of the largest HTML page, the input included.
    pub largest_html: u64,
    /// The size in bytes of the largest text, the input included.
    pub largest_text: u64,
    /// libclamav's messages during the scan, except those that mean nothing for the verdict; at most 64.
    pub messages: Vec<Message>,
    /// What this crate saw go wrong itself: a callback that panicked, a file that changed.
    pub failures: Vec<String>,
    /// What the operating system refused libclamav (space, descriptors, its directory).
    pub refusal: Option<String>,
    /// The scan took longer than it may.
    pub timed_out: bool,
    /// The input is larger than `max_file_size_bytes`; libclamav was not asked.
    pub too_large: bool,
    /// libclamav reached the end of the scan and handed over its metadata (the `file_props` callback), or there was nothing to scan.
    pub finished: bool,
}

/// How many names are kept of what is encrypted, and of what is not supported. Hostile files can hold any number.
pub(super) const MOST_NAMES: usize = 8;

/// How much of a hostile name is kept, in characters.
const LONGEST_NAME: usize = 200;

/// One message of libclamav's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// How serious libclamav says it is. A level that this crate does not know counts as [`Severity::Error`].
    pub severity: Severity,
    /// The text, without the prefix and the line end.
    pub text: String,
}

/// `enum cl_msg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// `CL_MSG_INFO_VERBOSE`
    Info,
    /// `CL_MSG_WARN`
    Warning,
    /// `CL_MSG_ERROR`
    Error,
}

impl Observations {
    /// A complete scan of an input that holds nothing to scan.
    pub(super) fn complete() -> Self {
        Self { finished: true, ..Self::default() }
    }

    /// A scan that did not take place.
    #[must_use]
    pub fn failed(why: &str) -> Self {
        Self { failures: vec![why.to_owned()], ..Self::default() }
    }

    /// Takes in what was observed of a part that was scanned by itself.
    pub(super) fn absorb(&mut self, part: Self) {
        if part.finished && part.members.missing() > 0 {
            add_name(&mut self.unsupported, "members of archives that were not unpacked");
        }
        if !part.finished {
            self.fail("libclamav did not finish a part of the scan");
        }
        if self.return_code == 0 {
            self.return_code = part.return_code;
        }
        self.signatures.extend(part.signatures);
        self.allowed.extend(part.allowed);
        self.encrypted.extend(part.encrypted);
        self.unsupported.extend(part.unsupported);
        self.parse_errors.extend(part.parse_errors);
        self.messages.extend(part.messages);
        self.failures.extend(part.failures);
        self.refusal = self.refusal.take().or(part.refusal);
        self.timed_out |= part.timed_out;
        self.too_large |= part.too_large;
    }

    /// What hindered the scan, if it was this machine: that says nothing about the input, which may get another verdict later.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let is_trouble = |source, text: &str| meaning(source, text).is_some_and(|row| row.means == Means::Trouble);
        let message =
            || self.messages.iter().map(|message| &message.text).find(|text| is_trouble(Source::Message, text)).cloned();
        let error = || self.parse_errors.iter().find(|error| is_trouble(Source::ParseError, error)).cloned();
        let code = || Some(code_name(self.return_code).to_owned()).filter(|name| is_trouble(Source::ReturnCode, name));
        self.refusal.clone().or_else(message).or_else(error).or_else(code)
    }

    /// Notes a trouble that keeps the verdict from being clean.
    pub(super) fn fail(&mut self, why: &str) {
        self.failures.push(why.to_owned());
    }

    pub(super) fn add_encrypted(&mut self, name: &str) {
        add_name(&mut self.encrypted, name);
    }

    /// Notes a layer of `size` bytes, and what a second look at it showed.
    pub(super) fn add_findings(&mut self, kind: &str, size: u64, findings: Findings) {
        findings.encrypted.iter().for_each(|name| add_name(&mut self.encrypted, name));
        findings.unsupported.iter().for_each(|name| add_name(&mut self.unsupported, name));
        self.timed_out |= findings.timed_out;
        self.members.open(kind, size, findings.expected, findings.expected_below);
    }

    /// Reads libclamav's metadata: its arrival shows that the scan came to its end, its `ParseErrors` what was left out.
    pub(super) fn add_metadata(&mut self, json: &str) {
        let mut reader = serde_json::Deserializer::from_str(json);
        match (MetadataVisitor { seen: self }).deserialize(&mut reader) {
            Ok(()) => self.finished = true,
            Err(error) => self.fail(&format!("libclamav's metadata could not be read: {error}")),
        }
    }
}

fn add_name(names: &mut BTreeSet<String>, name: &str) {
    if names.len() < MOST_NAMES {
        names.insert(printable(name));
    }
}

/// A name from a hostile file, shortened and without control characters.
fn printable(name: &str) -> String {
    if name.is_empty() {
        return "unnamed".to_owned();
    }
    name.chars().take(LONGEST_NAME).map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// Walks a JSON text of any size and keeps only what a verdict needs.
struct MetadataVisitor<'seen> {
    seen: &'seen mut Observations,
}

impl MetadataVisitor<'_> {
    fn deeper(&mut self) -> MetadataVisitor<'_> {
        MetadataVisitor { seen: self.seen }
    }

    /// Notes one layer.
    fn layer(&mut self, kind: &str, size: u64) {
        if kind == "CL_TYPE_HTML" {
            self.seen.largest_html = self.seen.largest_html.max(size);
        } else if kind == "CL_TYPE_SCRIPT" || kind.starts_with("CL_TYPE_TEXT_") {
            self.seen.largest_text = self.seen.largest_text.max(size);
        }
        // Without the unrar module libclamav skips what is inside, and says so only in its debug log
        // (scanners.c: cli_scanrar_file).
        if matches!(kind, "CL_TYPE_RAR" | "CL_TYPE_RARSFX") && !unrar_is_available() {
            add_name(&mut self.seen.unsupported, "RAR");
        }
    }
}

impl<'de> DeserializeSeed<'de> for MetadataVisitor<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for MetadataVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("libclamav's metadata")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let (mut kind, mut layer_size) = (String::new(), None);
        let mut errors = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "ParseErrors" => errors = map.next_value::<Vec<String>>()?,
                "FileType" => kind = map.next_value()?,
                // It stands before what was unpacked from the layer (scanners.c: cli_magic_scan).
                "FileSize" => {
                    let size = map.next_value()?;
                    self.seen.members.enter(size);
                    layer_size = Some(size);
                }
                // pdf.c: objects beyond the 65,536th are not looked at.
                "TooManyObjects" => {
                    if map.next_value::<bool>()? {
                        self.seen.parse_errors.insert("Heuristics.Limits.Exceeded.PDFObjects".to_owned());
                    }
                }
                _ => map.next_value_seed(self.deeper())?,
            }
        }
        self.seen.parse_errors.extend(errors.into_iter().map(|error| format!("{error} in {kind}")));
        if let Some(size) = layer_size {
            self.seen.members.leave();
            self.layer(&kind, size);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.deeper())?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_errors_are_found_in_every_layer() {
        let mut seen = Observations::default();
        seen.add_metadata(
            r#"{"Magic":"CLAMJSONv0","FileSize":1200,"ok":true,"none":null,"f":1.5,"neg":-1,
                "ContainedObjects":[{"FileType":"CL_TYPE_ZIP","FileSize":34,"ParseErrors":["A"]},{"x":[[],[{"ParseErrors":["B","A"]}]]}],
                "ParseErrors":["C"]}"#,
        );
        assert!(seen.finished);
        assert_eq!(seen.members.largest(), 34, "the input itself is no member");
        let errors: Vec<&str> = seen.parse_errors.iter().map(String::as_str).collect();
        assert_eq!(errors, ["A in ", "A in CL_TYPE_ZIP", "B in ", "C in "]);
    }

    #[test]
    fn unreadable_metadata_is_a_failure() {
        for json in ["", "{", r#"{"ParseErrors":7}"#] {
            let mut seen = Observations::default();
            seen.add_metadata(json);
            assert!(!seen.finished && !seen.failures.is_empty(), "{json:?}");
        }
    }

    #[test]
    fn hostile_member_names_are_tamed() {
        assert_eq!(printable("a\n\u{1b}[31mb"), "a\u{fffd}\u{fffd}[31mb");
        assert_eq!(printable(&"x".repeat(5000)).len(), LONGEST_NAME);
        assert_eq!(printable(""), "unnamed");
    }
}
