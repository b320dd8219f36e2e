//! The key of a document that is encrypted and opens without a password, which is the empty user password of the standard
//! security handler (ISO 32000-2, 7.6). Only an owner's password protects many ordinary forms and invoices.
//!
//! libclamav decrypts such a document too, but looks for text where a reader parses. If it is led to another key, it scans
//! noise: where the two may differ, there is no key. None is checked: libclamav reports a document for which the empty
//! password is wrong, and with a wrong key nothing comes out that could be unpacked.

use std::borrow::Cow;

use aes::{Aes128, Aes256};
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyInit, KeyIvInit, StreamCipher};
use md5::{Digest, Md5};
use memchr::memmem;
use rc4::Rc4;
use sha2::{Sha256, Sha384, Sha512};

use super::SMALL;
use super::dictionary::{Dictionary, Token, is_space, next_token, skip_space};
use super::document::Pdf;
use super::encryption::{MOST_TRAILERS, TRAILER, trailers};

/// The entries of the encryption dictionary that lead to the key (tables 20 and 21).
const ENTRIES: &[&[u8]] =
    &[b"CF", b"EFF", b"EncryptMetadata", b"Filter", b"Length", b"O", b"OE", b"P", b"R", b"StmF", b"StrF", b"U", b"UE", b"V"];

/// What stands for an empty password (algorithm 2).
const EMPTY: &[u8; 32] = b"\x28\xbf\x4e\x5e\x4e\x75\x8a\x41\x64\x00\x4e\x56\xff\xfa\x01\x08\
    \x2e\x2e\x00\xb6\xd0\x68\x3e\x80\x2f\x0c\xa9\xfe\x64\x53\x69\x7a";

/// How the streams of a document are decrypted.
pub(super) struct Key {
    bytes: Vec<u8>,
    cipher: Cipher,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Identity,
    Rc4,
    Aes128,
    Aes256,
}

impl Key {
    /// The key with an empty user password. `None` if a reader and libclamav may not come to the same key, or if it is made in
    /// an unusual way.
    pub(super) fn of(pdf: &Pdf) -> Option<Self> {
        let (number, id) = only_encryption(pdf)?;
        // libclamav has but 24 bits for the number of an object (pdf.c: pdf_findobj).
        if pdf.numbers.keys().filter(|&&other| other % (1 << 24) == number % (1 << 24)).count() != 1 {
            return None;
        }
        let mut objects = pdf.objects(number);
        let (object, None) = (objects.next()?, objects.next()) else { return None };
        let bytes = pdf.bytes.get(object.value.clone()).filter(|bytes| bytes.len() <= SMALL)?;
        let dictionary = Entries::parse(bytes, 0, ENTRIES)?;
        if dictionary.name(b"Filter")?.as_ref() != b"Standard" {
            return None;
        }
        // The keys of both are the same if both take the same `/U` for right, which depends on the key before revision 5.
        let user = string(bytes, dictionary.same(b"U")?)?;
        dictionary.same(b"R")?;
        let version = (dictionary.integer(b"V")?, dictionary.integer(b"R")?);
        match version {
            (1, 2 | 3) | (2, 3) => {}
            (4, 4) | (5, 5 | 6) => return dictionary.key_of_crypt_filter(version.1, &user, &id),
            _ => return None,
        }
        let length = match version {
            (2, _) if dictionary.has(b"Length") => usize::try_from(dictionary.integer(b"Length")? / 8).ok()?,
            _ => 5,
        };
        let bytes = dictionary.key_of_md5(version.1, length, &id)?;
        Some(Self { bytes, cipher: Cipher::Rc4 })
    }

