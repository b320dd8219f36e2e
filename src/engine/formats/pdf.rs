//! PDF: streams that libclamav does not unpack, or not to the end, and documents that it does not know to be encrypted.
//!
//! libclamav finds objects by searching for `obj` and `endobj` and never reads the cross-reference table (`pdf.c:
//! pdf_findobj`). A reader of the specification (ISO 32000) can see other objects, other filters and other bounds of a stream.
//! Here, both are done, and each difference that hides something is a finding. A JPEG, a fax and the like are pictures, which
//! libclamav scans as they are or not at all; that is no finding, unless the document uses them for something else ([`uses`]).

mod decryption;
mod dictionary;
mod document;
mod encryption;
mod filters;
mod parameters;
mod uses;
mod zlib;

use std::ops::Range;

use memchr::memmem;

use self::dictionary::{Dictionary, IMAGE, Reading, Token, is_space, next_token, skip_space, skip_value};
use self::document::{Object, Pdf, Stream, goes_on};
use self::filters::{is_decodable, same_filters};
use self::zlib::is_whole;
use super::Findings;
use super::deadline::Deadline;

/// How many different findings are kept.
const MOST_FINDINGS: usize = 16;

/// How much of a small thing is looked at: a number, a reference, the parameters of a filter.
const SMALL: usize = 4096;

/// Looks at a PDF, which may start anywhere in `bytes`.
pub(super) fn inspect(bytes: &[u8], deadline: &Deadline, found: &mut Findings) {
    let Some(document) = memmem::find(bytes, b"%PDF-").and_then(|start| bytes.get(start..)) else { return };
    let pdf = Pdf::parse(document, deadline, found);
    for object in &pdf.objects {
        if deadline.spend(object.value.len()).is_err() {
            return;
        }
        pdf.inspect_object(object, found);
    }
    if pdf.is_encrypted && !pdf.libclamav_knows {
        found.encrypted.push("PDF".to_owned());
    } else if pdf.is_encrypted && pdf.key().is_none() {
        report(found, "PDF with an unusual encryption");
    }
}

/// Notes what libclamav does not read, each but once.
fn report(found: &mut Findings, what: &str) {
    if found.unsupported.len() < MOST_FINDINGS && !found.unsupported.iter().any(|known| known == what) {
        found.unsupported.push(what.to_owned());
    }
}

