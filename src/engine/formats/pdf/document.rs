//! A document as libclamav cuts it up: its objects and streams, found by searching for words.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ops::Range;

use memchr::memmem;

use super::decryption::Key;
use super::dictionary::{Dictionary, Token, is_space, next_token, skip_space};
use super::encryption::{has_encryption, libclamav_finds_encryption, linearised_encryption};
use super::uses::Uses;
use super::{Deadline, Findings, SMALL, report};

/// How many objects libclamav looks at (`pdf.c: MAX_PDF_OBJECTS`); it says itself when there are more.
const MOST_OBJECTS: usize = 64 * 1024;

/// A document as libclamav cuts it up.
pub(super) struct Pdf<'bytes> {
    pub(super) bytes: &'bytes [u8],
    pub(super) objects: Vec<Object>,
    /// By object number, the places in `objects`: a document that was changed has several of one number.
    pub(super) numbers: HashMap<u64, Vec<usize>>,
    pub(super) is_encrypted: bool,
    /// libclamav sees that it is encrypted: it decrypts it, or reports it.
    pub(super) libclamav_knows: bool,
    pub(super) deadline: &'bytes Deadline,
    /// Most documents need not be asked.
    uses: OnceCell<Uses>,
    key: OnceCell<Option<Key>>,
}

pub(super) struct Object {
    pub(super) number: u64,
    /// Where its value stands, up to `endobj`.
    pub(super) value: Range<usize>,
}

/// An object that is a stream.
pub(super) struct Stream {
    pub(super) dictionary: Dictionary,
    /// Where the word `stream` stands.
    pub(super) keyword: usize,
    /// Up to `endstream`, at which libclamav ends it as well (`pdf.c: find_stream_bounds`), or to the object's end.
    pub(super) data: Range<usize>,
    pub(super) is_truncated: bool,
}

impl<'bytes> Pdf<'bytes> {
    /// Finds the objects as `pdf.c: pdf_findobj` does.
    pub(super) fn parse(bytes: &'bytes [u8], deadline: &'bytes Deadline, found: &mut Findings) -> Self {
        let mut pdf = Self {
            bytes,
            objects: Vec::new(),
            numbers: HashMap::new(),
            is_encrypted: has_encryption(bytes),
            libclamav_knows: libclamav_finds_encryption(bytes),
            deadline,
            uses: OnceCell::new(),
            key: OnceCell::new(),
        };
        let (find, find_end) = (memmem::Finder::new(b"obj"), memmem::Finder::new(b"endobj"));
        let mut from = 0;
        while pdf.objects.len() < MOST_OBJECTS {
            let Some(keyword) = bytes.get(from..).and_then(|rest| find.find(rest)).map(|length| from + length) else { break };
            let start = keyword + b"obj".len();
            if deadline.spend(start - from).is_err() {
                break;
            }
            match object_number(bytes, from, keyword) {
                Some(number) => {
                    let end =
                        bytes.get(start..).and_then(|rest| find_end.find(rest)).map_or(bytes.len(), |length| start + length);
                    pdf.numbers.entry(number).or_default().push(pdf.objects.len());
                    pdf.objects.push(Object { number, value: start..end });
                    from = end.saturating_add(b"endobj".len());
                }
                None => {
                    if may_be_header(bytes.get(..keyword).unwrap_or_default()) && !goes_on(bytes, start) {
                        report(found, "PDF object with an unusual header");
                    }
                    from = start;
                }
            }
        }
        for object in &pdf.objects {
            let Object { value, .. } = object;
            let Some(bytes) = bytes.get(..value.end).filter(|_| deadline.spend(value.len()).is_ok()) else { continue };
            let Some(dictionary) = Dictionary::parse(bytes, value.start) else { continue };
            // A cross-reference stream's dictionary doubles as a trailer (ISO 32000-1, 7.5.8).
            pdf.is_encrypted |= dictionary.get(b"Encrypt").is_some() && dictionary.is(bytes, b"Type", b"XRef");
            pdf.libclamav_knows |= dictionary.get(b"Linearized").is_some()
                && linearised_encryption(pdf.bytes, value.start..dictionary.end.max(value.start));
            // Attachments can be encrypted in a way of their own, which libclamav knows by their type only (pdfdecode.c: get_enc_method).
            if dictionary.name(bytes, b"EFF").is_some_and(|filter| Some(filter) != dictionary.name(bytes, b"StmF")) {
                report(found, "PDF with attachments that are encrypted by themselves");
            }
        }
        pdf
    }

