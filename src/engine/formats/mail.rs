//! Mail: attachments that libclamav does not unpack, and encrypted parts.
//!
//! libclamav drops parts without a word: all of a `multipart/signed` or `multipart/parallel` but one, text with an odd
//! `Content-Disposition` (`mbox.c: parseEmailBody`, `do_multipart`). So the size of each attachment in base64 is expected among
//! the layers that were scanned. Text is not: libclamav joins texts before it scans them. Quoted-printable attachments are
//! not counted either. Too many headers, parts or levels are reported by libclamav itself.

mod part;

use memchr::{memchr, memmem};

use self::part::{Base64, Header, field_name, is_base64, starts_with_space};
use super::Findings;
use super::deadline::Deadline;

/// libclamav scans no layer up to this size (`scanners.c: scan_common`).
const NOT_SCANNED: u64 = 5;

/// More attachments than this are a finding of their own.
const MOST_ATTACHMENTS: usize = 100_000;

/// How deep multiparts nest; libclamav gives up, and says so, long before.
const DEEPEST: usize = 64;

/// How much of a text is searched for the header of a mail.
const LONGEST_HEADER: usize = 64 * 1024;

/// Looks at a mail, or at a mailbox in the format mbox.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let mut reader = Reader { found, multiparts: Vec::new(), state: State::Header(Header::default()), armor: Armor::None };
    let is_mailbox = bytes.starts_with(b"From ");
    let mut after_blank = true;
    let line_end = if memchr(b'\n', bytes).is_some() { b'\n' } else { b'\r' };
    for line in bytes.split(|&byte| byte == line_end) {
        if deadline.spend(line.len() + 1).is_err() {
            return;
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if is_mailbox && after_blank && line.starts_with(b"From ") {
            reader.end_part();
            reader.multiparts.clear();
            reader.state = State::Header(Header::default());
        } else {
            reader.line(line);
        }
        after_blank = line.is_empty();
    }
    reader.end_part();
}

/// Looks at a text that libclamav does not take for a mail: a mail program may, if its name ends in `.eml`.
pub(super) fn inspect_text(bytes: &[u8], found: &mut Findings) {
    let mut header = Header::default();
    let start = bytes.get(..LONGEST_HEADER.min(bytes.len())).unwrap_or_default();
    for line in start.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)) {
        if line.is_empty() {
            break;
        }
        if !starts_with_space(line) && field_name(line).is_none() {
            return;
        }
        header.add(line);
    }
    if header.encoding().starts_with("base64")
        || header.encoding().starts_with("quoted")
        || header.kind().starts_with("multipart/")
    {
        report(found, "mail without the usual headers");
    }
}

fn report(found: &mut Findings, what: &str) {
    add(&mut found.unsupported, what);
}

fn add(list: &mut Vec<String>, what: &str) {
    if !list.iter().any(|known| known == what) {
        list.push(what.to_owned());
    }
}

enum State {
    Header(Header),
    /// What nobody shows: before the first boundary and behind the last.
    Between,
    Text,
    Attachment(Base64),
}

/// How far a line has come in a block of text that is more than text.
#[derive(PartialEq)]
enum Armor {
    None,
    /// Behind `-----BEGIN PGP MESSAGE-----`.
    PgpHeader,
    PgpBody,
    /// Behind `=ybegin`.
    Yenc,
    /// Behind `begin-base64`.
    UuBase64,
}

struct Multipart {
    /// `--` and the boundary.
    delimiter: Vec<u8>,
    is_signed: bool,
    parts: u64,
}

struct Reader<'found> {
    found: &'found mut Findings,
    /// The multiparts that are open, the innermost last.
    multiparts: Vec<Multipart>,
    state: State,
    armor: Armor,
}

