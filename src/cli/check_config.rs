//! `clamgate check-config`: the configuration in effect, as TOML, or the IAM policy that it needs.

use std::process::ExitCode;

use clap::Args;

use super::{OK, usage};
use crate::config::Config;
use crate::iam::{self, Scope};
use crate::report::POSTGRES_SCHEMA;

/// What is printed.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Print the least-privilege IAM policy that `serve` needs with this configuration (JSON).
    #[arg(long)]
    iam_policy: bool,
    /// A bucket that objects are uploaded to, for the policy: the configuration need not name it. May be given more than once.
    #[arg(long = "bucket", value_name = "NAME", requires = "iam_policy")]
    buckets: Vec<String>,
    /// The ARN of a KMS key that encrypts uploads or the queue's messages, for the policy. May be given more than once.
    #[arg(long = "kms-key", value_name = "ARN", requires = "iam_policy")]
    kms_keys: Vec<String>,
    /// Print the SQL that makes the table of a PostgreSQL sink with migrate = false.
    #[arg(long, conflicts_with = "iam_policy")]
    postgres_schema: bool,
}

/// Prints the merged configuration, which has been checked by now, without its secrets; or what was asked for instead.
#[must_use]
pub fn run(config: &Config, arguments: &Arguments) -> ExitCode {
    if arguments.postgres_schema {
        print!("{POSTGRES_SCHEMA}");
        return ExitCode::from(OK);
    }
    if arguments.iam_policy {
        return policy(config, arguments);
    }
    match toml::to_string(config) {
        Ok(text) => {
            print!("{text}");
            ExitCode::from(OK)
        }
        Err(error) => usage(&error),
    }
}

fn policy(config: &Config, arguments: &Arguments) -> ExitCode {
    let region = ["AWS_REGION", "AWS_DEFAULT_REGION"].into_iter().find_map(|name| std::env::var(name).ok());
    let scope = Scope { buckets: arguments.buckets.clone(), kms_keys: arguments.kms_keys.clone(), region };
    let policy = match iam::policy(config, &scope) {
        Ok(policy) => policy,
        Err(error) => return usage(&error),
    };
    match serde_json::to_string_pretty(&policy) {
        Ok(text) => {
            println!("{text}");
            let buckets = iam::buckets(config, &scope).unwrap_or_default();
            eprintln!("uploads are read from: {}; more with --bucket", buckets.join(", "));
            ExitCode::from(OK)
        }
        Err(error) => usage(&error),
    }
}
