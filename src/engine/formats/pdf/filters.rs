//! The filters of a PDF's stream, and which data libclamav's decoders take (`pdfdecode.c`). Where one of them fails, the rest is not
//! decoded.

use memchr::{memchr2, memmem};

use super::dictionary::{Dictionary, IMAGE, MOST_FILTERS, Token, is_space, known_filter, next_token};
use super::document::Pdf;

/// How much of a filter's name is reported.
const LONGEST_NAME: usize = 40;

impl Pdf<'_> {
    /// The filters of a stream in the order in which a reader applies them.
    pub(super) fn filters(&self, dictionary: &Dictionary) -> Result<Vec<&'static str>, String> {
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
}

/// Whether libclamav decodes all that a reader does. A picture's filter ends it for both.
pub(super) fn same_filters(filters: &[&str], read: &[&str]) -> bool {
    let length = |list: &[&str]| list.iter().position(|&filter| filter == IMAGE).unwrap_or(list.len());
    filters.get(..length(filters)) == read.get(..length(read))
}

/// Whether libclamav's decoder of the first filter takes the data (`pdfdecode.c`); it is pickier than readers are. Without the data,
/// and behind another filter, those that may not are taken for such as do not.
pub(super) fn is_decodable(filters: &[&str], data: Option<&[u8]>) -> bool {
    let is_picky = |filter: &&str| matches!(*filter, "ASCIIHexDecode" | "ASCII85Decode" | "RunLengthDecode");
    let unseen = filters.get(usize::from(data.is_some())..).unwrap_or_default();
    if unseen.iter().any(is_picky) {
        return false;
    }
    let Some(data) = data else { return true };
    match filters.first() {
        _ if data.iter().all(|&byte| is_space(byte)) => true,
        Some(&"ASCIIHexDecode") => is_hexadecimal(data),
        Some(&"ASCII85Decode") => is_ascii85(data),
        Some(&"RunLengthDecode") => is_run_length(data),
        Some(&"FlateDecode") => is_zlib(data),
        _ => true,
    }
}

/// `filter_asciihexdecode` knows spaces between the pairs of digits, but no line breaks.
fn is_hexadecimal(data: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&[first, second]) = data.get(at..at + 2) {
        match first {
            b'>' => break,
            b' ' => at += 1,
            _ if first.is_ascii_hexdigit() && second.is_ascii_hexdigit() => at += 2,
            _ => return data.len() - at < 4,
        }
    }
    true
}

/// `filter_ascii85decode` wants `~>` in one piece.
fn is_ascii85(data: &[u8]) -> bool {
    let data = data.get(..memmem::find(data, b"~>").unwrap_or(data.len())).unwrap_or_default();
    let mut group = 0;
    for byte in data {
        match byte {
            b'!'..=b'u' => group = (group + 1) % 5,
            b'z' if group == 0 => {}
            b' ' | b'\t'..=b'\r' => {}
            _ => return false,
        }
    }
    group != 1
}

/// `filter_rldecode` gives all up if the last run is cut short.
fn is_run_length(data: &[u8]) -> bool {
    let mut at = 0;
    while let Some(&length) = data.get(at) {
        at += match length {
            128 => return true,
            0..=127 => usize::from(length) + 2,
            129..=255 => 2,
        };
    }
    // A line break that belongs to `endstream` does no harm.
    at == data.len()
}

/// zlib's header (RFC 1950, 2.2), which `filter_flatedecode` looks for at the start and then at the next line's.
fn is_zlib(data: &[u8]) -> bool {
    let has_header = |data: &[u8]| match data {
        [method, flags, ..] => {
            method & 15 == 8
                && method >> 4 <= 7
                && flags & 0x20 == 0
                && (u32::from(*method) * 256 + u32::from(*flags)) % 31 == 0
        }
        _ => false,
    };
    let first = data.strip_prefix(b"\r").unwrap_or(data);
    let line = memchr2(b'\r', b'\n', first).and_then(|end| first.get(end..)).unwrap_or_default();
    let breaks = line.iter().take_while(|&&byte| matches!(byte, b'\r' | b'\n')).count();
    has_header(first) || line.get(breaks..).is_some_and(has_header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decoders_are_as_picky_as_libclamavs() {
        let cases: &[(&[&str], &[u8], bool)] = &[
            (&["FlateDecode"], b"\x78\x9c\x03\0", true),
            (&["FlateDecode"], b"\r\x78\x9c\x03\0", true),
            (&["FlateDecode"], b" \r\n\x78\x9c\x03\0", true),
            (&["FlateDecode"], b"\n", true),
            (&["FlateDecode"], b"\x03\0", false),
            (&["ASCIIHexDecode"], b"0a 0B>\n", true),
            (&["ASCIIHexDecode"], b"0a\n0b>", false),
            (&["ASCIIHexDecode"], b"0 a 0 b>", false),
            (&["ASCII85Decode", "FlateDecode"], b"Gh Q\nz~>", false),
            (&["ASCII85Decode", "FlateDecode"], b"Gh Q\nHHz~>", true),
            (&["ASCII85Decode"], b"GhQHH~ >", false),
            (&["RunLengthDecode"], b"\x01ab\xff0\x80\n", true),
            (&["RunLengthDecode"], b"\x01ab\xff0\n", false),
            (&["FlateDecode", "ASCIIHexDecode"], b"\x78\x9c\x03\0", false),
            (&["FlateDecode", "RunLengthDecode"], b"\x78\x9c\x03\0", false),
            (&["ASCII85Decode", "ASCIIHexDecode"], b"Gh Q\nHHz~>", false),
            (&[], b"any", true),
        ];
        for (filters, data, expected) in cases {
            assert_eq!(is_decodable(filters, Some(data)), *expected, "{filters:?} {data:?}");
        }
    }
}
