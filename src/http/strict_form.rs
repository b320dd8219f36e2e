//! What a form must look like, before it is taken apart.
//!
//! Parsers of forms differ in what they forgive: text before the first boundary, line breaks without CR, headers twice. An
//! application that takes the same form apart would then see other parts than those that were scanned. Here nothing is
//! forgiven.

use super::error::ApiError;

/// The longest headers of a part.
const HEADER_BYTES: usize = 8 * 1024;

/// Looks at a form as it arrives. It keeps the headers of one part, and nothing of the content.
pub(super) struct StrictForm {
    /// Finds `--boundary`, wherever it is.
    delimiter: Finder,
    /// Finds it at the beginning of a line, where alone it may be.
    line: Finder,
    place: Place,
}

/// Where in the form the next byte is.
enum Place {
    /// At the beginning: so many bytes of the first delimiter are there.
    Start(usize),
    /// Behind a delimiter, with the byte that followed it.
    Delimiter(Option<u8>),
    /// In the headers of a part, which are kept.
    Headers(Vec<u8>),
    /// In the content of a part.
    Content,
    /// Behind the last delimiter.
    End,
}

impl StrictForm {
    pub(super) fn new(boundary: &str) -> Self {
        Self {
            delimiter: Finder::new(format!("--{boundary}").into_bytes()),
            line: Finder::new(format!("\r\n--{boundary}").into_bytes()),
            place: Place::Start(0),
        }
    }

    /// Looks at the next piece.
    ///
    /// # Errors
    ///
    /// When another parser could take the form apart in another way, or a part is packed.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        let mut rest = piece;
        while let Some((&byte, behind)) = rest.split_first() {
            let nothing_begun = self.line.matched == 0 && self.delimiter.matched == 0;
            if matches!(self.place, Place::Content) && nothing_begun && !matches!(byte, b'\r' | b'-') {
                let next = rest.iter().position(|byte| matches!(byte, b'\r' | b'-')).unwrap_or(rest.len());
                rest = rest.get(next..).unwrap_or_default();
                continue;
            }
            self.take(byte)?;
            rest = behind;
        }
        Ok(())
    }

    /// Nothing more will come.
    ///
    /// # Errors
    ///
    /// When the last delimiter is missing.
    pub(super) fn end(&self) -> Result<(), ApiError> {
        if matches!(self.place, Place::End) { Ok(()) } else { Err(refused("it has no end")) }
    }

    fn take(&mut self, byte: u8) -> Result<(), ApiError> {
        match &mut self.place {
            Place::Start(seen) => {
                if self.delimiter.pattern.get(*seen) != Some(&byte) {
                    return Err(refused("it must begin with its boundary"));
                }
                *seen += 1;
                if *seen == self.delimiter.pattern.len() {
                    self.place = Place::Delimiter(None);
                }
            }
            Place::Delimiter(first) => match (*first, byte) {
                (None, b'\r' | b'-') => *first = Some(byte),
                (Some(b'\r'), b'\n') => {
                    self.delimiter.matched = 0;
                    self.place = Place::Headers(Vec::new());
                }
                (Some(b'-'), b'-') => self.place = Place::End,
                _ => return Err(refused("behind a boundary must be a line break or two dashes")),
            },
            Place::Headers(block) => {
                if self.delimiter.is_complete_with(byte) {
                    return Err(refused("a boundary is in the headers of a part"));
                }
                block.push(byte);
                if block.len() > HEADER_BYTES {
                    return Err(refused(format!("the headers of a part have more than {HEADER_BYTES} bytes")));
                }
                if block == b"\r\n" {
                    return Err(refused("a part has no headers"));
                }
                if block.ends_with(b"\r\n\r\n") {
                    check_headers(block)?;
                    // The line break before a boundary is one of its own, not the end of the headers.
                    self.delimiter.matched = 0;
                    self.line.matched = 0;
                    self.place = Place::Content;
                }
            }
            Place::Content => {
                let begins_a_line = self.line.is_complete_with(byte);
                if self.delimiter.is_complete_with(byte) {
                    if !begins_a_line {
                        return Err(refused("its boundary is in the content of a part: take another"));
                    }
                    self.place = Place::Delimiter(None);
                }
            }
            Place::End if matches!(byte, b'\r' | b'\n' | b' ' | b'\t') => {}
            Place::End => return Err(refused("something is behind its end")),
        }
        Ok(())
    }
}

fn check_headers(block: &[u8]) -> Result<(), ApiError> {
    let text = str::from_utf8(block).map_err(|_| refused("the headers of a part are not UTF-8"))?;
    let mut names: Vec<String> = Vec::new();
    for line in text.trim_end_matches("\r\n").split("\r\n") {
        if line.starts_with([' ', '\t']) {
            return Err(refused("a header of a part goes over several lines"));
        }
        if line.contains(|letter: char| letter.is_ascii_control() && letter != '\t') {
            return Err(refused("a header of a part has control characters"));
        }
        let Some((name, value)) = line.split_once(':') else { return Err(refused("a header of a part has no colon")) };
        if !is_token(name) {
            return Err(refused("a header of a part has no proper name"));
        }
        let (name, value) = (name.to_ascii_lowercase(), value.trim().to_ascii_lowercase());
        match name.as_str() {
            "content-encoding" if value != "identity" => {
                return Err(ApiError::unsupported("Content-Encoding is not taken: send the content as it is"));
            }
            "content-transfer-encoding" if !matches!(value.as_str(), "7bit" | "8bit" | "binary") => {
                return Err(ApiError::unsupported("Content-Transfer-Encoding is not taken: send the content as it is"));
            }
            "content-type" if value.starts_with("multipart/") => {
                return Err(refused("a part is a multipart itself: send its parts one by one"));
            }
            _ => {}
        }
        if names.contains(&name) {
            return Err(refused("a part has a header twice"));
        }
        names.push(name);
    }
    Ok(())
}

