//! Whether a PDF is encrypted, and whether libclamav sees it: then it decrypts the document or reports it.

use std::ops::Range;

use memchr::memmem;

use super::dictionary::{Dictionary, Reading, Token, next_token};
use super::document::integer;

/// How many trailers are looked at, and how much of each.
pub(super) const MOST_TRAILERS: usize = 1000;
const LONGEST_TRAILER: usize = 16 * 1024;

/// The entries of a trailer that decide about encryption, and the type of a stream that doubles as one (ISO 32000-1, 7.5.8).
pub(super) const TRAILER: &[&[u8]] = &[b"Encrypt", b"ID", b"Type"];

/// Whether the document says that it is encrypted: `/Encrypt 5 0 R` as trailers have it, wherever it stands, or any other
/// `/Encrypt` in a trailer.
pub(super) fn has_encryption(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, b"/Encrypt").any(|at| is_reference(bytes, at + b"/Encrypt".len()))
        || trailers(bytes).any(|trailer| trailer.is_some_and(|trailer| trailer.get(b"Encrypt").is_some()))
}

/// The dictionaries behind the word `trailer`; `None` for those that cannot be read.
pub(super) fn trailers(bytes: &[u8]) -> impl Iterator<Item = Option<Dictionary>> {
    memmem::find_iter(bytes, b"trailer").take(MOST_TRAILERS).map(|at| at + b"trailer".len()).filter_map(|start| {
        let bytes = bytes.get(..start.saturating_add(LONGEST_TRAILER).min(bytes.len()))?;
        let is_dictionary = matches!(next_token(bytes, start), Some((Token::Open, _)));
        is_dictionary.then(|| Dictionary::parse_entries(bytes, start, TRAILER))
    })
}

fn is_reference(bytes: &[u8], at: usize) -> bool {
    let Some(bytes) = bytes.get(..at.saturating_add(64).min(bytes.len())) else { return false };
    let word = |at: usize| match next_token(bytes, at) {
        Some((Token::Word(word), _)) => Some(word),
        _ => None,
    };
    word(at)
        .and_then(|word_| word(word_.end))
        .and_then(|word_| word(word_.end))
        .is_some_and(|last| bytes.get(last) == Some(b"R"))
}

/// `pdf.c: cli_pdf` looks for `/Encrypt` in the last 2,048 bytes only, and only if they look like the end of a PDF.
pub(super) fn libclamav_finds_encryption(bytes: &[u8]) -> bool {
    let tail = bytes.get(bytes.len().saturating_sub(2048)..).unwrap_or_default();
    let start = memmem::rfind(tail, b"%%EOF").and_then(|end| memmem::rfind(tail.get(..end)?, b"startxref"));
    start.is_some_and(|start| start > 0) && memmem::find(tail, b"/Encrypt").is_some()
}

/// In a linearised document it also looks into the 1,024 bytes before the first number of `/H` (`pdf.c: pdf_parseobj`).
pub(super) fn linearised_encryption(bytes: &[u8], dictionary: Range<usize>) -> bool {
    let head = bytes.get(dictionary.clone()).unwrap_or_default();
    if !Reading::of(head).is_some_and(|reading| reading.linearized) {
        return false;
    }
    let hints = memmem::find(head, b"/H").and_then(|at| next_token(bytes, dictionary.start + at + b"/H".len()));
    let Some((Token::ArrayOpen, first)) = hints else { return false };
    let end = integer(bytes, first).and_then(|end| usize::try_from(end).ok()).unwrap_or(0);
    bytes.get(end.saturating_sub(1024)..end).is_some_and(|part| memmem::find(part, b"/Encrypt").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_file_counts_for_libclamav() {
        let trailer = "trailer<</Encrypt 9 0 R>>startxref\n0\n%%EOF";
        for (document, is_encrypted, is_known) in [
            (format!("%PDF-1.5\n{trailer}"), true, true),
            (format!("%PDF-1.5\n{trailer}{}", "\n".repeat(3000)), true, false),
            (format!("%PDF-1.5\n{}", trailer.replace("%%EOF", "")), true, false),
            (format!("%PDF-1.5\n{}", trailer.replace("/Enc", "/#45nc")), true, false),
            (format!("%PDF-1.5\n{}", trailer.replace("9 0 R", "<</V 5>>")), true, true),
            ("%PDF-1.5\ntrailer<</Root 1 0 R>>startxref\n0\n%%EOF".to_owned(), false, false),
        ] {
            let bytes = document.as_bytes();
            assert_eq!((has_encryption(bytes), libclamav_finds_encryption(bytes)), (is_encrypted, is_known), "{document}");
        }
    }

    #[test]
    fn a_linearised_document_has_a_second_place() {
        for (hints, is_known) in [(60, true), (20, false), (0, false), (9999, false)] {
            let bytes = format!("<</Linearized 1/H[{hints} 5]>>    /Encrypt 3 0 R                                  ");
            assert_eq!(linearised_encryption(bytes.as_bytes(), 0..30), is_known, "{hints}");
        }
    }
}
