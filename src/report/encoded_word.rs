//! Metadata that is not ASCII: S3 hands it out as the encoded words of RFC 2047, `=?UTF-8?B?…?=`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

/// The text that a value stands for; the value itself unless all of it is encoded words in UTF-8.
pub(super) fn decode(value: &str) -> Cow<'_, str> {
    // A character can be spread over two words.
    let bytes: Option<Vec<u8>> =
        value.split_ascii_whitespace().map(word).collect::<Option<Vec<_>>>().map(|words| words.concat());
    let text = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| String::from_utf8(bytes).ok());
    text.map_or(Cow::Borrowed(value), Cow::Owned)
}

fn word(word: &str) -> Option<Vec<u8>> {
    let mut parts = word.strip_prefix("=?")?.strip_suffix("?=")?.split('?');
    let (charset, encoding, text) = (parts.next()?, parts.next()?, parts.next()?);
    // RFC 2231 puts a language behind the charset.
    let charset = charset.split('*').next()?;
    if parts.next().is_some() || !charset.eq_ignore_ascii_case("UTF-8") {
        return None;
    }
    match encoding {
        "B" | "b" => BASE64_STANDARD.decode(text).ok(),
        "Q" | "q" => quoted(text.as_bytes()),
        _ => None,
    }
}

fn quoted(mut text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    while let [first, rest @ ..] = text {
        text = rest;
        bytes.push(match first {
            b'_' => b' ',
            b'=' => {
                let (digits, rest) = text.split_at_checked(2)?;
                text = rest;
                u8::from_str_radix(str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?, 16).ok()?
            }
            byte => *byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words_are_decoded() {
        for (value, text) in [
            ("plain.pdf", "plain.pdf"),
            ("", ""),
            ("=?UTF-8?B?w6liw6kucGRm?=", "ébé.pdf"),
            ("=?utf-8?q?=C3=A9t=C3=A9_1.pdf?=", "été 1.pdf"),
            ("=?UTF-8*fr?Q?=C3=A9?=", "é"),
            // One character over two words, and white space between words is none.
            ("=?UTF-8?B?w6k=?=\r\n =?UTF-8?B?w6k=?=", "éé"),
            ("=?UTF-8?Q?=C3?= =?UTF-8?Q?=A9?=", "é"),
            // What is not understood stays as it is.
            ("=?ISO-8859-1?Q?=E9?=", "=?ISO-8859-1?Q?=E9?="),
            ("=?UTF-8?Q?=E9?=", "=?UTF-8?Q?=E9?="),
            ("=?UTF-8?Q?=+1?=", "=?UTF-8?Q?=+1?="),
            ("=?UTF-8?Q?=C?=", "=?UTF-8?Q?=C?="),
            ("=?UTF-8?B?***?=", "=?UTF-8?B?***?="),
            ("=?UTF-8?X?a?=", "=?UTF-8?X?a?="),
            ("=?UTF-8?Q?a?b?=", "=?UTF-8?Q?a?b?="),
            ("=?UTF-8?Q?a?= b", "=?UTF-8?Q?a?= b"),
            ("=??=", "=??="),
            ("=?=", "=?="),
        ] {
            assert_eq!(decode(value), text, "{value}");
        }
    }
}
