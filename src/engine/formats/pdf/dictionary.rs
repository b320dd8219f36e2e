//! A PDF dictionary twice: as the specification has it, and as libclamav reads it.
//!
//! libclamav does not parse a dictionary. It looks for `>>`, strings and all, and then takes one name after the other (`pdf.c:
//! pdf_parseobj`). Where the two readings differ, libclamav unpacks a stream the wrong way, or not at all.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memmem};

/// The entries that matter here; all others are skipped.
const KEYS: &[&[u8]] = &[
    b"DecodeParms",
    b"DP",
    b"EFF",
    b"Encrypt",
    b"F",
    b"Filter",
    b"First",
    b"H",
    b"Height",
    b"Length",
    b"Linearized",
    b"N",
    b"StmF",
    b"Subtype",
    b"Type",
    b"W",
    b"Width",
];

/// How many filters libclamav notes (`pdf.h: PDF_FILTERLIST_MAX`).
pub(super) const MOST_FILTERS: usize = 64;

/// How much of a name it reads.
const LONGEST_NAME: usize = 63;

/// How deep values nest; readers give up earlier (ISO 32000-1, annex C names 28 as a usual bound of its kind).
const DEEPEST: u32 = 500;

/// One lexical element of ISO 32000-1, 7.2 and 7.3, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'bytes> {
    Open,
    Close,
    ArrayOpen,
    ArrayClose,
    Name(Cow<'bytes, [u8]>),
    String,
    /// A number, a keyword, or whatever else has no delimiter in it.
    Word(Range<usize>),
}

/// White space (ISO 32000-1, table 1).
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

pub(super) fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !b"()<>[]{}/%".contains(&byte)
}

/// The first position from `at` on that is neither white space nor in a comment.
pub(super) fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let rest = bytes.get(at..).unwrap_or_default();
            at += memchr::memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
        } else if is_space(byte) {
            at += 1;
        } else {
            break;
        }
    }
    at
}

/// The next element from `at` on, and where it ends.
pub(super) fn next_token(bytes: &[u8], at: usize) -> Option<(Token<'_>, usize)> {
    let start = skip_space(bytes, at);
    let rest = bytes.get(start..)?;
    let after = start + 1;
    match rest {
        [b'<', b'<', ..] => Some((Token::Open, start + 2)),
        [b'>', b'>', ..] => Some((Token::Close, start + 2)),
        [b'[', ..] => Some((Token::ArrayOpen, after)),
        [b']', ..] => Some((Token::ArrayClose, after)),
        [b'<', ..] => memchr(b'>', rest).map(|length| (Token::String, after + length)),
        [b'(', ..] => end_of_string(bytes, after).map(|end| (Token::String, end)),
        [b'/', name @ ..] => {
            let length = name.iter().take_while(|&&byte| is_regular(byte)).count();
            Some((Token::Name(unescape(name.get(..length)?)), after + length))
        }
        [b')' | b'>' | b'{' | b'}', ..] | [] => None,
        _ => {
            let end = start + rest.iter().take_while(|&&byte| is_regular(byte)).count();
            Some((Token::Word(start..end), end))
        }
    }
}

fn end_of_string(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut open = 1_u32;
    while open > 0 {
        match bytes.get(at)? {
            b'\\' => at += 1,
            b'(' => open = open.checked_add(1)?,
            b')' => open -= 1,
            _ => {}
        }
        at += 1;
    }
    Some(at)
}

