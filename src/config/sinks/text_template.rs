//! Texts with `{placeholders}`.

/// A text with `{placeholders}`; `{{` and `}}` stand for braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTemplate(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Placeholder(String),
}

impl TextTemplate {
    /// Takes a template apart.
    ///
    /// # Errors
    ///
    /// When a brace has no partner.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain, mut rest) = (Vec::new(), String::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(behind) = brace.strip_prefix("{{") {
                plain.push('{');
                rest = behind;
            } else if let Some(behind) = brace.strip_prefix("}}") {
                plain.push('}');
                rest = behind;
            } else {
                let inner = brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
                let (name, behind) = inner
                    .filter(|(name, _)| !name.contains(['{', '\n']))
                    .ok_or("has a brace without a partner: placeholders are {like_this}, and {{ and }} stand for braces")?;
                parts.push(Part::Text(std::mem::take(&mut plain)));
                parts.push(Part::Placeholder(name.to_owned()));
                rest = behind;
            }
        }
        plain.push_str(rest);
        parts.push(Part::Text(plain));
        Ok(Self(parts))
    }

    /// The names of its placeholders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Placeholder(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// The text with values in place of the placeholders. What is in a value is not looked at again.
    #[must_use]
    pub fn fill(&self, value: impl Fn(&str) -> String) -> String {
        let texts = self.0.iter().map(|part| match part {
            Part::Text(text) => text.clone(),
            Part::Placeholder(name) => value(name),
        });
        texts.collect()
    }

    /// Why the text is no template with these placeholders alone, if so.
    pub(super) fn problem(text: &str, is_known: impl Fn(&str) -> bool) -> Option<String> {
        match Self::parse(text) {
            Ok(template) => template
                .names()
                .find(|name| !is_known(name))
                .map(|name| format!("has a placeholder that nothing fills: {{{name}}}")),
            Err(problem) => Some(problem),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_once() {
        for (text, filled) in [
            ("", Some("")),
            ("none", Some("none")),
            ("{a}", Some("<a>")),
            ("x{a}y{b-c}{a}z", Some("x<a>y<b-c><a>z")),
            ("{{a}} {a}", Some("{a} <a>")),
            ("{", None),
            ("a}", None),
            ("{a", None),
            ("{a{b}", None),
        ] {
            let found = TextTemplate::parse(text).ok().map(|template| template.fill(|name| format!("<{name}>")));
            assert_eq!(found.as_deref(), filled, "{text}");
        }
        let template = TextTemplate::parse("{a}");
        assert_eq!(template.map(|template| template.fill(|_| "{a}".to_owned())).as_deref(), Ok("{a}"));
    }
}