    /// What the stream of an object holds, perhaps with a few more bytes behind it.
    pub(super) fn decrypt(&self, number: u64, data: &[u8]) -> Option<Vec<u8>> {
        let (iv, blocks) = data.split_at_checked(16).unwrap_or_default();
        // A line break stands before `endstream`.
        let blocks = blocks.get(..blocks.len() - blocks.len() % 16)?;
        match self.cipher {
            Cipher::Identity => Some(data.to_vec()),
            Cipher::Rc4 => {
                let mut data = data.to_vec();
                Rc4::new_from_slice(&self.of_object(number, b"")?).ok()?.apply_keystream(&mut data);
                Some(data)
            }
            Cipher::Aes128 => {
                let mut data = blocks.to_vec();
                let decryptor = cbc::Decryptor::<Aes128>::new_from_slices(&self.of_object(number, b"sAlT")?, iv).ok()?;
                decryptor.decrypt_padded::<NoPadding>(&mut data).ok()?;
                Some(data)
            }
            Cipher::Aes256 => {
                let mut data = blocks.to_vec();
                let decryptor = cbc::Decryptor::<Aes256>::new_from_slices(&self.bytes, iv).ok()?;
                decryptor.decrypt_padded::<NoPadding>(&mut data).ok()?;
                Some(data)
            }
        }
    }

    /// The key of one object (algorithm 1). The generation of an object stream is always 0 (7.5.7).
    fn of_object(&self, number: u64, salt: &[u8]) -> Option<Vec<u8>> {
        let mut digest = Md5::new_with_prefix(&self.bytes);
        digest.update(number.to_le_bytes().get(..3)?);
        digest.update([0; 2]);
        digest.update(salt);
        digest.finalize().get(..(self.bytes.len() + 5).min(16)).map(<[u8]>::to_vec)
    }
}

/// An encryption dictionary, or a part of it.
struct Entries<'bytes> {
    bytes: &'bytes [u8],
    start: usize,
    dictionary: Dictionary,
}

impl<'bytes> Entries<'bytes> {
    fn parse(bytes: &'bytes [u8], start: usize, keys: &'static [&'static [u8]]) -> Option<Self> {
        let dictionary = Dictionary::parse_entries(bytes, start, keys)?;
        (!dictionary.ambiguous).then_some(Self { bytes, start, dictionary })
    }

    fn has(&self, key: &[u8]) -> bool {
        self.dictionary.get(key).is_some()
    }

    /// The value of an entry without the white space around it.
    fn text(&self, key: &[u8]) -> Option<&'bytes [u8]> {
        Some(self.bytes.get(self.dictionary.get(key)?)?.trim_ascii())
    }

