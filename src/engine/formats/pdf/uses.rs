//! What a document uses its streams for, whatever they say of themselves.
//!
//! A stream is a picture or a table to libclamav if its own dictionary says so, and some of those are not unpacked. A reader takes it for
//! what refers to it: to an attachment it does not matter what it calls itself. So references are collected from all objects,
//! those in object streams included, without asking what kind of object they stand in.

use std::collections::{HashMap, HashSet};

use memchr::{memchr, memchr2};

use super::dictionary::{Dictionary, Token, is_regular, is_space, next_token, skip_value};
use super::document::{Object, Pdf};
use super::zlib::inflate;
use crate::engine::formats::deadline::Deadline;

/// Entries whose value leads to what a reader saves, opens, runs or parses: files and those related to them, scripts, forms, models,
/// fonts and pages (ISO 32000-1, 7.11.4, 12.6.4.16, 12.7.8, 13.6, 9.9, 7.7.3.3). Assets of rich media and associated files are
/// files as well, and have an `EF`.
const KEYS: &[&[u8]] =
    &[b"EF", b"RF", b"JS", b"XFA", b"3DD", b"OnInstantiate", b"FontFile", b"FontFile2", b"FontFile3", b"Contents"];

/// How much object streams may hold together, unpacked.
const MOST_UNPACKED: usize = 64 * 1024 * 1024;

/// The objects that are used for something else than a picture or a table.
pub(super) struct Uses {
    numbers: HashSet<u64>,
    /// All objects could be read.
    pub(super) is_complete: bool,
}

impl Uses {
    pub(super) fn of(pdf: &Pdf) -> Self {
        let deadline = pdf.deadline;
        let mut uses = Self { numbers: HashSet::new(), is_complete: true };
        let mut texts = Texts::default();
        let (mut unpacked, mut room) = (Vec::new(), MOST_UNPACKED);
        let mut from = 0;
        for object in &pdf.objects {
            let stream = pdf.stream(object);
            let end = stream.as_ref().map_or(object.value.end, |stream| stream.keyword);
            // With the trailer and the like that stand before it.
            texts.all.push(pdf.bytes.get(from..end).unwrap_or_default());
            from = object.value.end;
            match stream {
                None => texts.add(object.number, pdf.bytes.get(object.value.clone()).unwrap_or_default()),
                Some(stream) if is_object_stream(pdf, &stream.dictionary) => {
                    let data = pdf.bytes.get(stream.data).unwrap_or_default();
                    match unpack(pdf, object, &stream.dictionary, data, room) {
                        Some(objects) => {
                            room -= objects.0.len().min(room);
                            unpacked.push(objects);
                        }
                        None => uses.is_complete = false,
                    }
                }
                Some(_) => {}
            }
        }
        texts.all.push(pdf.bytes.get(from..).unwrap_or_default());
        for (bytes, first, count) in &unpacked {
            texts.all.push(bytes);
            match objects_in(bytes, *first, *count) {
                Some(objects) => objects.into_iter().for_each(|(number, text)| texts.add(number, text)),
                None => uses.is_complete = false,
            }
        }
        if uses.follow(&texts, deadline).is_err() {
            uses.is_complete = false;
        }
        uses
    }

    pub(super) fn contain(&self, number: u64) -> bool {
        self.numbers.contains(&number)
    }

    /// Collects the references behind [`KEYS`], and those in the objects that they lead to.
    fn follow(&mut self, texts: &Texts, deadline: &Deadline) -> Result<(), &'static str> {
        let mut waiting = Vec::new();
        for text in &texts.all {
            deadline.spend(text.len())?;
            collect_uses(text, &mut waiting);
        }
        let mut read = HashSet::new();
        while let Some(number) = waiting.pop() {
            if !self.numbers.insert(number) {
                continue;
            }
            for text in texts.by_number.get(&number).into_iter().flatten() {
                deadline.spend(text.len())?;
                // Any number of objects can be said to stand in the same place.
                if read.insert(text.as_ptr()) {
                    collect_references(text, &mut waiting);
                }
            }
        }
        Ok(())
    }
}

/// The document without the contents of its streams, and unpacked object streams.
#[derive(Default)]
struct Texts<'bytes> {
    all: Vec<&'bytes [u8]>,
    /// The objects that are no stream. There can be several of one number.
    by_number: HashMap<u64, Vec<&'bytes [u8]>>,
}

impl<'bytes> Texts<'bytes> {
    fn add(&mut self, number: u64, text: &'bytes [u8]) {
        self.by_number.entry(number).or_default().push(text);
    }
}

/// Some readers ask for the type, others for nothing but the two numbers (ISO 32000-1, table 16).
fn is_object_stream(pdf: &Pdf, dictionary: &Dictionary) -> bool {
    dictionary.is(pdf.bytes, b"Type", b"ObjStm") || dictionary.get(b"N").is_some() && dictionary.get(b"First").is_some()
}

