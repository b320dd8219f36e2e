//! What the header of a mail, or of a part of one, says about its body (RFC 2045), and how long that is.

use memchr::memchr;

/// How much of one header field is kept.
const LONGEST_FIELD: usize = 16 * 1024;

/// The header fields of a mail, or of a part, that say what its body is.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) content_type: String,
    transfer_encoding: String,
    disposition: String,
    /// The field that a folded line continues.
    open: Field,
}

#[derive(Debug, Default, Clone, Copy)]
enum Field {
    #[default]
    Other,
    Type,
    Encoding,
    Disposition,
}

impl Header {
    pub(super) fn add(&mut self, line: &[u8]) {
        let mut value = line;
        if !starts_with_space(line) {
            let name = field_name(line).unwrap_or_default();
            self.open = if name.eq_ignore_ascii_case(b"Content-Type") && self.content_type.is_empty() {
                Field::Type
            } else if name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") {
                Field::Encoding
            } else if name.eq_ignore_ascii_case(b"Content-Disposition") {
                Field::Disposition
            } else {
                Field::Other
            };
            value = memchr(b':', line).and_then(|colon| line.get(colon + 1..)).unwrap_or_default();
        }
        let field = match self.open {
            Field::Type => &mut self.content_type,
            Field::Encoding => &mut self.transfer_encoding,
            Field::Disposition => &mut self.disposition,
            Field::Other => return,
        };
        let room = LONGEST_FIELD.saturating_sub(field.len()).min(value.len());
        field.push_str(&String::from_utf8_lossy(value.get(..room).unwrap_or_default()));
        field.push(' ');
    }

    /// `text/plain`, lower-case.
    pub(super) fn kind(&self) -> String {
        first_word(&self.content_type)
    }

    pub(super) fn encoding(&self) -> String {
        self.transfer_encoding.trim_matches([' ', '\t', '"']).to_ascii_lowercase()
    }

    pub(super) fn disposition(&self) -> String {
        first_word(&self.disposition)
    }

    /// The boundary of a multipart (RFC 2046, 5.1.1).
    pub(super) fn boundary(&self) -> Option<Vec<u8>> {
        // ASCII only changes case: the positions are the same.
        let at = self.content_type.to_ascii_lowercase().find("boundary")?;
        let value = self.content_type.get(at + "boundary".len()..)?.trim_start().strip_prefix('=')?.trim_start();
        let boundary = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?.replace('\\', ""),
            None => value.split([';', ' ', '\t']).next()?.to_owned(),
        };
        let boundary = boundary.trim_end();
        (!boundary.is_empty()).then(|| [b"--", boundary.as_bytes()].concat())
    }
}

/// What stands before the parameters of a field, lower-case.
fn first_word(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

pub(super) fn starts_with_space(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// A header field's name (RFC 5322, 3.6.8).
pub(super) fn field_name(line: &[u8]) -> Option<&[u8]> {
    let name = line.get(..memchr(b':', line)?)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(name)
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

pub(super) fn is_base64(line: &[u8]) -> bool {
    !line.is_empty() && line.iter().all(|&byte| is_digit(byte) || byte == b'=')
}

/// The length of what libclamav makes of base64 (RFC 2045, 6.8): other characters do not count, and `=` ends it.
#[derive(Default)]
pub(super) struct Base64 {
    digits: u64,
    /// The last of them.
    last: u8,
    ended: bool,
    /// Behind the end there is a line that looks like more of it, which some programs decode as well.
    pub(super) goes_on: bool,
    is_signature: bool,
    /// It says to be a signature and starts like one: libclamav does not unpack those of a `multipart/signed`.
    pub(super) is_der_signature: bool,
}

impl Base64 {
    pub(super) fn new(is_signature: bool) -> Self {
        Self { is_signature, ..Self::default() }
    }

    pub(super) fn line(&mut self, line: &[u8]) {
        if self.ended {
            self.goes_on |= line.len() >= 60 && is_base64(line);
            return;
        }
        self.is_der_signature |= self.is_signature && self.digits == 0 && line.starts_with(b"MI");
        let end = memchr(b'=', line);
        self.ended = end.is_some();
        let digits = || line.iter().take(end.unwrap_or(line.len())).copied().filter(|&byte| is_digit(byte));
        self.last = digits().next_back().unwrap_or(self.last);
        let digits = digits().count();
        self.digits = self.digits.saturating_add(u64::try_from(digits).unwrap_or(u64::MAX));
    }

    pub(super) fn size(&self) -> u64 {
        let value = match self.last {
            letter @ b'A'..=b'Z' => letter - b'A',
            letter @ b'a'..=b'z' => letter - b'a' + 26,
            digit @ b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            _ => 63,
        };
        // Bits that are left over and not zero make another byte (message.c: decode). An encoder leaves none; a text that is no base64 does,
        // such as a placeholder in a web page's `data:` URL.
        let left_over = match self.digits % 4 {
            0 => false,
            1 => true,
            2 => value & 0x0f != 0,
            _ => value & 0x03 != 0,
        };
        self.digits / 4 * 3 + self.digits % 4 * 3 / 4 + u64::from(left_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_mail_programs_do() {
        let mut header = Header::default();
        for line in
            ["X: y", "content-type: Multipart/MIXED;", "\tBoundary = \"a b\" ; x=y", "Content-Transfer-Encoding :", " BASE64"]
        {
            header.add(line.as_bytes());
        }
        assert_eq!((header.kind().as_str(), header.encoding().as_str()), ("multipart/mixed", "base64"));
        assert_eq!(header.boundary(), Some(b"--a b".to_vec()));
    }

    #[test]
    fn base64_has_a_size() {
        for (lines, size, goes_on) in [
            (vec!["QUJD", "RA=="], 4, false),
            (vec!["QU!JD"], 3, false),
            (vec!["QUI"], 2, false),
            (vec!["QUJ"], 3, false),
            (vec!["QU"], 2, false),
            (vec!["QUJDQ"], 4, false),
            (vec!["${image.data}"], 7, false),
            (vec!["QQ==", "____", "a footer"], 1, false),
            (vec!["QQ==", "QUJDREVGQUJDREVGQUJDREVGQUJDREVGQUJDREVGQUJDREVGQUJDREVGQUJDREVG"], 1, true),
        ] {
            let mut base64 = Base64::default();
            lines.iter().for_each(|line| base64.line(line.as_bytes()));
            assert_eq!((base64.size(), base64.goes_on), (size, goes_on), "{lines:?}");
        }
    }
}
