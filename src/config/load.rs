//! Merges file, environment and flags, and reports all mistakes at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::{Table, Value};

use super::Config;

/// What every environment variable of the configuration begins with.
const ENV_PREFIX: &str = "CLAMGATE_";

/// What is never shown; `*` stands for any name.
const SECRETS: [&str; 6] = [
    "http.admin_tokens",
    "http.tokens",
    "report.sinks.*.notify.api_key",
    "report.sinks.*.postgres.url",
    "report.sinks.*.webhook.headers",
    "report.sinks.*.webhook.secret",
];

/// Values from the command line, by dotted path (`definitions.dir`); they win over file and environment.
pub type Overrides = Vec<(&'static str, Value)>;

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigError(pub Vec<String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} mistake{}:", self.0.len(), if self.0.len() == 1 { "" } else { "s" })?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for ConfigError {}

/// Reads `file` if given, lays the environment's `CLAMGATE_SECTION__FIELD` over it and `overrides` over both.
///
/// A value in the environment is read as TOML (`4`, `true`, `["a"]`) where the field wants that, else as the text it is.
///
/// # Errors
///
/// Every unknown key, wrong type and impossible value, together.
pub fn load(
    file: Option<&Path>,
    environment: impl Iterator<Item = (String, String)>,
    overrides: Overrides,
) -> Result<Config, ConfigError> {
    let mut problems = Vec::new();
    let mut table = file.map_or_else(Table::new, |file| {
        read(file).unwrap_or_else(|problem| {
            problems.push(problem);
            Table::new()
        })
    });

    // Path -> the variable's name and raw text, for messages and for a second try as plain text.
    let mut from_environment = BTreeMap::new();
    for (name, text) in environment {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        if !path.contains("__") {
            // Kubernetes sets CLAMGATE_SERVICE_… and CLAMGATE_PORT_… beside a service of that name.
            let of_kubernetes = |path: &str| {
                path.ends_with("_SERVICE_HOST")
                    || path.ends_with("_PORT")
                    || path.contains("_PORT_")
                    || path.contains("_SERVICE_PORT")
            };
            if of_kubernetes(path) {
                continue;
            }
            let of_section = |section: &str| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('_'));
            let sections = ["DEFINITIONS", "SCAN", "LIMITS", "QUEUE", "ACTIONS", "REPORT", "LOG", "HTTP", "CLAMD"];
            if let Some(section) = sections.into_iter().find(|section| of_section(section)) {
                problems.push(format!("{name}: two underscores go between section and field ({ENV_PREFIX}{section}__…)"));
            }
            continue;
        }
        let path = path.to_lowercase().replace("__", ".");
        let typed = toml::from_str::<Table>(&format!("v = {text}")).ok().and_then(|mut parsed| parsed.remove("v"));
        let value =
            typed.filter(|value| !value.is_str() && !value.is_datetime()).unwrap_or_else(|| Value::String(text.clone()));
        if insert(&mut table, &path, value) {
            from_environment.insert(path, (name, text));
        } else {
            problems.push(format!("{name}: {path} is not a field"));
        }
    }
    for (path, value) in overrides {
        insert(&mut table, path, value);
        from_environment.remove(path);
    }

    let config = deserialize(table, from_environment, &mut problems);
    problems.extend(config.problems());
    if problems.is_empty() { Ok(config) } else { Err(ConfigError(problems)) }
}

fn read(file: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    // Without the line itself, which can hold a token.
    toml::from_str(&text).map_err(|error: toml::de::Error| {
        let line =
            error.span().map_or(1, |span| 1 + text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count());
        format!("{}, line {line}: {}", file.display(), first_line(error.message()))
    })
}