/// Whether it is a `token` of RFC 9110, section 5.6.2.
pub(super) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn refused(why: impl std::fmt::Display) -> ApiError {
    ApiError::malformed(format!("the form is broken: {why}"))
}

/// Finds a pattern in a stream, one byte after the other (Knuth, Morris and Pratt).
struct Finder {
    pattern: Vec<u8>,
    /// How much of the pattern is still there when it goes on otherwise behind so many bytes (less one).
    fall_back: Vec<usize>,
    /// How much of the pattern the last bytes are.
    matched: usize,
}

impl Finder {
    fn new(pattern: Vec<u8>) -> Self {
        let mut finder = Self { fall_back: vec![0; pattern.len()], pattern, matched: 0 };
        for end in 1..finder.pattern.len() {
            finder.is_complete_with(finder.pattern[end]);
            finder.fall_back[end] = finder.matched;
        }
        finder.matched = 0;
        finder
    }

    /// Whether this byte completes the pattern.
    fn is_complete_with(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.pattern.get(self.matched) != Some(&byte) {
            self.matched = self.fall_back.get(self.matched - 1).copied().unwrap_or(0);
        }
        if self.pattern.get(self.matched) == Some(&byte) {
            self.matched += 1;
        }
        self.matched == self.pattern.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(boundary: &str, pieces: &[&[u8]]) -> u16 {
        let mut form = StrictForm::new(boundary);
        let outcome = pieces.iter().try_for_each(|piece| form.push(piece)).and_then(|()| form.end());
        outcome.map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    /// The same whole, in two pieces cut anywhere, and byte by byte.
    fn check(boundary: &str, form: &str, expected: u16) {
        let form = form.as_bytes();
        assert_eq!(status(boundary, &[form]), expected, "{}", form.escape_ascii());
        for cut in 0..=form.len() {
            let (left, right) = form.split_at(cut);
            assert_eq!(status(boundary, &[left, right]), expected, "{} | {}", left.escape_ascii(), right.escape_ascii());
        }
        let bytes: Vec<&[u8]> = form.chunks(1).collect();
        assert_eq!(status(boundary, &bytes), expected, "{}", form.escape_ascii());
    }

    #[test]
    fn only_what_all_parsers_read_alike_is_a_form() {
        for (form, expected) in [
            ("--b\r\nA: 1\r\n\r\nx\r\n--b--\r\n", 200),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b--", 200),
            ("--b\r\nA: 1\r\n\r\n\r\n--b--\r\n \t\r\n", 200),
            ("--b\r\nA: 1\r\nB: 2\r\n\r\n\r\n\r\n-\r-\n--\r\r\n--b\r\nA: 3\r\n\r\ny--\r\n--b--", 200),
            ("--b--\r\n", 200),
            ("", 400),
            ("preamble\r\n--b\r\nA: 1\r\n\r\nx\r\n--b--", 400),
            ("\r\n--b\r\nA: 1\r\n\r\nx\r\n--b--", 400),
            ("--b", 400),
            ("--b\r\nA: 1\r\n\r\nx", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b-", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b\r\n", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b--x", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b--\r\n--b\r\nA: 1\r\n\r\ny\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx--b\r\nA: 1\r\n\r\ny\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx\n--b\r\nA: 1\r\n\r\ny\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx\r--b\r\nA: 1\r\n\r\ny\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n---b\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--bc\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\nx\r\n--b \r\nA: 1\r\n\r\ny\r\n--b--", 400),
            ("--b\nA: 1\r\n\r\nx\r\n--b--", 400),
            ("--b\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA: 1\r\n\r\n--b--", 400),
            ("--b\r\nA: --b\r\n\r\nx\r\n--b--", 400),
            ("--b\r\n--b\r\nA: 1\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA: 1\n\nx\r\n--b--", 400),
            ("--b\r\nA: 1\nB: 2\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA: 1\rB: 2\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA: 1\r\n 2\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA: 1\r\na: 2\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nA : 1\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nContent-Type: Multipart/mixed; boundary=c\r\n\r\nx\r\n--b--", 400),
            ("--b\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: Binary\r\n\r\nx\r\n--b--", 200),
            ("--b\r\nContent-Encoding: identity\r\n\r\nx\r\n--b--", 200),
            ("--b\r\nContent-Encoding: gzip\r\n\r\nx\r\n--b--", 415),
            ("--b\r\ncontent-transfer-encoding: base64\r\n\r\nx\r\n--b--", 415),
        ] {
            check("b", form, expected);
        }
    }

    /// Boundaries whose beginning comes again in them, as browsers have them.
    #[test]
    fn a_boundary_is_found_behind_its_own_beginning() {
        check("--x--x1", "----x--x1\r\nA: 1\r\n\r\n----x----x--x\r\n----x--x1--", 200);
        check("--x--x1", "----x--x1\r\nA: 1\r\n\r\n----x----x--x1\r\n----x--x1--", 400);
        check("--x--x1", "----x--x1\r\nA: 1\r\n\r\ny\r\n-----x--x1--", 400);
        check("--x--x1", "----x--x1\r\nA: 1\r\n\r\ny\r\n\r\n----x--x1--", 200);
    }

    #[test]
    fn headers_are_bounded() {
        let form = |length: usize| format!("--b\r\nA: {}\r\n\r\nx\r\n--b--", "y".repeat(length));
        assert_eq!(status("b", &[form(HEADER_BYTES - 7).as_bytes()]), 200);
        assert_eq!(status("b", &[form(HEADER_BYTES - 6).as_bytes()]), 400);
    }
}