impl Pdf<'_> {
    fn inspect_object(&self, object: &Object, found: &mut Findings) {
        let value = self.bytes.get(object.value.clone()).unwrap_or_default();
        let Some(stream) = self.stream(object) else {
            let end = match Dictionary::parse(value, 0) {
                Some(dictionary) => dictionary.end,
                None => {
                    let has_stream = memmem::find(value, b"stream").is_some();
                    if matches!(next_token(value, 0), Some((Token::Open, _))) && has_stream {
                        report(found, "PDF stream with a damaged dictionary");
                    }
                    skip_value(value, 0).unwrap_or(0)
                }
            };
            return look_for_objects(value.get(end..), found);
        };
        let behind = self.bytes.get(stream.data.end..object.value.end);
        look_for_objects(behind, found);
        if memmem::find(value, b"stream") != stream.keyword.checked_sub(object.value.start) || self.goes_on_behind(&stream) {
            report(found, "PDF stream with bounds that libclamav misses");
        }
        let data = self.bytes.get(stream.data.clone()).unwrap_or_default();
        if memmem::find_iter(data, b"obj").any(|at| opens_dictionary(data, at + b"obj".len())) {
            report(found, "PDF object inside another");
        }
        self.inspect_stream(object, &stream, data, found);
    }

    /// Whether the `/Length` shows that a stream has more data than libclamav takes, which stops at the first `endstream` or
    /// `endobj` (`pdf.c: find_stream_bounds`).
    fn goes_on_behind(&self, stream: &Stream) -> bool {
        let Range { start, end } = stream.data;
        let Some(length) = self.number(&stream.dictionary, b"Length") else {
            // It stands in an object stream, or nowhere. A compressed stream has an end of its own, and a picture is only looked at.
            let data = self.bytes.get(start..end).unwrap_or_default();
            return stream.is_truncated
                || match self.filters(&stream.dictionary).unwrap_or_default().first() {
                    Some(&"FlateDecode") => !is_whole(data, self.deadline),
                    first => first != Some(&IMAGE),
                };
        };
        let Some(real_end) = usize::try_from(length).ok().and_then(|length| start.checked_add(length)) else { return false };
        let behind = self.bytes.get(real_end..).unwrap_or_default();
        // Any number of objects can point at the same white space.
        let space = behind.iter().take(SMALL).take_while(|&&byte| is_space(byte)).count();
        if space == SMALL {
            return true;
        }
        let ends_there = behind.get(space..).is_some_and(|rest| rest.starts_with(b"endstream"));
        ends_there && (stream.is_truncated || real_end > end)
    }

    fn inspect_stream(&self, object: &Object, stream: &Stream, data: &[u8], found: &mut Findings) {
        let dictionary = &stream.dictionary;
        let filters = match self.filters(dictionary) {
            Ok(filters) if !dictionary.ambiguous => filters,
            Ok(_) => return report(found, "PDF stream with two filter entries"),
            Err(what) => return report(found, &what),
        };
        // The data are in another file. Some readers take it for the filter, as in a picture on a page.
        if dictionary.get(b"F").is_some() {
            return report(found, "PDF stream with data elsewhere");
        }
        let head = self.bytes.get(object.value.start..stream.keyword).unwrap_or_default();
        // libclamav's own search for the dictionary's end may run past it, into the data.
        let head_and_keyword = self.bytes.get(object.value.start..stream.keyword + b"stream".len());
        let Some(reading) = head_and_keyword.and_then(Reading::of) else {
            return report(found, "PDF stream with a dictionary that libclamav misses");
        };
        let is_packed_as_picture = filters.contains(&IMAGE);
        let mut kind = self.kind(dictionary, &filters, data);
        let is_file = || dictionary.is(self.bytes, b"Type", b"EmbeddedFile") || self.uses().contain(object.number);
        if (kind != Kind::Any || is_packed_as_picture) && is_file() {
            kind = Kind::Any;
            if is_packed_as_picture {
                return report(found, "PDF attachment that is packed as a picture");
            }
        }
        let is_table = kind == Kind::Table;
        if filters.contains(&"Crypt") && filters.len() > 1 {
            report(found, "PDF stream with the filter Crypt");
        } else if reading.strange || !same_filters(&filters, &reading.filters) {
            report(found, "PDF stream with filters that libclamav misses");
        } else if !reading.is_scanned() && !matches!(kind, Kind::Picture | Kind::Metadata) {
            let what =
                if reading.image { "PDF stream that passes for a picture" } else { "PDF stream with an unscanned filter" };
            report(found, what);
        } else if memmem::find(head, b"/XRef").is_some() != is_table && self.is_encrypted {
            report(found, "PDF stream that libclamav does not decrypt");
        } else if matches!(kind, Kind::Any | Kind::Metadata) && self.has_predictor(dictionary) {
            report(found, "PDF stream with a predictor");
        } else if kind != Kind::Picture && !is_decodable(&filters, Some(data).filter(|_| !self.is_encrypted)) {
            report(found, "PDF stream that libclamav cannot decode");
        } else if (kind == Kind::Picture || is_table && self.has_predictor(dictionary)) && !self.uses().is_complete {
            report(found, "PDF pictures beside objects that cannot be read");
        }
    }

    /// What a stream says that it is.
    fn kind(&self, dictionary: &Dictionary, filters: &[&str], data: &[u8]) -> Kind {
        if filters.first() == Some(&IMAGE) || is_image(self.bytes, dictionary) {
            Kind::Picture
        } else if filters == ["Crypt"]
            && dictionary.is(self.bytes, b"Type", b"Metadata")
            && data.starts_with(b"<")
            && self.parameters(dictionary, b"Name").is_some_and(|names| names.iter().all(|name| name == b"Identity"))
        {
            Kind::Metadata
        } else if dictionary.is(self.bytes, b"Type", b"XRef")
            && dictionary.get(b"W").is_some()
            // It is not encrypted, whatever else is.
            && (!self.is_encrypted || filters != ["FlateDecode"] || is_whole(data, self.deadline))
        {
            Kind::Table
        } else {
            Kind::Any
        }
    }
}

/// What a stream says that it is, as far as it matters: what is no such thing has to be unpacked and scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A picture, which libclamav leaves alone or scans as it is.
    Picture,
    /// A cross-reference table, which is shuffled before compression and never encrypted.
    Table,
    /// Metadata that are not encrypted with the rest: plain text, which is scanned with the whole file.
    Metadata,
    Any,
}

