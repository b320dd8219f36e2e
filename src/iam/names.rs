//! ARNs and the parts that they are made of.

use url::Url;

use super::IamError;

/// One of AWS's separate clouds
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partition {
    Aws,
    China,
    UsGov,
}

impl Partition {
    pub(super) fn of(region: Option<&str>) -> Self {
        match region {
            Some(region) if region.starts_with("cn-") => Self::China,
            Some(region) if region.starts_with("us-gov-") => Self::UsGov,
            _ => Self::Aws,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::China => "aws-cn",
            Self::UsGov => "aws-us-gov",
        }
    }
}

/// The ARN of the queue with this URL, and its partition. `region` is for URLs that name none.
pub(super) fn queue_arn(url: &str, region: Option<&str>) -> Result<(String, Partition), IamError> {
    let wrong = || IamError::QueueUrl(url.to_owned());
    let parsed = Url::parse(url).map_err(|_| wrong())?;
    let path: Vec<&str> = parsed.path().trim_matches('/').split('/').collect();
    let [account, name] = path[..] else { return Err(wrong()) };
    let is_account = !account.is_empty() && account.bytes().all(|byte| byte.is_ascii_digit());
    // A queue's name has these characters alone: nothing in it can widen the policy.
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if !is_account || name.is_empty() || !name.chars().all(is_name) {
        return Err(wrong());
    }
    let host = parsed.host_str().unwrap_or_default();
    let named = host.split('.').find(|label| is_region(label));
    // The oldest form, of the first region.
    let named = named.or((host == "queue.amazonaws.com").then_some("us-east-1"));
    let region = named.or(region).ok_or_else(|| IamError::Region(url.to_owned()))?;
    let partition = Partition::of(Some(region));
    Ok((format!("arn:{}:sqs:{region}:{account}:{name}", partition.name()), partition))
}

/// `eu-west-2`, `us-gov-west-1`: letters, words between hyphens, a number.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let Some((number, words)) = parts.split_last() else { return false };
    let is_word = |word: &&str| (2..=10).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_lowercase());
    words.len() >= 2 && words.iter().all(is_word) && number.len() == 1 && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether this can be a bucket's name: nothing in it means anything in an ARN.
pub(super) fn is_bucket(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    (3..=63).contains(&name.len()) && name.bytes().all(allowed)
}

/// A text in a resource's ARN that stands for itself
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>).
pub(super) fn literal(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '*' | '?' | '$' => out.extend(['$', '{', c, '}']),
            _ => out.push(c),
        }
        out
    })
}

/// A name as a part of a `Sid`, which has letters and digits alone.
pub(super) fn sid(name: &str) -> String {
    let mut upper = true;
    let mut out = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => {
                out.push(if upper { c.to_ascii_uppercase() } else { c });
                upper = false;
            }
            _ => upper = true,
        }
    }
    out
}

/// A KMS key as a policy can name it.
pub(super) enum Key {
    Arn(String),
    /// Keys are not known by their aliases in an ARN: all keys there, on the condition of the alias.
    Alias {
        keys: String,
        alias: String,
    },
}

/// What `actions.kms_key_id` means: the ARN of a key or of an alias, the id of a key, or an alias.
pub(super) fn key(id: &str, partition: Partition) -> Key {
    let place = |rest| format!("arn:{}:kms:*:*:{rest}", partition.name());
    if let Some((place, alias)) = id.split_once(":alias/") {
        return Key::Alias { keys: format!("{place}:key/*"), alias: format!("alias/{alias}") };
    }
    match id {
        _ if id.starts_with("alias/") => Key::Alias { keys: place("key/*".to_owned()), alias: id.to_owned() },
        _ if id.starts_with("arn:") => Key::Arn(id.to_owned()),
        _ => Key::Arn(place(format!("key/{}", literal(id)))),
    }
}

/// Whether this is the ARN of one KMS key.
pub(super) fn is_key_arn(text: &str) -> bool {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-';
    matches!(parts[..], ["arn", partition, "kms", region, account, key]
        if partition.starts_with("aws")
            && is_region(region)
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && key.strip_prefix("key/").is_some_and(|id| !id.is_empty() && id.chars().all(allowed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues() {
        for (url, region, expected) in [
            ("https://sqs.eu-west-2.amazonaws.com/123/q.fifo", None, Some("arn:aws:sqs:eu-west-2:123:q.fifo")),
            ("https://eu-west-2.queue.amazonaws.com/123/q", None, Some("arn:aws:sqs:eu-west-2:123:q")),
            ("https://queue.amazonaws.com/123/q", None, Some("arn:aws:sqs:us-east-1:123:q")),
            ("https://sqs-fips.us-gov-east-1.amazonaws.com/123/q", None, Some("arn:aws-us-gov:sqs:us-gov-east-1:123:q")),
            ("https://sqs.eu-west-2.api.aws/123/q", None, Some("arn:aws:sqs:eu-west-2:123:q")),
            ("https://vpce-0a-1b.sqs.eu-west-2.vpce.amazonaws.com/123/q", None, Some("arn:aws:sqs:eu-west-2:123:q")),
            ("http://127.0.0.1:4566/000000000000/q", Some("eu-west-1"), Some("arn:aws:sqs:eu-west-1:000000000000:q")),
            ("http://127.0.0.1:4566/000000000000/q", None, None),
            ("https://sqs.eu-west-2.amazonaws.com/123/*", None, None),
            ("https://sqs.eu-west-2.amazonaws.com/*/q", None, None),
            ("https://sqs.eu-west-2.amazonaws.com/q", None, None),
            ("q", None, None),
        ] {
            let found = queue_arn(url, region).map(|(arn, _)| arn).ok();
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn key_ids() {
        let shown = |id: &str| match key(id, Partition::Aws) {
            Key::Arn(arn) => arn,
            Key::Alias { keys, alias } => format!("{keys} {alias}"),
        };
        let arn = "arn:aws:kms:eu-west-2:1:key/k";
        assert_eq!(shown(arn), arn);
        assert_eq!(shown("k-1"), "arn:aws:kms:*:*:key/k-1");
        assert_eq!(shown("alias/a"), "arn:aws:kms:*:*:key/* alias/a");
        assert_eq!(shown("arn:aws:kms:eu-west-2:1:alias/a"), "arn:aws:kms:eu-west-2:1:key/* alias/a");
        for (text, expected) in [
            (arn, true),
            ("arn:aws:kms:eu-west-2:1:key/*", false),
            ("arn:aws:kms:*:1:key/k", false),
            ("arn:aws:s3:::b", false),
            ("k", false),
        ] {
            assert_eq!(is_key_arn(text), expected, "{text}");
        }
    }

    #[test]
    fn what_stands_for_itself() {
        assert_eq!(literal("a*b?${c}/"), "a${*}b${?}${$}{c}/");
        assert_eq!(sid("my-own_queue2"), "MyOwnQueue2");
    }
}
