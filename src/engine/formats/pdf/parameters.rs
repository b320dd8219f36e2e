//! The parameters of a stream's filters (`/DecodeParms`), as far as they hide its content.

use std::ops::Range;

use super::SMALL;
use super::dictionary::{Dictionary, Token, next_token, skip_space};
use super::document::Pdf;

impl Pdf<'_> {
    /// Whether the bytes are shuffled before compression (`/Predictor`), which libclamav does not undo (`pdfdecode.c`).
    pub(super) fn has_predictor(&self, dictionary: &Dictionary) -> bool {
        self.parameters(dictionary, b"Predictor").is_none_or(|values| values.iter().any(|value| value != b"1"))
    }

    /// The values of an entry in the parameters of all filters, names without their slash. `None` if there may be others.
    pub(super) fn parameters(&self, dictionary: &Dictionary, key: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut values = Vec::new();
        for parameters in [b"DecodeParms".as_slice(), b"DP"].into_iter().filter_map(|key| dictionary.get(key)) {
            for number in self.read_parameters(parameters, key, &mut values)? {
                let mut is_there = false;
                for object in self.objects(number) {
                    // Any number of streams can point at the same object.
                    let value = object.value.clone();
                    if value.len() > SMALL || !self.read_parameters(value, key, &mut values)?.is_empty() {
                        return None;
                    }
                    is_there = true;
                }
                // It stands in an object stream, or nowhere.
                if !is_there {
                    return None;
                }
            }
        }
        Some(values)
    }

    /// Collects the values of an entry, and gives the numbers of the objects that are referred to.
    fn read_parameters(&self, place: Range<usize>, key: &[u8], values: &mut Vec<Vec<u8>>) -> Option<Vec<u64>> {
        let text = self.bytes.get(place)?;
        let mut references = Vec::new();
        let mut words = [None; 2];
        let mut at = 0;
        while skip_space(text, at) < text.len() {
            let (token, end) = next_token(text, at)?;
            at = end;
            let word = match &token {
                Token::Word(word) => text.get(word.clone()),
                _ => None,
            };
            if word == Some(b"R") {
                references.push(std::str::from_utf8(words[0]?).ok()?.parse().ok()?);
            }
            words = [words[1], word];
            if token == Token::Name(key.into()) {
                let value = match next_token(text, at)? {
                    // Behind another word it is the number of an object.
                    (Token::Word(_), end) if matches!(next_token(text, end), Some((Token::Word(_), _))) => return None,
                    (Token::Word(word), _) => text.get(word)?.to_vec(),
                    (Token::Name(name), _) => name.into_owned(),
                    _ => return None,
                };
                values.push(value);
            }
        }
        Some(references)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Deadline;
    use super::*;
    use crate::engine::formats::Findings;

    #[test]
    fn a_predictor_hid_in_the_parameters() {
        for (parameters, is_hidden) in [
            ("/DecodeParms<</Predictor 1>>", false),
            ("/DecodeParms[null<</Columns 2/Predictor 12>>]", true),
            ("/DecodeParms[<</Predictor 1>><</Predictor 12>>]", true),
            ("/DecodeParms<<>>/DP<</Predictor 12>>", true),
            ("/DecodeParms<</Predictor 2 0 R>>", true),
            ("/DecodeParms<</Predictor 1 0 R>>", true),
            ("/DecodeParms<</Predictor 1/Columns 2 0 R>>", true),
            ("/DecodeParms<</Predictor 1/Columns 4 0 R>>", false),
            ("/DecodeParms 2 0 R", true),
            ("/DecodeParms[3 0 R]", false),
            ("/DecodeParms[3 0 R 2 0 R]", true),
            ("/DecodeParms 9 0 R", true),
        ] {
            let stream = format!("1 0 obj<</Filter/FlateDecode{parameters}/Length 0>>stream\nendstream endobj ");
            let objects = "2 0 obj<</Predictor 12>>endobj 3 0 obj<</Predictor 1>>endobj 4 0 obj 12 endobj";
            let document = [stream.as_str(), objects].concat();
            let (deadline, mut found) = (Deadline::far(), Findings::default());
            let pdf = Pdf::parse(document.as_bytes(), &deadline, &mut found);
            let stream = pdf.stream(&pdf.objects[0]);
            let found_hidden = stream.map(|stream| pdf.has_predictor(&stream.dictionary));
            assert_eq!(found_hidden, Some(is_hidden), "{parameters}");
        }
    }
}
