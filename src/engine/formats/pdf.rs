//! PDF: streams that libclamav does not unpack, or not to the end, and documents that it does not know to be encrypted.
//!
//! libclamav finds objects by searching for `obj` and `endobj` and never reads the cross-reference table (`pdf.c:
//! pdf_findobj`). A reader of the specification (ISO 32000) can see other objects, other filters and other bounds of a stream.
//! Here, both are done, and each difference that hides something is a finding. A JPEG, a fax and the like are pictures, which
//! libclamav scans as they are; that is no finding. What object streams hold is compressed, hence not looked at.

mod dictionary;
mod encryption;
mod filters;

use std::collections::HashMap;
use std::ops::Range;

use flate2::{Decompress, FlushDecompress, Status};
use memchr::memmem;

use self::dictionary::{
    Dictionary, IMAGE, MOST_FILTERS, Reading, Token, is_space, known_filter, next_token, skip_space, skip_value,
};
use self::encryption::{has_encryption, libclamav_finds_encryption, linearised_encryption};
use self::filters::{is_decodable, same_filters};
use super::Findings;

/// How many objects libclamav looks at (`pdf.c: MAX_PDF_OBJECTS`); it says itself when there are more.
const MOST_OBJECTS: usize = 64 * 1024;

/// How many different findings are kept.
const MOST_FINDINGS: usize = 16;

/// How much of a small thing is looked at: a number, a reference, the parameters of a filter.
const SMALL: usize = 4096;

/// How much of a filter's name is reported.
const LONGEST_NAME: usize = 40;

/// Looks at a PDF, which may start anywhere in `bytes`.
pub(super) fn inspect(bytes: &[u8], found: &mut Findings) {
    let Some(document) = memmem::find(bytes, b"%PDF-").and_then(|start| bytes.get(start..)) else { return };
    let pdf = Pdf::parse(document, found);
    for object in &pdf.objects {
        pdf.inspect_object(object, found);
    }
    if pdf.is_encrypted && !pdf.libclamav_knows {
        found.encrypted.push("PDF".to_owned());
    }
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

/// Whether a stream of zlib ends within these bytes. One that unpacks to very much does not count: there can be many of them.
fn is_whole(data: &[u8]) -> bool {
    const MOST: u64 = 64 * 1024 * 1024;
    let mut stream = Decompress::new(true);
    let mut unpacked = vec![0; 64 * 1024];
    loop {
        let (read, written) = (stream.total_in(), stream.total_out());
        let rest = usize::try_from(read).ok().and_then(|read| data.get(read..)).unwrap_or_default();
        match stream.decompress(rest, &mut unpacked, FlushDecompress::None) {
            Ok(Status::StreamEnd) => return true,
            Ok(_) if stream.total_out() < MOST && (stream.total_in(), stream.total_out()) != (read, written) => {}
            _ => return false,
        }
    }
}

/// Notes what libclamav does not read, each but once.
fn report(found: &mut Findings, what: &str) {
    if found.unsupported.len() < MOST_FINDINGS && !found.unsupported.iter().any(|known| known == what) {
        found.unsupported.push(what.to_owned());
    }
}

/// A document as libclamav cuts it up.
struct Pdf<'bytes> {
    bytes: &'bytes [u8],
    /// Where each object's value stands, up to its `endobj`.
    objects: Vec<Range<usize>>,
    /// By object number, the last of that number.
    numbers: HashMap<u64, usize>,
    is_encrypted: bool,
    /// libclamav sees that it is encrypted: it decrypts it, or reports it.
    libclamav_knows: bool,
}