    fn name(&self, key: &[u8]) -> Option<Cow<'bytes, [u8]>> {
        self.dictionary.name(self.bytes, key)
    }

    /// A direct number; a negative one, as `/P` is, has the bits of its two's complement.
    fn integer(&self, key: &[u8]) -> Option<i64> {
        std::str::from_utf8(self.text(key)?).ok()?.parse().ok()
    }

    /// Where the value of an entry stands that libclamav finds at the same place: it takes the first text that looks like the
    /// key, whatever that is in, or what begins like it (`pdf.c: pdf_getdict`).
    fn same(&self, key: &[u8]) -> Option<usize> {
        let value = self.dictionary.get(key)?;
        let slash = value.start.checked_sub(key.len() + 1)?;
        let first = memmem::find(self.bytes.get(self.start..)?, &[b"/", key].concat())? + self.start;
        let is_plain = self.text(key)?.first() != Some(&b'%');
        (first == slash && is_plain).then_some(value.start)
    }

    /// The key of revision 4 and later, where a filter says how it is used.
    fn key_of_crypt_filter(&self, revision: i64, user: &[u8], id: &[u8]) -> Option<Key> {
        let cipher = self.stream_cipher()?;
        if revision == 4 {
            let bytes = self.key_of_md5(revision, 16, id)?;
            return (cipher != Cipher::Aes256).then_some(Key { bytes, cipher });
        }
        let string = |key| string(self.bytes, self.same(key)?);
        let (owner, all_of_user) = (string(b"O")?, user.get(..48)?);
        let is_empty = |password: &[u8], user: &[u8]| {
            Some(password.get(..32)? == password_hash(revision, password.get(32..40)?, user)?.get(..32)?)
        };
        let by_user = unwrap_key(revision, user, b"", &string(b"UE")?)?;
        let by_owner = unwrap_key(revision, &owner, all_of_user, &string(b"OE")?)?;
        // libclamav tries the owner's password first, and some readers do. If both are empty, they have to lead to the same.
        let bytes = match (is_empty(user, b"")?, is_empty(&owner, all_of_user)?) {
            (true, true) if by_user != by_owner => return None,
            (false, true) => by_owner,
            _ => by_user,
        };
        matches!(cipher, Cipher::Aes256 | Cipher::Identity).then_some(Key { bytes, cipher })
    }

    /// Algorithm 2.
    fn key_of_md5(&self, revision: i64, length: usize, id: &[u8]) -> Option<Vec<u8>> {
        let owner = string(self.bytes, self.dictionary.get(b"O")?.start)?;
        let mut digest = Md5::new_with_prefix(EMPTY);
        digest.update(owner.get(..32)?);
        digest.update(self.integer(b"P")?.to_le_bytes().get(..4)?);
        digest.update(id);
        if revision == 4 && self.text(b"EncryptMetadata") == Some(b"false") {
            digest.update([0xff; 4]);
        }
        let mut key = digest.finalize();
        for _ in 0..if revision == 2 { 0 } else { 50 } {
            key = Md5::digest(key.get(..length)?);
        }
        key.get(..length).filter(|key| key.len() >= 5).map(<[u8]>::to_vec)
    }

    /// What `/StmF` names, which is one of the filters in `/CF`: of these, the standard handler has but one (table 20).
    fn stream_cipher(&self) -> Option<Cipher> {
        const FILTER: &[u8] = b"StdCF";
        for key in [b"StmF".as_slice(), b"StrF", b"EFF"] {
            let is_nowhere = || memmem::find(self.bytes, &[b"/", key].concat()).is_none();
            (self.same(key).is_some() || is_nowhere()).then_some(())?;
        }
        match self.name(b"StmF").as_deref() {
            None | Some(b"Identity") => return Some(Cipher::Identity),
            Some(FILTER) => {}
            Some(_) => return None,
        }
        let filters = Self::parse(self.bytes, self.same(b"CF")?, &[FILTER])?;
        let filter = filters.same(FILTER)?;
        // libclamav looks for the name alone.
        let first = memmem::find(self.bytes.get(filters.start..filter)?, FILTER)?;
        let filter = Self::parse(self.bytes, filter, &[b"CFM"]).filter(|_| filters.start + first + FILTER.len() == filter)?;
        filter.same(b"CFM")?;
        match filter.name(b"CFM")?.as_ref() {
            b"V2" => Some(Cipher::Rc4),
            b"AESV2" => Some(Cipher::Aes128),
            b"AESV3" => Some(Cipher::Aes256),
            _ => None,
        }
    }
}

/// The document's key, which is encrypted with an empty password (algorithm 2.A). `password` is `/U` or `/O`.
fn unwrap_key(revision: i64, password: &[u8], user: &[u8], encrypted: &[u8]) -> Option<Vec<u8>> {
    let wrapping = password_hash(revision, password.get(40..48)?, user)?;
    let mut key = encrypted.to_vec();
    let decryptor = cbc::Decryptor::<Aes256>::new_from_slices(wrapping.get(..32)?, &[0; 16]).ok()?;
    decryptor.decrypt_padded::<NoPadding>(&mut key).ok()?;
    (key.len() == 32).then_some(key)
}

