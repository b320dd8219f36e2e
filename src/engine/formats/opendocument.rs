//! OpenDocument files with a password: a zip whose members are packed and encrypted data, which only its manifest tells.

use memchr::memmem;

use super::Findings;

/// The name space of manifests (OpenDocument 1.3, part 2, 4.2).
const MANIFEST: &[u8] = b"urn:oasis:names:tc:opendocument:xmlns:manifest:";
/// What an encrypted member's entry, or that of a document encrypted as a whole, holds (ibid., 4.8.4).
const ENCRYPTION: &[u8] = b"encryption-data";

/// How much of a text is searched for the name space.
const START: usize = 1024;

/// Looks at a layer of any type: the manifest is a member of its own.
pub(super) fn inspect(bytes: &[u8], found: &mut Findings) {
    let start = bytes.get(..START).unwrap_or(bytes);
    if memmem::find(start, MANIFEST).is_some() && memmem::find(bytes, ENCRYPTION).is_some() {
        found.encrypted.push("OpenDocument".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_tells_of_encryption() {
        let root = r#"<m:manifest xmlns:m="urn:oasis:names:tc:opendocument:xmlns:manifest:1.0">"#;
        for (text, encrypted) in [
            (format!("{root}<m:file-entry><m:encryption-data/></m:file-entry></m:manifest>"), "OpenDocument"),
            (format!("{root}<m:file-entry/></m:manifest>"), ""),
            ("<encryption-data/>".to_owned(), ""),
        ] {
            let mut found = Findings::default();
            inspect(text.as_bytes(), &mut found);
            assert_eq!(found.encrypted.concat(), encrypted, "{text}");
        }
    }
}