/// What is left of an object behind its value: another object in there is one that libclamav does not see.
fn look_for_objects(rest: Option<&[u8]>, found: &mut Findings) {
    if rest.is_some_and(|rest| memmem::find_iter(rest, b"obj").any(|at| !goes_on(rest, at + b"obj".len()))) {
        report(found, "PDF object inside another");
    }
}

fn opens_dictionary(bytes: &[u8], at: usize) -> bool {
    let bytes = bytes.get(..at.saturating_add(64).min(bytes.len())).unwrap_or_default();
    bytes.get(skip_space(bytes, at)..).is_some_and(|rest| rest.starts_with(b"<<"))
}

/// A picture has a width and a height (ISO 32000-1, table 89), and is no object stream.
fn is_image(bytes: &[u8], dictionary: &Dictionary) -> bool {
    dictionary.is(bytes, b"Subtype", b"Image")
        && dictionary.get(b"Width").is_some()
        && dictionary.get(b"Height").is_some()
        && dictionary.get(b"First").is_none()
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::super::pack::zlib;
    use super::*;

    fn unsupported(document: &[u8]) -> Vec<String> {
        let mut found = Findings::default();
        inspect(&[b"%PDF-1.5\n", document].concat(), &Deadline::far(), &mut found);
        assert_eq!((found.encrypted, found.expected), (vec![], vec![]));
        found.unsupported
    }

    fn stream(entries: &str, data: &[u8]) -> Vec<u8> {
        numbered(1, entries, data)
    }

    fn numbered(number: u64, entries: &str, data: &[u8]) -> Vec<u8> {
        let head = format!("{number} 0 obj\n<<{entries}/Length {}>>\nstream\n", data.len());
        [head.as_bytes(), data, b"\nendstream\nendobj\n"].concat()
    }

    #[test]
    fn ordinary_streams_are_no_finding() {
        let cases: &[(&str, &[u8])] = &[
            ("", b"1 0 0 1 0 0 cm"),
            ("/Filter/FlateDecode", b"\x78\x9c\x03\0"),
            ("/Filter [/ASCII85Decode /FlateDecode]", b"GhQ\n]~>"),
            ("/Filter/ASCIIHexDecode", b"00 ff>"),
            ("/Type/EmbeddedFile/Filter/RunLengthDecode", b"\x00a\x80"),
            ("/Type/Metadata/Filter[/Crypt]/DecodeParms[<</Name/Identity>>]", b"<xmp/>"),
            ("/Type/XObject/Subtype/Image/Width 1/Height 1/Filter/FlateDecode/DecodeParms<</Predictor 15>>", b"\x78\x9c\x03\0"),
            ("/Type/XObject/Subtype/Image/Width 1/Height 1/Filter/JPXDecode", b"jp2"),
            ("/Type/XRef/W[1 2 1]/Filter/FlateDecode/DecodeParms<</Predictor 12>>", b"\x78\x9c\x03\0"),
        ];
        for (entries, data) in cases {
            assert_eq!(unsupported(&stream(entries, data)), [""; 0], "{entries}");
        }
        assert_eq!(unsupported(b"2 0 obj (an obj\\)ect) endobj\n%% Original object ID: 3 0\n4 0 obj[1 0 R]endobj"), [""; 0]);
    }

    #[test]
    fn streams_that_libclamav_does_not_unpack() {
        let misses = "PDF stream with filters that libclamav misses";
        let fails = "PDF stream that libclamav cannot decode";
        let cases: &[(&str, &[u8], &str)] = &[
            ("/Filter/BrotliDecode", b"x", "PDF stream with the filter BrotliDecode"),
            ("/Filter 5 0 R", b"x", "PDF stream with a filter in another object"),
            ("/Filter[/Crypt/FlateDecode]", b"\x78\x9c\x03\0", "PDF stream with the filter Crypt"),
            ("/F/FlateDecode", b"\x78\x9c\x03\0", "PDF stream with data elsewhere"),
            ("/Filter/AHx/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream with two filter entries"),
            ("/X(>>)/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/P<</C <00> /S 1>>/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/DecodeParms<</Filter/DCTDecode>>/Filter/FlateDecode", b"\x78\x9c\x03\0", misses),
            ("/Filter/RunLengthDecode", b"\x00a\x80", "PDF stream with an unscanned filter"),
            ("/Filter[]", b"x", "PDF stream with an unscanned filter"),
            ("/Subtype/Image/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream that passes for a picture"),
            ("/Filter/FlateDecode/DecodeParms<</Predictor 12>>", b"\x78\x9c\x03\0", "PDF stream with a predictor"),
            ("/Filter/ASCIIHexDecode", b"00\n11>", fails),
            ("/Filter/ASCII85Decode", b"GhQ~\n>", fails),
            ("/Filter/FlateDecode", b"raw deflate", fails),
            ("/Filter/FlateDecode", b"\x78\x9c endstream endobj ", "PDF stream with bounds that libclamav misses"),
            ("/N(a stream)/Filter/FlateDecode", b"\x78\x9c\x03\0", "PDF stream with bounds that libclamav misses"),
        ];
        for (entries, data, what) in cases {
            assert_eq!(unsupported(&stream(entries, data)).first().map(String::as_str), Some(*what), "{entries} {data:?}");
        }
    }

    /// A picture by its own words.
    const PICTURE: &str = "/Subtype/Image/Width 1/Height 1/Filter/FlateDecode";

    #[test]
    fn an_attachment_passed_for_a_picture() -> io::Result<()> {
        let picture = stream(PICTURE, &zlib(b"MZ")?);
        let hidden = "PDF stream that passes for a picture";
        for (objects, what) in [
            ("2 0 obj<</XObject<</F 1 0 R>>>>endobj", None),
            ("2 0 obj<</EF<</F 1 0 R>>>>endobj", Some(hidden)),
            ("2 0 obj<</#45F<</UF 1 % 7\n0 R>>>>endobj", Some(hidden)),
            ("2 0 obj<</EF 3 0 R>>endobj 3 0 obj 4 0 R endobj 4 0 obj<</F 1 0 R>>endobj", Some(hidden)),
            ("2 0 obj<</EF 3 0 R>>endobj 3 0 obj<</F 1 0 R>>endobj 3 0 obj<<>>endobj", Some(hidden)),
            ("2 0 obj<</RF<</F[(a)1 0 R]>>>>endobj", Some(hidden)),
            ("2 0 obj<</S/Rendition/C<</D<</EF<</F 1 0 R>>>>>>>>endobj", Some(hidden)),
            ("2 0 obj<</XFA[(template)1 0 R]>>endobj", Some(hidden)),
            ("2 0 obj<</Length 0/EF<</F 1 0 R>>>>stream\nendstream endobj", Some(hidden)),
            ("2 0 obj<<>>endobj trailer<</Root<</EF<</F 1 0 R>>>>>>", Some(hidden)),
        ] {
            let document = [&picture[..], objects.as_bytes()].concat();
            assert_eq!(unsupported(&document).first().map(String::as_str), what, "{objects}");
        }
        Ok(())
    }

    #[test]
    fn an_attachment_passed_for_a_picture_by_an_object_stream() -> io::Result<()> {
        let picture = numbered(9, PICTURE, &zlib(b"MZ")?);
        let (hidden, unread) = ("PDF stream that passes for a picture", "PDF pictures beside objects that cannot be read");
        for (entries, content, what) in [
            ("/Type/ObjStm/N 2/First 8", &b"3 0 4 4 [12]<</EF<</F 9 0 R>>>>"[..], Some(hidden)),
            ("/Type/ObjStm/N 2/First 9", b"3 0 4 11 <</EF 4 0 R>><</F 9 0 R>>", Some(unread)),
            ("/Type/ObjStm/N 2/First 9", b"3 0 4 13 <</EF 4 0 R>><</F 9 0 R>>", Some(hidden)),
            ("/N 1/First 4", b"3 0 <</EF<</F 9 0 R>>>>", Some(hidden)),
            ("/Type/ObjStm/N 1/First 4", b"3 0 <</Im 9 0 R>>", None),
            ("/Type/ObjStm/N 2/First 4", b"3 0 <</Im 9 0 R>>", Some(unread)),
            ("/Type/ObjStm/First 4", b"3 0 <</Im 9 0 R>>", Some(unread)),
        ] {
            let objects = stream(&format!("{entries}/Filter/FlateDecode"), &zlib(content)?);
            let document = [&picture[..], &objects].concat();
            assert_eq!(unsupported(&document).first().map(String::as_str), what, "{entries} {content:?}");
        }
        let packed = [&picture[..], &stream("/N 1/First 4/Filter/ASCIIHexDecode", b"33 20 30 20 37>")].concat();
        assert_eq!(unsupported(&packed), [unread]);
        let alone = stream("/N 1/First 4/Filter/ASCIIHexDecode", b"33 20 30 20 37>");
        assert_eq!(unsupported(&alone), [""; 0], "without a picture it does not matter");
        Ok(())
    }

    #[test]
    fn an_attachment_passed_for_something_else() -> io::Result<()> {
        let named = b"2 0 obj<</EF<</F 1 0 R>>>>endobj";
        for (entries, data, what) in [
            ("/Filter/CCITTFaxDecode", b"x".to_vec(), "PDF attachment that is packed as a picture"),
            ("/Filter[/FlateDecode/DCTDecode]", zlib(b"x")?, "PDF attachment that is packed as a picture"),
            ("/Type/XRef/W[1 2 1]/Filter/FlateDecode/DP<</Predictor 12>>", zlib(b"x")?, "PDF stream with a predictor"),
            ("/Type/Metadata/Filter/Crypt", b"<".to_vec(), "PDF stream with an unscanned filter"),
            ("/Subtype/Image/Width 1/Height 1/First 4/N 1", zlib(b"x")?, "PDF stream that passes for a picture"),
        ] {
            let document = [&stream(entries, &data)[..], named].concat();
            assert_eq!(unsupported(&document).first().map(String::as_str), Some(what), "{entries}");
        }
        Ok(())
    }

    #[test]
    fn an_encrypted_document_keeps_attachments_from_libclamav() -> io::Result<()> {
        let end = "trailer<</Encrypt 5 0 R>>startxref\n0\n%%EOF";
        let entries = "/Filter/Standard/V 4/R 4/P -4/CF<</StdCF<</CFM/AESV2>>>>/StmF/StdCF";
        let standard = format!("{entries}/O<{0}>/U<{0}>", "00".repeat(32));
        let objects = stream("/Type/ObjStm/N 1/First 4/Filter/FlateDecode", b"?");
        let named_by_table = stream("/Type/XRef/W[1 2 1]/N 1/First 4/Filter/FlateDecode", &zlib(b"3 0 <</EF<</F 9 0 R>>>>")?);
        let packed_table = numbered(9, "/Type/XRef/W[1 2 1]/Filter/FlateDecode/DP<</Predictor 12>>", &zlib(b"?")?);
        for (filters, others, what) in [
            ("/EFF/StdCF", vec![], None),
            ("/EFF/Other", vec![], Some("PDF with attachments that are encrypted by themselves")),
            ("", vec![objects.clone()], None),
            ("", vec![objects, numbered(9, PICTURE, b"?")], Some("PDF pictures beside objects that cannot be read")),
            (
                "",
                vec![stream("/Type/XRef/W[1 2 1]/Filter/FlateDecode", b"?")],
                Some("PDF stream that libclamav does not decrypt"),
            ),
            ("", vec![stream("/Type/XRef/W[1 2 1]/Filter/FlateDecode", &zlib(b"?")?)], None),
            ("", vec![named_by_table, packed_table], Some("PDF pictures beside objects that cannot be read")),
            ("", vec![stream("/Filter/ASCIIHexDecode", b"00>")], Some("PDF stream that libclamav cannot decode")),
            (
                "",
                vec![stream("/Type/Metadata/Filter/Crypt/DecodeParms<</Name/StdCF>>", b"<")],
                Some("PDF stream with an unscanned filter"),
            ),
        ] {
            let document = [others.concat(), format!("5 0 obj<<{standard}{filters}>>endobj {end}").into_bytes()].concat();
            assert_eq!(unsupported(&document).first().map(String::as_str), what, "{filters}");
        }
        Ok(())
    }

    #[test]
    fn objects_that_libclamav_does_not_find() {
        for (document, what) in [
            ("1 0obj<<>>endobj", "PDF object with an unusual header"),
            ("1 0%\nobj<<>>endobj", "PDF object with an unusual header"),
            ("1 0 obj<</A 1>> 2 0 obj<</B 2>>endobj", "PDF object inside another"),
            ("1 0 obj<</Length 12>>stream\n2 0 obj<<>> \nendstream endobj", "PDF object inside another"),
        ] {
            assert_eq!(unsupported(document.as_bytes()), [what], "{document}");
        }
    }
}