    /// The object's parts, if it is a stream that can be read.
    pub(super) fn stream(&self, object: &Object) -> Option<Stream> {
        let bytes = self.bytes.get(..object.value.end)?;
        let dictionary = Dictionary::parse(bytes, object.value.start)?;
        let keyword = skip_space(bytes, dictionary.end);
        if !bytes.get(keyword..)?.starts_with(b"stream") {
            return None;
        }
        let start = start_of_data(bytes, keyword + b"stream".len());
        let data = bytes.get(start..)?;
        let length = memmem::find(data, b"endstream");
        let end = start + length.unwrap_or(data.len());
        Some(Stream { dictionary, keyword, data: start..end, is_truncated: length.is_none() })
    }

    /// What decrypts the document, if it opens without a password.
    pub(super) fn key(&self) -> Option<&Key> {
        self.key.get_or_init(|| Key::of(self)).as_ref()
    }

    /// What the document uses its streams for.
    pub(super) fn uses(&self) -> &Uses {
        self.uses.get_or_init(|| Uses::of(self))
    }

    /// A number in a dictionary, be it direct or in an object of its own.
    pub(super) fn number(&self, dictionary: &Dictionary, key: &[u8]) -> Option<u64> {
        let value = dictionary.get(key)?;
        let number = integer(self.bytes, value.start)?;
        let text = self.bytes.get(value).unwrap_or_default();
        if !text.ends_with(b"R") {
            return Some(number);
        }
        integer(self.bytes, self.objects(number).last()?.value.start)
    }

    /// The objects of a number, in the order of the file.
    pub(super) fn objects(&self, number: u64) -> impl Iterator<Item = &Object> {
        self.numbers.get(&number).into_iter().flatten().filter_map(|&index| self.objects.get(index))
    }
}

/// The number of the object whose `obj` stands at `keyword`, if libclamav takes it for one.
fn object_number(bytes: &[u8], from: usize, keyword: usize) -> Option<u64> {
    let before = bytes.get(from..keyword)?;
    let generation = trim_digits(trim_space(before)?)?;
    let number = trim_space(generation)?;
    let ahead = trim_digits(number)?;
    let is_apart = ahead.last().is_none_or(|&byte| is_space(byte)) || ahead.ends_with(b"%%EOF");
    let digits = number.get(ahead.len()..)?;
    is_apart.then(|| std::str::from_utf8(digits).ok()?.parse().ok())?
}

fn trim_space(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().rposition(|&byte| !is_space(byte))? + 1;
    (length < bytes.len()).then(|| bytes.get(..length))?
}

fn trim_digits(bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.iter().rposition(|byte| !byte.is_ascii_digit()).map_or(0, |last| last + 1);
    (length < bytes.len()).then(|| bytes.get(..length))?
}

/// Whether what stands before `obj` can end in the two numbers that make it an object, with a comment behind them or not.
fn may_be_header(before: &[u8]) -> bool {
    let length = before.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    let (before, space) = before.split_at(length);
    let is_line_end = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let ends_in_comment =
        || space.iter().any(is_line_end) && before.iter().rev().take_while(|byte| !is_line_end(byte)).any(|&byte| byte == b'%');
    before.last().is_some_and(u8::is_ascii_digit) || ends_in_comment()
}

/// Whether a word does not end at `at`: `object` is not `obj`.
pub(super) fn goes_on(bytes: &[u8], at: usize) -> bool {
    bytes.get(at).is_some_and(|&byte| byte.is_ascii_alphanumeric())
}

pub(super) fn integer(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(..at.saturating_add(SMALL).min(bytes.len()))?;
    let (Token::Word(word), _) = next_token(bytes, at)? else { return None };
    std::str::from_utf8(bytes.get(word)?).ok()?.parse().ok()
}

/// The data start behind the keyword's end of line (ISO 32000-1, 7.3.8.1).
fn start_of_data(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at..) {
        Some([b'\r', b'\n', ..]) => at + 2,
        Some([b'\r' | b'\n', ..]) => at + 1,
        _ => at,
    }
}