/// A name without its `#` escapes.
fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if memchr(b'#', name).is_none() {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::new();
    let mut at = 0;
    while let Some(&byte) = name.get(at) {
        let escaped = if byte == b'#' { name.get(at + 1..at + 3).and_then(hexadecimal) } else { None };
        plain.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(plain)
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digit = |index: usize| digits.get(index).and_then(|&digit| char::from(digit).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

/// The end of the value that starts at `at`: an array or a dictionary with all that is in it, or one element.
pub(super) fn skip_value(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0_u32;
    loop {
        let (token, end) = next_token(bytes, at)?;
        match token {
            Token::Open | Token::ArrayOpen => depth += 1,
            Token::Close | Token::ArrayClose => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(end);
        }
        if depth > DEEPEST {
            return None;
        }
        at = end;
    }
}

/// A dictionary as the specification has it.
#[derive(Debug, Default)]
pub(super) struct Dictionary {
    entries: Vec<(&'static [u8], Range<usize>)>,
    /// One of these entries stands there twice: readers may take either.
    pub(super) ambiguous: bool,
    /// The first byte behind it.
    pub(super) end: usize,
}

impl Dictionary {
    /// Reads the dictionary that starts at or after `at`, white space skipped.
    pub(super) fn parse(bytes: &[u8], at: usize) -> Option<Self> {
        Self::parse_entries(bytes, at, KEYS)
    }

    /// Reads these entries of a dictionary.
    pub(super) fn parse_entries(bytes: &[u8], at: usize, keys: &'static [&'static [u8]]) -> Option<Self> {
        let (Token::Open, mut at) = next_token(bytes, at)? else { return None };
        let mut dictionary = Self::default();
        loop {
            let (token, value) = next_token(bytes, at)?;
            let name = match token {
                Token::Close => {
                    dictionary.end = value;
                    return Some(dictionary);
                }
                Token::Name(name) => name,
                // The rest of an indirect reference, `0 R`.
                Token::Word(_) => {
                    at = value;
                    continue;
                }
                _ => return None,
            };
            at = skip_value(bytes, value)?;
            if let Some(&key) = keys.iter().find(|&&key| key == name.as_ref()) {
                if dictionary.get(key).is_some() {
                    dictionary.ambiguous = true;
                } else {
                    dictionary.entries.push((key, value..end_of_reference(bytes, at)));
                }
            }
        }
    }

    /// Where an entry's value stands.
    pub(super) fn get(&self, key: &[u8]) -> Option<Range<usize>> {
        self.entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value.clone())
    }

    /// The name that is an entry's value.
    pub(super) fn name<'bytes>(&self, bytes: &'bytes [u8], key: &[u8]) -> Option<Cow<'bytes, [u8]>> {
        match next_token(bytes, self.get(key)?.start)? {
            (Token::Name(name), _) => Some(name),
            _ => None,
        }
    }

    /// Whether an entry's value is this name.
    pub(super) fn is(&self, bytes: &[u8], key: &[u8], name: &[u8]) -> bool {
        self.name(bytes, key).is_some_and(|value| value == name)
    }
}

/// `12 0 R`: the value's end if what was read so far is the `12`.
fn end_of_reference(bytes: &[u8], end: usize) -> usize {
    let mut at = end;
    for _ in 0..2 {
        match next_token(bytes, at) {
            Some((Token::Word(_), after)) => at = after,
            _ => return end,
        }
    }
    at
}

/// What libclamav takes from the dictionary of an object.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The filters it would apply, in order, as [`known_filter`] names them.
    pub(super) filters: Vec<&'static str>,
    /// There is a `/Filter`: without `unpacks` or an attachment's mark, it then leaves the stream alone.
    pub(super) has_filter: bool,
    /// One of the filters that make it look into a stream, or an attachment (`pdf.c: DUMP_MASK`).
    pub(super) unpacks: bool,
    /// It takes the stream for a picture that is no JPEG, and leaves it alone (`pdf.c: pdf_extract_obj`).
    pub(super) image: bool,
    /// It takes the document for a linearised one.
    pub(super) linearized: bool,
    /// Names that change its mind in ways that are not followed here; none of them belongs into a stream's dictionary.
    pub(super) strange: bool,
}

/// The name of a filter that libclamav knows (`pdf.c: pdfname_actions`); those of pictures, which it does not decode, are one.
pub(super) fn known_filter(name: &[u8]) -> Option<&'static str> {
    Some(match name {
        b"ASCIIHexDecode" | b"AHx" => "ASCIIHexDecode",
        b"ASCII85Decode" | b"A85" => "ASCII85Decode",
        b"FlateDecode" | b"Fl" => "FlateDecode",
        b"LZWDecode" | b"LZW" => "LZWDecode",
        b"RunLengthDecode" | b"RL" => "RunLengthDecode",
        b"CCITTFaxDecode" | b"CCF" | b"JBIG2Decode" | b"DCTDecode" | b"DCT" | b"JPXDecode" => IMAGE,
        b"Crypt" => "Crypt",
        _ => return None,
    })
}