/// The content of an object stream, where the first object starts in it, and how many there are. `None` for what cannot be
/// decrypted, is damaged, too large, or packed in an unusual way.
fn unpack(pdf: &Pdf, object: &Object, dictionary: &Dictionary, data: &[u8], most: usize) -> Option<(Vec<u8>, usize, usize)> {
    let number = |key| usize::try_from(pdf.number(dictionary, key)?).ok();
    let (first, count) = (number(b"First")?, number(b"N")?);
    if pdf.has_predictor(dictionary) {
        return None;
    }
    let bytes = match pdf.filters(dictionary).ok()?.as_slice() {
        // A cross-reference stream is never encrypted; this one is no such thing to some readers.
        ["FlateDecode"] if pdf.is_encrypted && !dictionary.is(pdf.bytes, b"Type", b"XRef") => {
            pdf.deadline.spend(data.len()).ok()?;
            // A wrong key, or bytes behind the end, make no stream of zlib with its checksum.
            inflate(&pdf.key()?.decrypt(object.number, data)?, most, pdf.deadline)?
        }
        _ if pdf.is_encrypted => return None,
        [] if data.len() <= most => data.to_vec(),
        ["FlateDecode"] => inflate(data, most, pdf.deadline)?,
        _ => return None,
    };
    Some((bytes, first, count))
}

/// The numbers and the texts of the objects in an object stream (ISO 32000-1, 7.5.7). `None` unless one follows the other, each whole.
fn objects_in(bytes: &[u8], first: usize, count: usize) -> Option<Vec<(u64, &[u8])>> {
    let (header, values) = bytes.split_at_checked(first)?;
    let mut at = 0;
    let mut number = || {
        let (Token::Word(word), end) = next_token(header, at)? else { return None };
        at = end;
        std::str::from_utf8(header.get(word)?).ok()?.parse::<u64>().ok()
    };
    let mut starts = Vec::new();
    for _ in 0..count {
        starts.push((number()?, usize::try_from(number()?).ok()?));
    }
    let ends = starts.iter().skip(1).map(|&(_, start)| start).chain([values.len()]);
    let object = |(&(number, start), end): (&(u64, usize), usize)| {
        let text = values.get(start..end).filter(|text| !text.is_empty())?;
        skip_value(text, 0)?;
        Some((number, text))
    };
    starts.iter().zip(ends).map(object).collect()
}

/// Collects the references in the values of [`KEYS`].
fn collect_uses(text: &[u8], found: &mut Vec<u64>) {
    let mut at = 0;
    while let Some(slash) = text.get(at..).and_then(|rest| memchr(b'/', rest)).map(|length| at + length) {
        let Some((Token::Name(name), end)) = next_token(text, slash) else { break };
        at = end;
        if KEYS.contains(&name.as_ref()) {
            // What is damaged goes on to the end. A reference is three words, of which the first is skipped.
            let value = skip_value(text, end).map_or(text.len(), |end| end_of_words(text, end));
            collect_references(text.get(end..value).unwrap_or_default(), found);
            at = value;
        }
    }
}

/// The end of two more words.
fn end_of_words(text: &[u8], mut at: usize) -> usize {
    for _ in 0..2 {
        match next_token(text, at) {
            Some((Token::Word(_), end)) => at = end,
            _ => break,
        }
    }
    at
}

/// Collects what looks like a reference, in strings as well: `12 0 R`.
fn collect_references(text: &[u8], found: &mut Vec<u64>) {
    let (mut last, mut number) = (None, None::<u64>);
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        let length = match byte {
            b'%' => memchr2(b'\r', b'\n', rest).unwrap_or(rest.len()),
            _ => rest.iter().take_while(|&&byte| is_regular(byte)).count(),
        };
        let word = rest.get(..length).unwrap_or_default();
        if length == 0 {
            if !is_space(byte) {
                (last, number) = (None, None);
            }
        } else if word == b"R" {
            found.extend(number.filter(|_| last.is_some()));
            (last, number) = (None, None);
        } else if byte != b'%' {
            (number, last) = (last, std::str::from_utf8(word).ok().and_then(|digits| digits.parse().ok()));
        }
        at += length.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_found_however_they_are_written() {
        for (text, expected) in [
            ("<</EF<</F 12 0 R/UF 13 0 R>>/X 14 0 R>>", vec![12, 13]),
            ("<</E#46 12%1 1\n0 R/X 14 0 R>>", vec![12]),
            ("<</XFA[(template)12 0 R(config)+13 00 R]/X 14 0 R>>", vec![12, 13]),
            ("<</X)/EF<</F 12 0 R /UF 13 0 R", vec![12, 13]),
            ("<</EF(12 0 R", vec![12]),
            ("<</EFF 12 0 R/JS(x)/X 14 0 R>>", vec![]),
        ] {
            let mut found = Vec::new();
            collect_uses(text.as_bytes(), &mut found);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn objects_of_a_stream_follow_each_other() {
        for (bytes, first, count, numbers) in [
            (&b"7 0 8 4 [12]<</EF 7 0 R>>"[..], 8, 2, Some(vec![7, 8])),
            (b"7 0 8 2 [12]<</EF 7 0 R>>", 8, 2, None),
            (b"7 4 8 0 [12]<</EF 7 0 R>>", 8, 2, None),
            (b"7 0 8 4 [12]<</EF 7 0 R>>", 8, 3, None),
            (b"7 0 8 4 [12]<</EF 7 0 R", 8, 2, None),
            (b"7 0 ", 9, 1, None),
        ] {
            let found = objects_in(bytes, first, count);
            assert_eq!(found.map(|objects| objects.iter().map(|object| object.0).collect()), numbers, "{first} {count}");
        }
    }
}