/// serde stops at the first mistake: note it, take the value out, and go on until the rest fits.
fn deserialize(
    mut table: Table,
    mut from_environment: BTreeMap<String, (String, String)>,
    problems: &mut Vec<String>,
) -> Config {
    loop {
        let error = match serde_path_to_error::deserialize::<_, Config>(Value::Table(table.clone())) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let path = error.path().to_string();
        let variable = from_environment.remove(&path);
        if let Some((_, text)) = &variable
            && !lookup(&table, &path).is_some_and(Value::is_str)
        {
            insert(&mut table, &path, Value::String(text.clone()));
            continue;
        }
        let origin = variable.map(|(name, _)| format!(" (from {name})")).unwrap_or_default();
        let text = error.inner().to_string();
        problems.push(format!(
            "{path}{origin}: {}",
            if touches_secrets(&path) { unquoted(&text) } else { first_line(&text).into() }
        ));
        if !remove(&mut table, &path) {
            return Config::default();
        }
    }
}

/// Whether the value at this path is a secret, lies in one or holds one: it may be a whole table that was written as a text.
fn touches_secrets(path: &str) -> bool {
    // A list's elements have paths such as `http.tokens[0]`.
    let parts = |path: &str| path.split(['.', '[']).map(str::to_owned).collect::<Vec<_>>();
    let path = parts(path);
    SECRETS.iter().any(|secret| parts(secret).iter().zip(&path).all(|(secret, part)| secret == "*" || secret == part))
}

/// What serde says of a value, without the value, which it quotes in these two cases.
fn unquoted(text: &str) -> Cow<'_, str> {
    if !text.starts_with("invalid ") {
        return first_line(text).into();
    }
    match text.rsplit_once(", expected ") {
        Some((_, expected)) => format!("is not what it must be: {}", first_line(expected)).into(),
        None => "is not what it must be".into(),
    }
}

/// Without toml's second line, which repeats the path.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn lookup<'table>(table: &'table Table, path: &str) -> Option<&'table Value> {
    match path.split_once('.') {
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
        None => table.get(path),
    }
}

/// Sets the value at a dotted path, making sections as needed; false if a part of the path is a value already.
fn insert(table: &mut Table, path: &str, value: Value) -> bool {
    match path.split_once('.') {
        Some((section, rest)) => match table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
            Value::Table(inner) => insert(inner, rest, value),
            _ => false,
        },
        None => {
            table.insert(path.to_owned(), value);
            true
        }
    }
}