/// The hash of an empty password (algorithm 2.B); `user` is `/U`, for the owner's. Revision 5 stopped at the first one.
fn password_hash(revision: i64, salt: &[u8], user: &[u8]) -> Option<Vec<u8>> {
    let mut block = Sha256::new_with_prefix(salt).chain_update(user).finalize().to_vec();
    if revision == 5 {
        return Some(block);
    }
    // The last byte of a round ends it, 288 at the latest.
    for round in 1_u32.. {
        let mut data = [&block, user].concat().repeat(64);
        let length = data.len();
        let encryptor = cbc::Encryptor::<Aes128>::new_from_slices(block.get(..16)?, block.get(16..32)?).ok()?;
        encryptor.encrypt_padded::<NoPadding>(&mut data, length).ok()?;
        let sum: u32 = data.iter().take(16).map(|&byte| u32::from(byte)).sum();
        block = match sum % 3 {
            0 => Sha256::digest(&data).to_vec(),
            1 => Sha384::digest(&data).to_vec(),
            _ => Sha512::digest(&data).to_vec(),
        };
        if round >= 64 && u32::from(*data.last()?) <= round - 32 {
            break;
        }
    }
    Some(block)
}

/// The object with the encryption dictionary, and the first half of the document's `/ID`. All trailers have to agree, and all
/// that reads like an entry of one: libclamav takes the text wherever it stands (`pdf.c: pdf_parse_trailer`).
fn only_encryption(pdf: &Pdf) -> Option<(u64, Vec<u8>)> {
    let (mut encryption, mut id) = (None, None);
    let mut is_it = |number: u64| (*encryption.get_or_insert(number) == number).then_some(());
    for at in memmem::find_iter(pdf.bytes, b"/Encrypt") {
        pdf.deadline.spend(SMALL).ok()?;
        let rest = pdf.bytes.get(at + b"/Encrypt".len()..)?;
        if !rest.starts_with(b"Metadata") {
            is_it(plain_reference(rest)?)?;
        }
    }
    let mut agrees = |bytes: &[u8], trailer: &Dictionary| {
        if trailer.ambiguous {
            return None;
        }
        if let Some(value) = trailer.get(b"Encrypt") {
            is_it(plain_reference(bytes.get(value)?)?)?;
        }
        if let Some(value) = trailer.get(b"ID") {
            let (Token::ArrayOpen, first) = next_token(bytes, value.start)? else { return None };
            let first = string(bytes, first)?;
            (*id.get_or_insert_with(|| first.clone()) == first).then_some(())?;
        }
        Some(())
    };
    let mut count = 0;
    for trailer in trailers(pdf.bytes) {
        agrees(pdf.bytes, &trailer?)?;
        count += 1;
    }
    for object in &pdf.objects {
        pdf.deadline.spend(object.value.len()).ok()?;
        let bytes = pdf.bytes.get(..object.value.end)?;
        let Some(dictionary) = Dictionary::parse_entries(bytes, object.value.start, TRAILER) else { continue };
        if dictionary.is(bytes, b"Type", b"XRef") {
            agrees(bytes, &dictionary)?;
        }
    }
    // There may be more that were not looked at.
    (count < MOST_TRAILERS).then_some((encryption?, id.unwrap_or_default()))
}

/// The number in a reference with nothing else than white space in it.
fn plain_reference(bytes: &[u8]) -> Option<u64> {
    let bytes = bytes.get(..bytes.len().min(64))?;
    let mut words = bytes.split(|&byte| is_space(byte)).filter(|word| !word.is_empty());
    let number = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    let is_reference = words.next()?.iter().all(u8::is_ascii_digit) && words.next()?.starts_with(b"R");
    (is_reference && bytes.first().is_some_and(|&byte| is_space(byte))).then_some(number)
}

