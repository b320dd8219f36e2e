//! Keys and versions, as lists of objects and event notifications write them.

use percent_encoding::percent_decode_str;

/// The version of objects that were written while versions were off or suspended. It is overwritten in place: only the ETag
/// tells one content from the next.
pub(crate) const NULL_VERSION: &str = "null";

/// A key that was written as form data: a plus is a space, and everything unusual is percent-encoded. `None` if it is not UTF-8.
///
/// Lists are asked for in this form (`encoding-type=url`), because a key can hold characters that XML cannot.
pub(crate) fn decode(encoded: &str) -> Option<String> {
    percent_decode_str(&encoded.replace('+', " ")).decode_utf8().ok().map(|decoded| decoded.into_owned())
}

/// A hostile name on one line, and without anything that a terminal would obey.
#[cfg(feature = "service")]
pub(crate) fn printable(name: &str) -> String {
    name.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