/// What [`known_filter`] makes of a picture's filter.
pub(super) const IMAGE: &str = "image";

impl Reading {
    /// Reads an object's bytes as `pdf.c: pdf_parseobj` and `handle_pdfname` do. `None` if libclamav finds no dictionary.
    pub(super) fn of(object: &[u8]) -> Option<Self> {
        let start = memmem::find(object, b"<<")? + 2;
        let names = object.get(start..end_of_dictionary(object, start)?)?;
        let mut reading = Self::default();
        let mut jpeg = false;
        let (mut in_filter, mut in_subtype) = (false, false);
        let (mut at, mut name) = (0, Vec::new());
        while let Some(slash) = names.get(at..).and_then(|rest| memchr(b'/', rest)) {
            at = libclamav_name(names, at + slash + 1, &mut name);
            match name.as_slice() {
                b"Filter" => (reading.has_filter, in_filter) = (true, true),
                b"Length" | b"Sig" | b"V" | b"R" => in_filter = false,
                b"Type" => in_subtype = false,
                b"S" => in_subtype = !in_filter,
                b"Image" if !in_filter => reading.image = true,
                b"EmbeddedFile" if !in_filter && !in_subtype => reading.unpacks = true,
                b"Linearized" if !in_filter && !in_subtype => reading.linearized = true,
                b"JavaScript" | b"OpenAction" | b"Launch" | b"Contents" => reading.strange = true,
                name if in_filter => {
                    let Some(filter) = known_filter(name) else { continue };
                    if reading.filters.len() < MOST_FILTERS {
                        reading.filters.push(filter);
                    }
                    jpeg |= matches!(name, b"JBIG2Decode" | b"DCTDecode" | b"DCT");
                    reading.unpacks |= jpeg || matches!(filter, "FlateDecode" | "ASCIIHexDecode" | "ASCII85Decode");
                    in_filter = filter != "Crypt";
                }
                _ => {}
            }
        }
        reading.image &= !jpeg;
        Some(reading)
    }

    /// Whether libclamav unpacks and scans the stream.
    pub(super) fn is_scanned(&self) -> bool {
        (!self.has_filter || self.unpacks) && !self.image
    }
}

/// Where libclamav sees the end of the dictionary that was opened before `start`.
fn end_of_dictionary(object: &[u8], start: usize) -> Option<usize> {
    let last = object.len().checked_sub(1)?;
    let (mut at, mut open) = (start, 1_u32);
    while at + 1 < last {
        let close = at + memchr(b'>', object.get(at..last)?)?;
        if object.get(close + 1) != Some(&b'>') {
            at = close + 2;
            continue;
        }
        while let Some(length) = object.get(at - 1..close).and_then(|inside| memchr(b'<', inside)) {
            let bracket = at - 1 + length;
            open += u32::from(object.get(bracket + 1) == Some(&b'<'));
            at = bracket + 2;
        }
        open -= 1;
        if open == 0 {
            return Some(close);
        }
        at = close + 2;
    }
    None
}

/// Fills in a name as `pdf.c: pdf_parseobj` cuts and unescapes it, and returns where libclamav reads on.
fn libclamav_name(names: &[u8], mut at: usize, name: &mut Vec<u8>) -> usize {
    name.clear();
    while let Some(&byte) = names.get(at) {
        if name.len() == LONGEST_NAME || b" \t\r\n/>[]<(".contains(&byte) {
            break;
        }
        if byte == b'#' {
            let Some(escaped) = names.get(at + 1..at + 3).and_then(hexadecimal) else { break };
            name.push(escaped);
            at += 3;
        } else {
            name.push(byte);
            at += 1;
        }
    }
    name.truncate(memchr(0, name).unwrap_or(name.len()));
    at
}