/// The content of the string that starts at or after `at` (7.3.4), unless libclamav could read another (`pdf.c:
/// pdf_readstring`).
fn string(bytes: &[u8], at: usize) -> Option<Vec<u8>> {
    let (Token::String, end) = next_token(bytes, at)? else { return None };
    let text = bytes.get(skip_space(bytes, at)..end)?;
    match text {
        [b'<', digits @ .., b'>'] => {
            let digits: Option<Vec<_>> =
                digits.iter().filter(|&&byte| !is_space(byte)).map(|&digit| char::from(digit).to_digit(16)).collect();
            let byte = |pair: &[u32]| u8::try_from(pair.first()? * 16 + pair.get(1).unwrap_or(&0)).ok();
            digits?.chunks(2).map(byte).collect()
        }
        [b'(', text @ .., b')'] => unescape(text),
        _ => None,
    }
}

/// A literal string without its escapes (7.3.4.2). `None` for a bare carriage return, and an escape that is cut short or has no
/// meaning.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let plain_byte;
        (plain_byte, rest) = match (byte, after) {
            (b'\r', _) => return None,
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                ((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'), after)
            }
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'b', after @ ..]) => (8, after),
            (b'\\', [b'f', after @ ..]) => (12, after),
            (b'\\', [same @ (b'(' | b')' | b'\\'), after @ ..]) => (*same, after),
            (b'\\', _) => return None,
            (byte, after) => (*byte, after),
        };
        plain.push(plain_byte);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io;

    use super::super::Deadline;
    use super::*;
    use crate::engine::formats::Findings;
    use crate::engine::hex;

    /// A document in `tests/data/encrypted`.
    fn document(name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(format!("{}/tests/data/encrypted/owner-password-picture-{name}.pdf", env!("CARGO_MANIFEST_DIR")))
    }

    /// The key of that document, with a part of it replaced.
    fn key_of(name: &str, part: &str, other: &str) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
        let document = document(name)?;
        let at = memmem::find(&document, part.as_bytes()).ok_or_else(|| format!("{part} is not in {name}"))?;
        let document = [&document[..at], other.as_bytes(), &document[at + part.len()..]].concat();
        let deadline = Deadline::far();
        Ok(Key::of(&Pdf::parse(&document, &deadline, &mut Findings::default())).map(|key| key.bytes))
    }

    #[test]
    fn a_key_that_libclamav_may_not_find_is_none() -> Result<(), Box<dyn Error>> {
        let cases = [
            ("rc4-128", "/U <", "/A /U /U <"),
            ("rc4-128", "/U <", "/U %(fake)\n<"),
            ("rc4-128", "/U <", "/#55 <"),
            ("rc4-128", "/U <", "/U <00> /U <"),
            ("rc4-128", "/R 3", "/A (/R 2) /R 3"),
            ("rc4-128", "/R 3", "/R 4"),
            ("rc4-128", "/Standard", "/Other"),
            ("rc4-128", "%PDF-1.5", "%PDF-1.5 /Encrypt 9 0 R"),
            ("rc4-128", "%PDF-1.5", "%PDF-1.5 /Encrypt(9 0 R)"),
            ("rc4-128", "%PDF-1.5", "%PDF-1.5 1 0 obj<</Type/XRef/ID[<00>]>>endobj"),
            ("rc4-128", "%PDF-1.5", "%PDF-1.5 trailer<</ID[<00>]>>"),
            ("rc4-128", "%PDF-1.5", "%PDF-1.5 trailer<</Encrypt<<>>>>"),
            ("aes-128", "/CF <<", "/CF << /A (StdCF /CFM /None)"),
            ("aes-128", "/CFM /AESV2", "/A (/CFM /None) /CFM /AESV2"),
            ("aes-128", "/AESV2", "/AESV3"),
            ("aes-128", "/CF <<", "/A (/CF <<) /CF <<"),
            ("aes-128", "/CF <<", "/A (/EFF /Identity) /CF <<"),
            ("aes-128", "/StmF /StdCF", "/A (/StmF /StdCF)"),
            ("aes-256", "/UE <", "/A (/UE <>) /UE <"),
            ("aes-256", "/AESV3", "/AESV2"),
        ];
        for (name, part, other) in cases {
            assert!(key_of(name, part, part)?.is_some(), "{name}");
            assert_eq!(key_of(name, part, other)?, None, "{name} {other}");
        }
        Ok(())
    }

    #[test]
    fn an_encryption_dictionary_has_to_be_the_only_one() -> Result<(), Box<dyn Error>> {
        let header = "%PDF-1.5\n";
        let same = key_of("rc4-128", header, "%PDF-1.5\n77 0 obj<</Filter/Standard>>endobj ")?;
        assert_eq!(same, key_of("rc4-128", header, header)?);
        let (document, deadline) = (document("rc4-128")?, Deadline::far());
        let pdf = Pdf::parse(&document, &deadline, &mut Findings::default());
        let (number, _) = only_encryption(&pdf).ok_or("no encryption dictionary")?;
        for number in [number, number + (1 << 24)] {
            let other = format!("{header}{number} 0 obj<</Filter/Standard>>endobj ");
            assert_eq!(key_of("rc4-128", header, &other)?, None, "{number}");
        }
        Ok(())
    }

    /// As `qpdf --encrypt "" "" 256` has it, then with another key for the owner, and with a user's password.
    #[test]
    fn an_empty_password_of_the_owner_has_to_lead_to_the_same_key() -> Result<(), Box<dyn Error>> {
        let hash = |salts: &[u8; 16], user: &[u8]| password_hash(6, &salts[..8], user).ok_or("no hash");
        let entry = |salts: &[u8; 16], user: &[u8]| Ok::<_, &str>([&hash(salts, user)?[..32], salts].concat());
        let wrap = |salts: &[u8; 16], user: &[u8], key: &[u8; 32]| -> Result<String, Box<dyn Error>> {
            let mut key = *key;
            let encryptor = cbc::Encryptor::<Aes256>::new_from_slices(&hash(salts, user)?[..32], &[0; 16])?;
            encryptor.encrypt_padded::<NoPadding>(&mut key, 32)?;
            Ok(hex(&key))
        };
        let (user_salts, owner_salts) = ([1; 16], [2; 16]);
        let user = entry(&user_salts, b"")?;
        let other = [&[9; 32][..], &user[32..]].concat();
        for (in_document, owner_key, expected) in
            [(&user, [3; 32], Some(vec![3; 32])), (&user, [4; 32], None), (&other, [4; 32], Some(vec![4; 32]))]
        {
            let dictionary = format!(
                "<</Filter/Standard/V 5/R 6/CF<</StdCF<</CFM/AESV3>>>>/StmF/StdCF/O<{}>/OE<{}>/U<{}>/UE<{}>>>",
                hex(&entry(&owner_salts, in_document)?),
                wrap(&owner_salts, in_document, &owner_key)?,
                hex(in_document),
                wrap(&user_salts, b"", &[3; 32])?,
            );
            let document = format!("%PDF-1.5\n1 0 obj{dictionary}endobj trailer<</Encrypt 1 0 R>>");
            let deadline = Deadline::far();
            let key = Key::of(&Pdf::parse(document.as_bytes(), &deadline, &mut Findings::default()));
            assert_eq!(key.map(|key| key.bytes), expected);
        }
        Ok(())
    }

    #[test]
    fn strings_that_libclamav_reads_alike() {
        for (text, expected) in [
            (&b"<48 69\n2>"[..], Some(&b"Hi "[..])),
            (b"<4g>", None),
            (b"(a(b)\\(\\)\\\\\\n\\101)", Some(b"a(b)()\\\nA")),
            (b"(\\53x)", None),
            (b"(\\9)", None),
            (b"(\\q)", None),
            (b"(a\rb)", None),
            (b"(a\\\nb)", None),
            (b"12", None),
        ] {
            assert_eq!(string(text, 0).as_deref(), expected, "{text:?}");
        }
    }
}
