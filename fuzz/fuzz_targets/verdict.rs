//! `judge` on arbitrary observations: it never panics, and `CLEAN` needs all of the proof.

#![no_main]

use arbitrary::Arbitrary;
use clamgate::engine::{MEANINGS, Means, Message, Observations, Severity, Source, Status, is_detection, judge, meaning};
use libfuzzer_sys::fuzz_target;

/// [`Observations`] as a fuzzer can make them, so that the library needs no dependency for it.
///
/// `Seen::observations` names every field and has no `..default()`: a new one does not compile before it is fuzzed.
#[derive(Debug, Arbitrary)]
struct Seen {
    return_code: Code,
    signatures: Vec<Said>,
    allowed: Vec<Said>,
    encrypted: Vec<String>,
    unsupported: Vec<String>,
    parse_errors: Vec<Said>,
    largest_html: u64,
    largest_text: u64,
    messages: Vec<(Level, Said)>,
    failures: Vec<String>,
    refusal: Option<String>,
    timed_out: bool,
    too_large: bool,
    finished: bool,
}

/// What libclamav returned. Every second value is one of the two that do not mean an error.
#[derive(Debug, Arbitrary)]
enum Code {
    Success,
    Virus,
    Small(u8),
    Any(u32),
}

/// Something that libclamav says: a row of the table of meanings, its stars filled in, or anything.
#[derive(Debug, Arbitrary)]
enum Said {
    Row(u8, String),
    Any(String),
}

#[derive(Debug, Arbitrary)]
enum Level {
    Info,
    Warning,
    Error,
}

impl Said {
    fn text(self, source: Source) -> String {
        match self {
            Self::Row(number, filling) => {
                let rows: Vec<_> = MEANINGS.iter().filter(|row| row.source == source).collect();
                let pattern = rows[usize::from(number) % rows.len()].pattern;
                let text = pattern.replace('*', &filling);
                assert!(meaning(source, &text).is_some(), "{text:?} is made of {pattern:?}, and unknown");
                text
            }
            Self::Any(text) => text,
        }
    }
}

impl Seen {
    fn observations(self) -> Observations {
        let texts = |said: Vec<Said>, source| said.into_iter().map(move |said| said.text(source));
        let message = |(level, said): (Level, Said)| Message {
            severity: match level {
                Level::Info => Severity::Info,
                Level::Warning => Severity::Warning,
                Level::Error => Severity::Error,
            },
            text: said.text(Source::Message),
        };
        Observations {
            return_code: match self.return_code {
                Code::Success => 0,
                Code::Virus => 1,
                Code::Small(code) => code.into(),
                Code::Any(code) => code,
            },
            signatures: texts(self.signatures, Source::Alert).collect(),
            // The configuration refuses every other name: what was not looked at is not for a list of signatures to allow.
            allowed: texts(self.allowed, Source::Alert).filter(|name| is_detection(name)).collect(),
            encrypted: self.encrypted.into_iter().collect(),
            unsupported: self.unsupported.into_iter().collect(),
            parse_errors: texts(self.parse_errors, Source::ParseError).collect(),
            // Only libclamav's callbacks can fill this one: the target `engine` does.
            members: Default::default(),
            largest_html: self.largest_html,
            largest_text: self.largest_text,
            messages: self.messages.into_iter().map(message).collect(),
            failures: self.failures,
            refusal: self.refusal,
            timed_out: self.timed_out,
            too_large: self.too_large,
            finished: self.finished,
        }
    }
}

/// The only observations that may be clean: finished, and otherwise as if nothing had happened, but for what is allowed or means
/// nothing. A field that is not named here has to have its default value, so a new one keeps a verdict from being clean.
fn complete(seen: &Observations) -> Observations {
    let is_harmless = |source, text: &str| meaning(source, text).is_some_and(|row| row.means == Means::Harmless);
    let is_quiet = |message: &&Message| is_harmless(Source::Message, &message.text);
    Observations {
        finished: true,
        return_code: u32::from(seen.return_code == 1 && !seen.allowed.is_empty()),
        allowed: seen.allowed.clone(),
        largest_html: seen.largest_html,
        largest_text: seen.largest_text,
        messages: seen.messages.iter().filter(is_quiet).cloned().collect(),
        parse_errors: seen.parse_errors.iter().filter(|error| is_harmless(Source::ParseError, error)).cloned().collect(),
        ..Observations::default()
    }
}

fuzz_target!(|seen: Seen| {
    let seen = seen.observations();
    let verdict = judge(&seen);

    assert_eq!(verdict.status == Status::Clean, seen == complete(&seen), "{verdict:?} of {seen:?}");
    assert!(verdict.status != Status::Clean || seen.trouble().is_none(), "clean, in trouble: {seen:?}");

    // An alert that means nothing else is malware.
    let malware: Vec<_> = seen.signatures.iter().filter(|name| meaning(Source::Alert, name).is_none()).collect();
    assert_eq!(verdict.status == Status::Infected, !malware.is_empty(), "{verdict:?} of {seen:?}");
    assert!(malware.iter().all(|name| verdict.signatures.contains(name)), "a name was lost: {verdict:?} of {seen:?}");

    assert_eq!(verdict.reason.is_some(), verdict.detail.is_some(), "{verdict:?}");
    match verdict.status {
        Status::Clean => assert!(verdict.signatures.is_empty() && verdict.reason.is_none(), "{verdict:?}"),
        Status::Suspicious => assert!(!verdict.signatures.is_empty() && verdict.reason.is_none(), "{verdict:?}"),
        Status::Unscannable => assert!(verdict.reason.is_some(), "{verdict:?}"),
        Status::Infected => {}
        Status::Failed => panic!("no scan fails an object: {verdict:?} of {seen:?}"),
    }

    assert!(verdict.allowed.iter().eq(&seen.allowed), "{verdict:?} of {seen:?}");
    assert!(verdict.signatures.is_sorted_by(|a, b| a < b), "not sorted, or not each once: {verdict:?}");
    for name in &verdict.signatures {
        assert!(seen.signatures.contains(name), "a name from nowhere: {verdict:?} of {seen:?}");
        let incomplete = matches!(meaning(Source::Alert, name).map(|row| row.means), Some(Means::Incomplete(_)));
        assert!(!incomplete, "no detection: {verdict:?}");
    }
});