/// Removes the value at a dotted path; false if there is none.
fn remove(table: &mut Table, path: &str) -> bool {
    match path.split_once('.') {
        Some((section, rest)) => match table.get_mut(section) {
            Some(Value::Table(inner)) => remove(inner, rest),
            Some(_) => table.remove(section).is_some(),
            None => false,
        },
        None => table.remove(path).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        variables.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect::<Vec<_>>().into_iter()
    }

    fn file(text: &str) -> std::io::Result<tempfile::NamedTempFile> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Ok(file)
    }

    #[test]
    fn flags_win_over_the_environment_and_the_environment_over_the_file() -> Result<(), Box<dyn Error>> {
        let file =
            file("[scan]\nthreads = 1\ntimeout_secs = 7\n[queue]\nurl = 'http://file/'\n[definitions]\ndir = '/file'\n")?;
        let config = load(
            Some(file.path()),
            environment(&[("CLAMGATE_SCAN__THREADS", "3"), ("CLAMGATE_DEFINITIONS__DIR", "/env"), ("PATH", "/bin")]),
            vec![("definitions.dir", Value::String("/flag".into()))],
        )?;
        assert_eq!((config.scan.threads, config.scan.timeout_secs), (3, 7));
        assert_eq!(config.queue.url.as_deref(), Some("http://file/"));
        assert_eq!(config.definitions.dir.to_str(), Some("/flag"));
        Ok(())
    }

    #[test]
    fn a_number_in_the_environment_can_be_a_name() -> Result<(), ConfigError> {
        let config = load(None, environment(&[("CLAMGATE_QUEUE__URL", "12345")]), vec![])?;
        assert_eq!(config.queue.url.as_deref(), Some("12345"));
        Ok(())
    }

    #[test]
    fn all_mistakes_are_reported_together() -> Result<(), Box<dyn Error>> {
        let file = file("nonsense = 1\n[scan]\nthreds = 2\nthreads = 'many'\n[actions]\npromote_to = 'bucket'\n")?;
        let variables = environment(&[
            ("CLAMGATE_QUEUE__WAIT_SECS", "21"),
            ("CLAMGATE_QUEUE__RECEIVERS", "some"),
            ("CLAMGATE_LIMITS__MAX_FILES", "0"),
            ("CLAMGATE_ACTIONS_QUARANTINE_TO", "s3://bad"),
            ("CLAMGATE_SERVICE_HOST", "10.0.0.1"),
        ]);
        let ConfigError(problems) = load(Some(file.path()), variables, vec![]).err().ok_or("no mistake was seen")?;
        for expected in [
            "nonsense",
            "threds",
            "scan.threads",
            "s3://bucket/prefix/",
            "wait_secs",
            "CLAMGATE_QUEUE__RECEIVERS",
            "max_files",
            "CLAMGATE_ACTIONS__",
        ] {
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected} in {problems:#?}");
        }
        assert_eq!(problems.len(), 8, "{problems:#?}");
        Ok(())
    }

    #[test]
    fn no_mistake_shows_a_password() -> Result<(), Box<dyn Error>> {
        let secret = "s3\"cret";
        for (name, value) in [
            ("SINKS", secret.to_owned()),
            ("SINKS__DB", format!("postgres://u:{secret}@h/d")),
            ("SINKS__DB__POSTGRES", format!("postgres://u:{secret}@h/d")),
            ("SINKS__DB__POSTGRES__URL", format!("mysql://u:{secret}@h/d")),
            ("SINKS__DB__POSTGRES__URL", format!("postgres://u:{secret}?@h/d")),
            ("SINKS__DB__POSTGRES__URL", format!("postgres://u:p@h/d?{secret}=1")),
            ("SINKS__DB__POSTGRES__URL", format!("postgres://u:p@h/d?port={secret}")),
            ("SINKS__DB__POSTGRES__URL", format!("postgres://%ff:{secret}@h/d")),
            ("SINKS__DB__POSTGRES__URL", format!("['{secret}']")),
        ] {
            let name = format!("CLAMGATE_REPORT__{name}");
            let error = load(None, environment(&[(&name, &value)]), vec![]).err().ok_or(value)?;
            let text = format!("{error} {error:?}");
            assert!(text.contains("report.sinks") && !text.contains("cret"), "{text}");
        }
        Ok(())
    }

    #[test]
    fn no_mistake_shows_a_secret() {
        let wrong = "no, expected hunter2hunter2";
        for (name, text) in [
            ("HTTP__TOKENS", wrong),
            ("REPORT__SINKS", wrong),
            ("REPORT__SINKS__A", wrong),
            ("REPORT__SINKS__A__WEBHOOK", wrong),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a.example/', secret = 'hunter2hunter2'"),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a.example/', secret = ['hunter2hunter2'] }"),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a.example/', secret = 'hunter2' }"),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a.example/', headers = { 'x y' = 'hunter2hunter2' } }"),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a.example/', headers = { x = ['hunter2hunter2'] } }"),
            ("REPORT__SINKS__A__WEBHOOK", "{ url = 'https://a:hunter2@a.example/' }"),
            ("REPORT__SINKS__A__NOTIFY__API_KEY", "hunter2hunter2"),
            ("REPORT__SINKS__A__NOTIFY", "{ template_id = 't', to = { address = 'a@b.example' }, api_key = 'hunter2hunter2' }"),
            (
                "REPORT__SINKS__A__NOTIFY",
                "{ template_id = 't', to = { address = 'a@b.example' }, api_key = { x = 'hunter2' } }",
            ),
        ] {
            let name = format!("CLAMGATE_{name}");
            let error = load(None, environment(&[(&name, text)]), vec![]).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{name}={text} is no mistake"));
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_printed_configuration_can_be_read_again() -> Result<(), Box<dyn Error>> {
        let file = file(&toml::to_string(&Config::default())?)?;
        assert_eq!(load(Some(file.path()), environment(&[]), vec![])?, Config::default());
        Ok(())
    }
}