impl Reader<'_> {
    fn line(&mut self, line: &[u8]) {
        if line.starts_with(b"--") && self.boundary(line.trim_ascii_end()) {
            return;
        }
        match &mut self.state {
            State::Header(header) if line.is_empty() => {
                let header = std::mem::take(header);
                self.begin_part(&header);
            }
            State::Header(header) => header.add(line),
            State::Attachment(base64) => base64.line(line),
            State::Text => self.text(line),
            State::Between => {}
        }
    }

    /// Ends and begins a part if the line is one of the boundaries.
    fn boundary(&mut self, line: &[u8]) -> bool {
        let is_end = |delimiter: &[u8]| line.strip_suffix(b"--") == Some(delimiter);
        let is_delimiter = |open: &Multipart| line == open.delimiter || is_end(&open.delimiter);
        let Some(index) = self.multiparts.iter().rposition(is_delimiter) else { return false };
        let ends = self.multiparts.get(index).is_some_and(|open| line != open.delimiter);
        self.end_part();
        self.multiparts.truncate(if ends { index } else { index + 1 });
        if let Some(open) = self.multiparts.last_mut() {
            open.parts += 1;
        }
        self.state = if ends { State::Between } else { State::Header(Header::default()) };
        true
    }

    fn begin_part(&mut self, header: &Header) {
        let (kind, encoding) = (header.kind(), header.encoding());
        let parameters = header.content_type.to_ascii_lowercase();
        if kind == "multipart/encrypted" || kind.ends_with("pkcs7-mime") && parameters.contains("enveloped-data") {
            add(&mut self.found.encrypted, "mail");
        }
        if kind.ends_with("pkcs7-mime") && parameters.contains("compressed-data") {
            report(self.found, "compressed S/MIME mail");
        }
        if kind == "message/partial" {
            report(self.found, "part of a mail");
        }
        // message.c: messageSetEncoding takes the name and its decoder then finds nothing.
        if encoding.contains("binhex") || encoding.contains("yenc") {
            report(self.found, "mail in BinHex or yEnc");
        }
        // mbox.c: do_multipart drops texts that are neither.
        if kind.starts_with("text/") && !matches!(header.disposition().as_str(), "" | "inline" | "attachment") {
            report(self.found, "mail with an odd disposition");
        }
        let is_signature = kind.starts_with("application/") && kind.ends_with("-signature");
        if self.multiparts.last().is_some_and(|open| open.is_signed && open.parts > 1) && !is_signature {
            report(self.found, "signed mail with further parts");
        }
        if matches!(
            kind.as_str(),
            "multipart/parallel" | "multipart/plain" | "multipart/html" | "multipart/enriched" | "multipart/richtext"
        ) {
            report(self.found, &format!("{kind} mail"));
        }
        self.state = if kind.starts_with("multipart/") {
            match header.boundary() {
                Some(delimiter) if self.multiparts.len() < DEEPEST => {
                    self.multiparts.push(Multipart { delimiter, is_signed: kind == "multipart/signed", parts: 0 });
                }
                Some(_) => report(self.found, "mail that nests too deep"),
                None => report(self.found, "multipart mail without a boundary"),
            }
            State::Between
        } else if encoding.contains("base64") && !matches!(kind.as_str(), "" | "text/plain" | "text/html") {
            State::Attachment(Base64::new(is_signature))
        } else if matches!(kind.as_str(), "message/rfc822" | "message/global") {
            State::Header(Header::default())
        } else {
            State::Text
        };
    }

    fn end_part(&mut self) {
        self.armor = Armor::None;
        let State::Attachment(base64) = std::mem::replace(&mut self.state, State::Between) else { return };
        if base64.goes_on {
            report(self.found, "mail with base64 behind its end");
        }
        if self.found.expected.len() >= MOST_ATTACHMENTS {
            report(self.found, "mail with too many attachments");
        } else if base64.size() > NOT_SCANNED && !base64.is_der_signature {
            self.found.expected.push(base64.size());
        }
    }

    /// Looks for blocks that mail programs unpack, or that only a key can open. What is quoted does not start a line.
    fn text(&mut self, line: &[u8]) {
        self.armor = match self.armor {
            _ if line.trim_ascii_end() == b"-----BEGIN PGP MESSAGE-----" => Armor::PgpHeader,
            _ if line.starts_with(b"=ybegin ") && contains(line, b"line=") && contains(line, b"size=") => Armor::Yenc,
            _ if line.starts_with(b"begin-base64 ") => Armor::UuBase64,
            Armor::PgpHeader if line.trim_ascii().is_empty() => Armor::PgpBody,
            Armor::PgpBody => {
                if is_base64(line.trim_ascii_end()) {
                    add(&mut self.found.encrypted, "PGP message");
                }
                Armor::None
            }
            Armor::Yenc if line.starts_with(b"=yend") => {
                report(self.found, "mail in BinHex or yEnc");
                Armor::None
            }
            Armor::UuBase64 if line.starts_with(b"====") => {
                report(self.found, "uuencoded base64");
                Armor::None
            }
            _ => return,
        };
    }
}

