//! Files that only a key can open, which libclamav takes for any data or text: PGP, S/MIME, age and the like.

use memchr::memmem;

use super::Findings;

/// Formats that show in their first bytes.
const STARTS: [(&[u8], &str); 8] = [
    (b"AES\x01\0", "AES Crypt"),
    (b"AES\x02\0", "AES Crypt"),
    (b"age-encryption.org/v1\n", "age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "age"),
    (b"Salted__", "OpenSSL"),
    (b"LUKS\xba\xbe", "LUKS"),
    (b"$ANSIBLE_VAULT;", "Ansible Vault"),
    (b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5", "KeePass"),
];

/// The content types of RFC 5652 and RFC 5083, encoded as object identifiers, and what they are.
const ENVELOPED: [&[u8]; 3] = [
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x03",
    b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x06",
    b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x17",
];

/// The end of the first of these and the tag behind it in base64 (RFC 7468), wherever they stand in a group of four digits.
const ENVELOPED_BASE64: [&[u8]; 3] = [b"KoZIhvcNAQcD", b"qGSIb3DQEHA6", b"hkiG9w0BBwOg"];

/// Signed and compressed data.
const SIGNED: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02";
const COMPRESSED: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x09\x10\x01\x09";

/// How much of a signed message is searched for the mail in it.
const START: usize = 4096;

/// Looks at data or at a text of no other format.
pub(super) fn inspect(bytes: &[u8], found: &mut Findings) {
    if let Some((_, name)) = STARTS.iter().find(|(start, _)| bytes.starts_with(start)) {
        found.encrypted.push((*name).to_owned());
    } else if is_pgp(bytes) || has_pgp_armor(bytes) {
        found.encrypted.push("PGP message".to_owned());
    } else if bytes.starts_with(b"-----BEGIN CMS-----") || bytes.starts_with(b"-----BEGIN PKCS7-----") {
        let start = bytes.get(..200.min(bytes.len())).unwrap_or_default();
        if ENVELOPED_BASE64.iter().any(|identifier| memmem::find(start, identifier).is_some()) {
            found.encrypted.push("S/MIME".to_owned());
        }
    } else if let Some(content) = der_content(bytes) {
        let starts_with = |identifier: &&[u8]| content.starts_with(identifier);
        let start = content.get(..START.min(content.len())).unwrap_or_default();
        let is_mail = memmem::find(start, b"Content-Type:").is_some() || memmem::find(start, b"MIME-Version:").is_some();
        if ENVELOPED.iter().any(starts_with) {
            found.encrypted.push("S/MIME".to_owned());
        } else if starts_with(&COMPRESSED) || starts_with(&SIGNED) && is_mail {
            // The mail in it is not taken for one, hence its attachments are not unpacked.
            found.unsupported.push("S/MIME with a mail in it".to_owned());
        }
    }
}

/// What is inside the outermost SEQUENCE (X.690, 8.9), whose length may be given or not.
fn der_content(bytes: &[u8]) -> Option<&[u8]> {
    let (&[0x30, length], rest) = bytes.split_first_chunk()? else { return None };
    let further = if length < 0x80 { 0 } else { usize::from(length & 0x7f) };
    rest.get(further..).filter(|_| further <= 8)
}

/// The packets that an OpenPGP message in binary starts with: a session key for a public key or for a passphrase (RFC 9580, 5.1
/// and 5.3), whole, with encrypted data behind them.
fn is_pgp(bytes: &[u8]) -> bool {
    let mut at = 0_usize;
    // Each recipient has a packet.
    for keys in 0..1000 {
        let Some((tag, body, end)) = packet(bytes, at) else { return false };
        match tag {
            1 if matches!(body, [3 | 6, ..]) && (20..=1100).contains(&body.len()) => {}
            3 if matches!(body, [4..=6, ..]) && (4..=200).contains(&body.len()) => {}
            // Encrypted data: with integrity protection they start with a version (RFC 9580, 5.13); AEAD in GnuPG is 20.
            9 => return keys > 0,
            18 => return keys > 0 && matches!(body, [1 | 2, ..]),
            20 => return keys > 0 && matches!(body, [1, ..]),
            _ => return false,
        }
        at = end;
    }
    true
}

/// The packet at `at`: its type, its body as far as it is there, and its end (RFC 9580, 4.2).
fn packet(bytes: &[u8], at: usize) -> Option<(u8, &[u8], usize)> {
    let (&first, rest) = bytes.get(at..)?.split_first()?;
    let byte = |index: usize| rest.get(index).map(|&byte| usize::from(byte));
    let (tag, header, length) = match (first & 0xc0, first & 3) {
        (0xc0, _) => {
            let tag = first & 0x3f;
            match byte(0)? {
                short @ 0..=191 => (tag, 1, short),
                long @ 192..=223 => (tag, 2, (long - 192) * 256 + byte(1)? + 192),
                255 => (tag, 5, four_bytes(rest.get(1..5)?)),
                _ => (tag, 1, usize::MAX),
            }
        }
        (0x80, 0) => (first >> 2 & 15, 1, byte(0)?),
        (0x80, 1) => (first >> 2 & 15, 2, byte(0)? * 256 + byte(1)?),
        (0x80, 2) => (first >> 2 & 15, 4, four_bytes(rest.get(..4)?)),
        (0x80, _) => (first >> 2 & 15, 0, usize::MAX),
        _ => return None,
    };
    let body = rest.get(header..)?;
    let end = at.checked_add(1 + header)?.saturating_add(length);
    Some((tag, body.get(..length.min(body.len()))?, end))
}

fn four_bytes(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, &byte| number << 8 | usize::from(byte))
}

/// A line `-----BEGIN PGP MESSAGE-----`, its headers, an empty line, and base64 (RFC 9580, 6.2). What is quoted does not
/// start a line.
fn has_pgp_armor(bytes: &[u8]) -> bool {
    const BEGIN: &[u8] = b"-----BEGIN PGP MESSAGE-----";
    memmem::find_iter(bytes, BEGIN).take(1000).any(|at| {
        let starts_line = at.checked_sub(1).is_none_or(|before| bytes.get(before) == Some(&b'\n'));
        let rest = bytes.get(at + BEGIN.len()..(at + START).min(bytes.len())).unwrap_or_default();
        let mut lines =
            rest.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).skip(1).skip_while(|line| !line.is_empty()).skip(1);
        let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        starts_line && lines.next().is_some_and(|line| !line.is_empty() && line.iter().all(is_digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_a_key_can_open() {
        let session_key = [&[0x84, 30, 3][..], &[7; 29], &[0xd2, 40, 1], &[9; 39]].concat();
        let enveloped = [b"\x30\x80", ENVELOPED[0], b"\xa0\x80"].concat();
        let signed_mail = [b"\x30\x82\x01\x00", SIGNED, b"\xa0\x80", b"Content-Type: text/plain"].concat();
        let certificates = [b"\x30\x82\x01\x00", SIGNED, b"\xa0\x80"].concat();
        let cases: &[(&[u8], &str)] = &[
            (b"age-encryption.org/v1\n-> X25519 x", "age"),
            (b"Salted__12345678", "OpenSSL"),
            (&session_key, "PGP message"),
            (b"see:\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA\r\n", "PGP message"),
            (&enveloped, "S/MIME"),
            (b"-----BEGIN PKCS7-----\nMIIBpQYJKoZIhvcNAQcDoIIBljCC", "S/MIME"),
            (b"-----BEGIN CMS-----\nMIAGCSqGSIb3DQEHA6CAMIACAQAx", "S/MIME"),
            (b"-----BEGIN PKCS7-----\nMIICJwYJKoZIhvcNAQcCoIICGDCC", ""),
            (&signed_mail, "S/MIME with a mail in it"),
            (&certificates, ""),
            (b"The line\n-----BEGIN PGP MESSAGE-----\nstarts a message.", ""),
            (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQEN\n", ""),
            (b"\x30", ""),
            (b"", ""),
        ];
        for (bytes, expected) in cases {
            let mut found = Findings::default();
            inspect(bytes, &mut found);
            assert_eq!([found.encrypted, found.unsupported].concat().concat(), *expected, "{bytes:?}");
        }
    }
}