impl<'bytes> Pdf<'bytes> {
    /// Finds the objects as `pdf.c: pdf_findobj` does.
    fn parse(bytes: &'bytes [u8], found: &mut Findings) -> Self {
        let mut pdf = Self {
            bytes,
            objects: Vec::new(),
            numbers: HashMap::new(),
            is_encrypted: has_encryption(bytes),
            libclamav_knows: libclamav_finds_encryption(bytes),
        };
        let (find, find_end) = (memmem::Finder::new(b"obj"), memmem::Finder::new(b"endobj"));
        let mut from = 0;
        while pdf.objects.len() < MOST_OBJECTS {
            let Some(keyword) = bytes.get(from..).and_then(|rest| find.find(rest)).map(|length| from + length) else { break };
            let start = keyword + b"obj".len();
            match object_number(bytes, from, keyword) {
                Some(number) => {
                    let end =
                        bytes.get(start..).and_then(|rest| find_end.find(rest)).map_or(bytes.len(), |length| start + length);
                    pdf.numbers.insert(number, pdf.objects.len());
                    pdf.objects.push(start..end);
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
            let Some(bytes) = bytes.get(..object.end) else { continue };
            let Some(dictionary) = Dictionary::parse(bytes, object.start) else { continue };
            // A cross-reference stream's dictionary doubles as a trailer (ISO 32000-1, 7.5.8).
            pdf.is_encrypted |= dictionary.get(b"Encrypt").is_some() && dictionary.is(bytes, b"Type", b"XRef");
            pdf.libclamav_knows |= dictionary.get(b"Linearized").is_some()
                && linearised_encryption(pdf.bytes, object.start..dictionary.end.max(object.start));
        }
        pdf
    }

    fn inspect_object(&self, object: &Range<usize>, found: &mut Findings) {
        let Some(bytes) = self.bytes.get(..object.end) else { return };
        let Some(dictionary) = Dictionary::parse(bytes, object.start) else {
            let stream = bytes.get(object.start..).and_then(|value| memmem::find(value, b"stream"));
            if matches!(next_token(bytes, object.start), Some((Token::Open, _))) && stream.is_some() {
                report(found, "PDF stream with a damaged dictionary");
            }
            let end = skip_value(bytes, object.start).unwrap_or(object.start);
            return look_for_objects(bytes.get(end..), found);
        };
        let keyword = skip_space(bytes, dictionary.end);
        if !bytes.get(keyword..).is_some_and(|rest| rest.starts_with(b"stream")) {
            return look_for_objects(bytes.get(dictionary.end..), found);
        }
        let start = start_of_data(bytes, keyword + b"stream".len());
        let data = bytes.get(start..).unwrap_or_default();
        let length = memmem::find(data, b"endstream");
        let end = start + length.unwrap_or(data.len());
        look_for_objects(bytes.get(end..), found);
        if memmem::find(bytes.get(object.start..).unwrap_or_default(), b"stream") != keyword.checked_sub(object.start)
            || self.goes_on_behind(&dictionary, start, end, length.is_none())
        {
            report(found, "PDF stream with bounds that libclamav misses");
        }
        let data = bytes.get(start..end).unwrap_or_default();
        if memmem::find_iter(data, b"obj").any(|at| opens_dictionary(data, at + b"obj".len())) {
            report(found, "PDF object inside another");
        }
        self.inspect_stream(object.start..keyword, &dictionary, data, found);
    }

    /// Whether the `/Length` shows that a stream has more data than libclamav takes, which stops at the first `endstream` or
    /// `endobj` (`pdf.c: find_stream_bounds`).
    fn goes_on_behind(&self, dictionary: &Dictionary, start: usize, end: usize, truncated: bool) -> bool {
        let Some(length) = self.length(dictionary) else {
            // It stands in an object stream, or nowhere. A compressed stream has an end of its own, and a picture is only looked at.
            let data = self.bytes.get(start..end).unwrap_or_default();
            return truncated
                || match self.filters(dictionary).unwrap_or_default().first() {
                    Some(&"FlateDecode") => !is_whole(data),
                    first => first != Some(&IMAGE),
                };
        };
        let Some(real_end) = usize::try_from(length).ok().and_then(|length| start.checked_add(length)) else { return false };
        let behind = self.bytes.get(real_end..).unwrap_or_default();
        // Any number of objects can point at the same white space.
        let space = behind.iter().take(SMALL).take_while(|&&byte| is_space(byte)).count();
        if space == SMALL {
            return true;
        }
        let ends_there = behind.get(space..).is_some_and(|rest| rest.starts_with(b"endstream"));
        ends_there && (truncated || real_end > end)
    }

    /// A stream's `/Length`, be it direct or in an object of its own.
    fn length(&self, dictionary: &Dictionary) -> Option<u64> {
        let value = dictionary.get(b"Length")?;
        let number = integer(self.bytes, value.start)?;
        let text = self.bytes.get(value).unwrap_or_default();
        if !text.ends_with(b"R") {
            return Some(number);
        }
        let object = self.objects.get(*self.numbers.get(&number)?)?;
        integer(self.bytes, object.start)
    }

    fn inspect_stream(&self, head: Range<usize>, dictionary: &Dictionary, data: &[u8], found: &mut Findings) {
        let object = self.bytes.get(head.start..).unwrap_or_default();
        let filters = match self.filters(dictionary) {
            Ok(filters) if !dictionary.ambiguous => filters,
            Ok(_) => return report(found, "PDF stream with two filter entries"),
            Err(what) => return report(found, &what),
        };
        // libclamav's own search for the dictionary's end may run past it, into the data.
        let end = head.len().saturating_add(b"stream".len());
        let Some(reading) = object.get(..end).and_then(Reading::of) else {
            return report(found, "PDF stream with a dictionary that libclamav misses");
        };
        let image = is_image(self.bytes, dictionary);
        // Metadata that are not encrypted with the rest: plain text, which is scanned with the whole file.
        let is_metadata = filters == ["Crypt"] && dictionary.is(self.bytes, b"Type", b"Metadata") && data.starts_with(b"<");
        let is_table = dictionary.is(self.bytes, b"Type", b"XRef") && dictionary.get(b"W").is_some();
        if filters.contains(&"Crypt") && filters.len() > 1 {
            report(found, "PDF stream with the filter Crypt");
        } else if reading.strange || !same_filters(&filters, &reading.filters) {
            report(found, "PDF stream with filters that libclamav misses");
        } else if !reading.is_scanned() && filters.first() != Some(&IMAGE) && !image && !is_metadata {
            let what =
                if reading.image { "PDF stream that passes for a picture" } else { "PDF stream with an unscanned filter" };
            report(found, what);
        } else if memmem::find(object.get(..end).unwrap_or_default(), b"/XRef").is_some() != is_table && self.is_encrypted {
            report(found, "PDF stream that libclamav does not decrypt");
        } else if !image && !is_table && self.has_predictor(dictionary) {
            report(found, "PDF stream with a predictor");
        } else if !self.is_encrypted && !image && !is_decodable(&filters, data) {
            report(found, "PDF stream that libclamav cannot decode");
        }
    }

    /// The filters of a stream in the order in which a reader applies them.
    fn filters(&self, dictionary: &Dictionary) -> Result<Vec<&'static str>, String> {
        let mut filters = Vec::new();
        let Some(value) = dictionary.get(b"Filter") else { return Ok(filters) };
        let mut at = value.start;
        while at < value.end {
            let Some((token, end)) = next_token(self.bytes, at) else { break };
            match token {
                Token::Name(_) if filters.len() >= MOST_FILTERS => return Err("PDF stream with too many filters".to_owned()),
                Token::Name(name) => match known_filter(&name) {
                    Some(filter) => filters.push(filter),
                    None => {
                        let name: String = String::from_utf8_lossy(&name).escape_debug().take(LONGEST_NAME).collect();
                        return Err(format!("PDF stream with the filter {name}"));
                    }
                },
                Token::ArrayOpen => {}
                Token::Word(word) if self.bytes.get(word.clone()) == Some(b"null") => {}
                Token::ArrayClose => break,
                _ => return Err("PDF stream with a filter in another object".to_owned()),
            }
            at = end;
        }
        Ok(filters)
    }

    /// Whether the bytes are shuffled before compression (`/Predictor`), which libclamav does not undo (`pdfdecode.c`).
    fn has_predictor(&self, dictionary: &Dictionary) -> bool {
        let Some(mut value) = dictionary.get(b"DecodeParms").or_else(|| dictionary.get(b"DP")) else { return false };
        if let Some(number) = integer(self.bytes, value.start) {
            let Some(object) = self.numbers.get(&number).and_then(|&index| self.objects.get(index)) else { return true };
            value = object.clone();
        }
        let mut at = value.start;
        while at < value.end.min(value.start.saturating_add(SMALL)) {
            let Some((token, end)) = next_token(self.bytes, at) else { break };
            if token == Token::Name(b"Predictor".into()) {
                return integer(self.bytes, end) != Some(1);
            }
            at = end;
        }
        false
    }
}

/// What is left of an object behind its value: another object in there is one that libclamav does not see.
fn look_for_objects(rest: Option<&[u8]>, found: &mut Findings) {
    if rest.is_some_and(|rest| memmem::find_iter(rest, b"obj").any(|at| !goes_on(rest, at + b"obj".len()))) {
        report(found, "PDF object inside another");
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

fn opens_dictionary(bytes: &[u8], at: usize) -> bool {
    let bytes = bytes.get(..at.saturating_add(64).min(bytes.len())).unwrap_or_default();
    bytes.get(skip_space(bytes, at)..).is_some_and(|rest| rest.starts_with(b"<<"))
}

/// Whether a word does not end at `at`: `object` is not `obj`.
fn goes_on(bytes: &[u8], at: usize) -> bool {
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

/// A picture has a width and a height (ISO 32000-1, table 89) and is nobody's attachment.
fn is_image(bytes: &[u8], dictionary: &Dictionary) -> bool {
    dictionary.is(bytes, b"Subtype", b"Image")
        && dictionary.get(b"Width").is_some()
        && dictionary.get(b"Height").is_some()
        && !dictionary.is(bytes, b"Type", b"EmbeddedFile")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unsupported(document: &[u8]) -> Vec<String> {
        let mut found = Findings::default();
        inspect(&[b"%PDF-1.5\n", document].concat(), &mut found);
        assert_eq!((found.encrypted, found.expected), (vec![], vec![]));
        found.unsupported
    }

    fn stream(entries: &str, data: &[u8]) -> Vec<u8> {
        let head = format!("1 0 obj\n<<{entries}/Length {}>>\nstream\n", data.len());
        [head.as_bytes(), data, b"\nendstream\nendobj\n"].concat()
    }

    #[test]
    fn ordinary_streams_are_no_finding() {
        let cases: &[(&str, &[u8])] = &[
            ("", b"1 0 0 1 0 0 cm"),
            ("/Filter/FlateDecode", b"\x78\x9c\x03\0"),
            ("/Filter [/ASCII85Decode /FlateDecode]", b"GhQ\n]~>"),
            ("/Filter/ASCIIHexDecode", b"00 ff>"),
            ("/Type/EmbeddedFile/Filter/RunLengthDecode", b"\x00a\x80"),
            ("/Type/Metadata/Filter[/Crypt]/DecodeParms[<</Name/Identity>>]", b"<xmp/>"),
            ("/Type/XObject/Subtype/Image/Width 1/Height 1/Filter/FlateDecode/DecodeParms<</Predictor 15>>", b"\x78\x9c\x03\0"),
            ("/Type/XObject/Subtype/Image/Width 1/Height 1/Filter/JPXDecode", b"jp2"),
            ("/Type/XRef/W[1 2 1]/Filter/FlateDecode/DecodeParms<</Predictor 12>>", b"\x78\x9c\x03\0"),
        ];
        for (entries, data) in cases {
            assert_eq!(unsupported(&stream(entries, data)), [""; 0], "{entries}");
        }
        assert_eq!(unsupported(b"2 0 obj (an obj\\)ect) endobj\n%% Original object ID: 3 0\n4 0 obj[1 0 R]endobj"), [""; 0]);
    }

    #[test]
    fn streams_that_libclamav_does_not_unpack() {
        let misses = "PDF stream with filters that libclamav misses";
        let fails = "PDF stream that libclamav cannot decode";
        let cases: &[(&str, &[u8], &str)] = &[
            ("/Filter/BrotliDecode", b"x", "PDF stream with the filter BrotliDecode"),
            ("/Filter 5 0 R", b"x", "PDF stream with a filter in another object"),
            ("/Filter[/Crypt/FlateDecode]", b"\x78\x9c\x03\0", "PDF stream with the filter Crypt"),
            ("/Filter/AHx/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream with two filter entries"),
            ("/X(>>)/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/P<</C <00> /S 1>>/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/DecodeParms<</Filter/DCTDecode>>/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/Filter/RunLengthDecode", b"\x00a\x80", "PDF stream with an unscanned filter"),
            ("/Filter[]", b"x", "PDF stream with an unscanned filter"),
            ("/Subtype/Image/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream that passes for a picture"),
            ("/Filter/FlateDecode/DecodeParms<</Predictor 12>>", b"\x78\x9c\x03\0", "PDF stream with a predictor"),
            ("/Filter/ASCIIHexDecode", b"00\n11>", fails),
            ("/Filter/ASCII85Decode", b"GhQ~\n>", fails),
            ("/Filter/FlateDecode", b"raw deflate", fails),
            ("/Filter/FlateDecode", b"\x78\x9c endstream endobj ", "PDF stream with bounds that libclamav misses"),
            ("/N(a stream)/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream with bounds that libclamav misses"),
        ];
        for (entries, data, what) in cases {
            assert_eq!(unsupported(&stream(entries, data)).first().map(String::as_str), Some(*what), "{entries} {data:?}");
        }
    }

    #[test]
    fn objects_that_libclamav_does_not_find() {
        for (document, what) in [
            ("1 0obj<<>>endobj", "PDF object with an unusual header"),
            ("1 0%\nobj<<>>endobj", "PDF object with an unusual header"),
            ("1 0 obj<</A 1>> 2 0 obj<</B 2>>endobj", "PDF object inside another"),
            ("1 0 obj<</Length 12>>stream\n2 0 obj<<>> \nendstream endobj", "PDF object inside another"),
        ] {
            assert_eq!(unsupported(document.as_bytes()), [what], "{document}");
        }
    }
}