fn contains(line: &[u8], part: &[u8]) -> bool {
    memmem::find(line, part).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(mail: &str) -> Findings {
        let mut found = Findings::default();
        inspect(mail.replace('\n', "\r\n").as_bytes(), &Deadline::far(), &mut found);
        found
    }

    const ATTACHMENT: &str = "Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\nQUJDREVGR0hJ\nSg==\n";

    #[test]
    fn attachments_are_expected() {
        let one = format!("From: a\nContent-Type: multipart/mixed; boundary=\"b\"\n\n--b\n\ntext\n--b\n{ATTACHMENT}--b--\n");
        assert_eq!(look(&one), Findings { expected: vec![10], ..Findings::default() });
        let nested = format!(
            "From: a\nContent-Type: multipart/mixed;\n boundary=o\n\n--o\nContent-Type: message/rfc822\n\n{one}\n--o--"
        );
        assert_eq!(look(&nested).expected, [10]);
        let mailbox = format!("From a\n{one}\n\nFrom b\n{one}");
        assert_eq!(look(&mailbox).expected, [10, 10]);
    }

    #[test]
    fn what_cannot_be_scanned_is_a_finding() {
        for (mail, encrypted, unsupported) in [
            ("A: b\n\n-----BEGIN PGP MESSAGE-----\nVersion: 1\n\nhQEMA\n-----END PGP MESSAGE-----\n", "PGP message", ""),
            ("Content-Type: multipart/encrypted; boundary=b\n\n--b--", "mail", ""),
            ("Content-Type: application/x-pkcs7-mime; smime-type=enveloped-data\n\n", "mail", ""),
            ("A: b\n\n=ybegin line=128 size=9 name=a\nxyz\n=yend size=9\n", "", "mail in BinHex or yEnc"),
            ("A: b\nContent-Transfer-Encoding: binhex\n\nx", "", "mail in BinHex or yEnc"),
            ("Content-Type: message/partial; number=1\n\nx", "", "part of a mail"),
            ("Content-Type: multipart/parallel; boundary=b\n\n", "", "multipart/parallel mail"),
            ("Content-Type: multipart/mixed\n\n", "", "multipart mail without a boundary"),
            ("Content-Type: multipart/signed; boundary=b\n\n--b\n\nx\n--b\n\ny\n", "", "signed mail with further parts"),
            ("A: b\n\nbegin-base64 644 a\nQUJD\n====\n", "", "uuencoded base64"),
            ("Content-Type: text/html\nContent-Disposition: x\n\n", "", "mail with an odd disposition"),
        ] {
            let found = look(mail);
            assert_eq!(
                (found.encrypted.concat().as_str(), found.unsupported.concat().as_str()),
                (encrypted, unsupported),
                "{mail}"
            );
        }
    }

    #[test]
    fn ordinary_mail_is_no_finding() {
        let signature = "Content-Type: application/pkcs7-signature\nContent-Transfer-Encoding: base64\n\nMIIGzgYJKoZI\n";
        for mail in [
            "A: b\n\n> -----BEGIN PGP MESSAGE-----\n>\n> hQEMA\n> =ybegin line=128 size=9\n> =yend\n".to_owned(),
            "A: b\n\n-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\nhello\n-----BEGIN PGP SIGNATURE-----\n\niQ\n"
                .to_owned(),
            "A: b\n\nWrite -----BEGIN PGP MESSAGE-----\n-----BEGIN PGP MESSAGE-----\n\nthen the text\n".to_owned(),
            format!("Content-Type: multipart/signed; boundary=b\n\n--b\n\nhello\n--b\n{signature}--b--"),
        ] {
            assert_eq!(look(&mail), Findings::default(), "{mail}");
        }
    }

    #[test]
    fn a_text_may_be_a_mail_to_others() {
        for (text, is_mail) in [
            ("Foo: bar\nContent-Transfer-Encoding: base64\n\nQUJD", true),
            ("Foo: bar\n\nContent-Transfer-Encoding: base64", false),
            ("a text\nContent-Transfer-Encoding: base64\n", false),
        ] {
            let mut found = Findings::default();
            inspect_text(text.as_bytes(), &mut found);
            assert_eq!(!found.unsupported.is_empty(), is_mail, "{text}");
        }
    }
}
