//! `[report.sinks.NAME.postgres]`: a table in PostgreSQL.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use super::super::Secret;

/// The parameters of a connection URL that have a meaning here, by their names in libpq
/// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS>).
const PARAMETERS: [&str; 12] = [
    "application_name",
    "dbname",
    "host",
    "hostaddr",
    "options",
    "password",
    "port",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslrootcert",
    "user",
];

/// `[report.sinks.NAME.postgres]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSinkConfig {
    /// `postgres://user:password@host:port/database`, perhaps with libpq's parameters. Without `sslmode`, the server's certificate and
    /// name are verified, but for a server on this machine.
    pub url: Secret,
    /// The schema of the table; it must exist. When unset, the account's search path decides, which most often is `public`.
    pub schema: Option<String>,
    /// How many connections may be open at once.
    pub max_connections: u32,
    /// The certificates (PEM) of further authorities that may have signed the server's certificate, beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Whether the table is made and kept up to date. If not, somebody else does so.
    pub migrate: bool,
}

impl Default for PostgresSinkConfig {
    fn default() -> Self {
        Self { url: Secret::default(), schema: None, max_connections: 4, ca_file: None, migrate: true }
    }
}

impl PostgresSinkConfig {
    /// How to connect: what the URL says, and TLS that is verified unless the URL says otherwise or the server is on this machine.
    ///
    /// # Errors
    ///
    /// What is wrong, as the end of a sentence about this section, and without any part of the URL: it holds a password.
    pub fn connect_options(&self) -> Result<PgConnectOptions, &'static str> {
        let url = Url::parse(self.url.reveal()).map_err(|_| {
            ".url must be postgres://user:password@host:port/database; special characters in user and password are written as %XX"
        })?;
        if !["postgres", "postgresql"].contains(&url.scheme()) {
            return Err(".url must begin with postgres://");
        }
        let parameter = |wanted: &str| url.query_pairs().any(|(name, _)| name == wanted);
        if !url.query_pairs().all(|(name, _)| PARAMETERS.contains(&&*name)) {
            return Err(".url has a parameter that is not known; those of libpq for host, user, database and TLS are");
        }
        if url.host_str().is_none_or(str::is_empty) && !parameter("host") && !parameter("hostaddr") {
            return Err(".url must name a host");
        }
        let options: PgConnectOptions =
            url.as_str().parse().map_err(|_| ".url has a parameter with a value that cannot be used")?;

        let host = options.get_host();
        let is_socket = options.get_socket().is_some() || host.starts_with('/');
        let is_local = host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let has_ca = self.ca_file.is_some() || parameter("sslrootcert");
        let mode = match (parameter("sslmode"), is_socket) {
            (_, true) => PgSslMode::Disable,
            (true, false) => options.get_ssl_mode(),
            (false, false) if is_local && !has_ca => PgSslMode::Prefer,
            (false, false) => PgSslMode::VerifyFull,
        };
        if has_ca && !matches!(mode, PgSslMode::VerifyCa | PgSslMode::VerifyFull) {
            return Err(" has a file of authorities that nothing is verified with: leave sslmode out of the url, or make it \
                        verify-full; a Unix socket needs none");
        }
        let name = options.get_application_name().unwrap_or("clamgate").to_owned();
        let options = options.ssl_mode(mode).application_name(&name);
        let options = self.ca_file.iter().fold(options, |options, file| options.ssl_root_cert(file));
        // Poolers refuse a connection that asks for extra_float_digits, and the statements are always the same.
        Ok(options.extra_float_digits(None).disable_statement_logging())
    }

    /// What cannot work, each as the end of a sentence about this section.
    pub(in crate::config) fn problems(&self) -> Vec<&'static str> {
        let mut problems: Vec<_> = self.connect_options().err().into_iter().collect();
        let is_name = |name: &String| {
            (1..=63).contains(&name.len())
                && !name.starts_with(|first: char| first.is_ascii_digit())
                && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        if !self.schema.as_ref().is_none_or(is_name) {
            problems.push(".schema must be made of a-z, 0-9 and _, at most 63, and not begin with a digit");
        }
        if !(1..=100).contains(&self.max_connections) {
            problems.push(".max_connections must be between 1 and 100");
        }
        problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> PostgresSinkConfig {
        let table = toml::Table::from_iter([("url".to_owned(), toml::Value::String(url.to_owned()))]);
        table.try_into().unwrap_or_default()
    }

    #[test]
    fn tls_is_verified_unless_the_url_says_otherwise_or_the_server_is_here() {
        for (url, ca_file, expected) in [
            ("postgres://u:p@db.example.com/d", None, Ok("VerifyFull")),
            ("postgres://u:p@db.example.com/d", Some("ca.pem"), Ok("VerifyFull")),
            ("postgresql://u:p@10.0.0.1:5433/d", None, Ok("VerifyFull")),
            ("postgres://u:p@db.example.com/d?sslmode=require", None, Ok("Require")),
            ("postgres://u:p@db.example.com/d?sslmode=disable", None, Ok("Disable")),
            ("postgres://u:p@db.example.com/d?sslmode=verify-ca", Some("ca.pem"), Ok("VerifyCa")),
            ("postgres://u:p@db.example.com/d?sslrootcert=ca.pem", None, Ok("VerifyFull")),
            ("postgres://u:p@localhost/d", None, Ok("Prefer")),
            ("postgres://u:p@127.0.0.2/d", None, Ok("Prefer")),
            ("postgres://u:p@[::1]/d", None, Ok("Prefer")),
            ("postgres://u:p@localhost/d", Some("ca.pem"), Ok("VerifyFull")),
            ("postgres://u:p@localhost.example.com/d", None, Ok("VerifyFull")),
            ("postgres://u:p@localhost/d?host=db.example.com", None, Ok("VerifyFull")),
            ("postgres://u@%2Frun%2Fpostgresql/d?sslmode=verify-full", None, Ok("Disable")),
            ("postgres:///d?host=/run/postgresql", None, Ok("Disable")),
            ("postgres://u:p@db.example.com/d?sslmode=require", Some("ca.pem"), Err(" has a file of authorities")),
            ("postgres:///d?host=/run/postgresql", Some("ca.pem"), Err(" has a file of authorities")),
            ("postgres://u:p@db.example.com/d?sslmode=maybe", None, Err(".url has a parameter with a value")),
            ("postgres://u:p@db.example.com/d?sslmod=require", None, Err(".url has a parameter that is not known")),
            ("postgres:///d", None, Err(".url must name a host")),
            ("mysql://u:p@db.example.com/d", None, Err(".url must begin with")),
            ("postgres://u:p?w@db.example.com/d", None, Err(".url must be")),
            ("", None, Err(".url must be")),
        ] {
            let config = PostgresSinkConfig { ca_file: ca_file.map(Into::into), ..config(url) };
            let found = config.connect_options().map(|options| format!("{:?}", options.get_ssl_mode()));
            match expected {
                Ok(mode) => assert_eq!(found.as_deref(), Ok(mode), "{url} {ca_file:?}"),
                Err(text) => assert!(found.as_ref().is_err_and(|error| error.starts_with(text)), "{url}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_schema_is_a_plain_name() {
        for (schema, fits) in [("scans", true), ("_s1", true), ("", false), ("1s", false), ("a\"b", false), ("A", false)] {
            let config = PostgresSinkConfig { schema: Some(schema.into()), ..config("postgres://h/d") };
            assert_eq!(config.problems().is_empty(), fits, "{schema}");
        }
        assert!(!PostgresSinkConfig { max_connections: 0, ..config("postgres://h/d") }.problems().is_empty());
    }
}
