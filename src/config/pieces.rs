//! Takes texts with `{placeholders}` apart.

/// A piece of such a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'text> {
    /// Text that stands for itself, never empty.
    Literal(&'text str),
    /// What is between braces: any text without `}`, which may be no name at all.
    Placeholder(&'text str),
}

/// What is wrong with a brace that stands alone, or with its counterpart missing.
const LONE_BRACE: &str = "a brace without its counterpart: placeholders are written {like_this}";

/// The pieces of a text, in their order. An error is the last of them.
pub(super) fn pieces(text: &str) -> impl Iterator<Item = Result<Piece<'_>, &'static str>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (literal, braced) = rest.split_at(rest.find(['{', '}']).unwrap_or(rest.len()));
        if !literal.is_empty() {
            rest = braced;
            return Some(Ok(Piece::Literal(literal)));
        }
        let placeholder = braced.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        rest = placeholder.map_or("", |(_, after)| after);
        Some(placeholder.map(|(name, _)| Piece::Placeholder(name)).ok_or(LONE_BRACE))
    })
}

#[cfg(test)]
mod tests {
    use super::Piece::{Literal, Placeholder};
    use super::*;

    #[test]
    fn texts_are_taken_apart() {
        for (text, expected) in [
            ("", &[][..]),
            ("a", &[Ok(Literal("a"))]),
            ("{a}", &[Ok(Placeholder("a"))]),
            ("é{a}{b}/", &[Ok(Literal("é")), Ok(Placeholder("a")), Ok(Placeholder("b")), Ok(Literal("/"))]),
            ("{}", &[Ok(Placeholder(""))]),
            ("{{a}", &[Ok(Placeholder("{a"))]),
            ("{{a}}", &[Ok(Placeholder("{a")), Err(LONE_BRACE)]),
            ("a{", &[Ok(Literal("a")), Err(LONE_BRACE)]),
            ("a}b{c}", &[Ok(Literal("a")), Err(LONE_BRACE)]),
        ] {
            assert_eq!(pieces(text).collect::<Vec<_>>(), expected, "{text}");
        }
    }
}
