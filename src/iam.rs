//! The least that the service must be allowed in AWS, as an IAM policy made from the configuration. Pure: nothing is asked of
//! AWS.

mod names;

use serde::Serialize;

use crate::config::{ActionsConfig, Condition, Config, Destination, Disposal, Location, Recipient, SinkKind, Value};
use names::{Partition, literal, queue_arn};

/// What the configuration does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scope {
    /// The buckets that objects are uploaded to, besides those that the configuration names.
    pub buckets: Vec<String>,
    /// The ARNs of the KMS keys that the uploads and the queue's messages are encrypted with.
    pub kms_keys: Vec<String>,
    /// The region, for queues whose URL does not name it.
    pub region: Option<String>,
}

/// An IAM policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    /// What is allowed.
    pub statement: Vec<Statement>,
}

/// What is allowed on some resources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    /// What it is for.
    pub sid: String,
    effect: &'static str,
    /// The actions, sorted.
    pub action: Vec<&'static str>,
    /// The ARNs, sorted.
    pub resource: Vec<String>,
    /// When it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<serde_json::Value>,
}

/// Why there is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IamError {
    /// Nothing names an upload bucket.
    #[error("no upload bucket is known: name each with --bucket")]
    NoBucket,
    /// That is no bucket's name.
    #[error("{0:?} is not the name of a bucket: 3 to 63 of a-z, 0-9, - and . (without s3:// and prefix)")]
    Bucket(String),
    /// That is no KMS key's ARN.
    #[error("{0:?} is not the ARN of a KMS key, such as arn:aws:kms:eu-west-2:123456789012:key/…")]
    KmsKey(String),
    /// That is no SQS queue's URL.
    #[error(
        "cannot make an ARN from {0:?}: a queue's URL ends in /ACCOUNT/NAME, as in \
         https://sqs.eu-west-2.amazonaws.com/123456789012/uploads"
    )]
    QueueUrl(String),
    /// Neither the queue's URL nor anything else tells the region.
    #[error("cannot tell the region of {0:?}: set AWS_REGION")]
    Region(String),
}

/// The upload buckets that are known, sorted.
///
/// # Errors
///
/// [`IamError::NoBucket`], [`IamError::Bucket`].
pub fn buckets(config: &Config, scope: &Scope) -> Result<Vec<String>, IamError> {
    let filters = config.queue.filters.iter().filter_map(|rule| rule.bucket.as_ref());
    let api: &[String] = if config.http.enabled { &config.http.s3_buckets } else { &[] };
    let rules = config.actions.rules.iter().filter_map(|rule| rule.bucket.as_ref());
    let mut buckets: Vec<String> = scope.buckets.iter().chain(filters).chain(rules).chain(api).cloned().collect();
    buckets.sort();
    buckets.dedup();
    match buckets.iter().find(|name| !names::is_bucket(name)) {
        Some(wrong) => Err(IamError::Bucket(wrong.clone())),
        None if buckets.is_empty() => Err(IamError::NoBucket),
        None => Ok(buckets),
    }
}

/// What `clamgate serve` needs with this configuration, and nothing else.
///
/// # Errors
///
/// [`IamError`], which says what to add.
pub fn policy(config: &Config, scope: &Scope) -> Result<Policy, IamError> {
    let buckets = buckets(config, scope)?;
    let region = scope.region.as_deref();
    let queue = config.queue.url.as_deref().map(|url| queue_arn(url, region)).transpose()?;
    let partition = queue.as_ref().map_or_else(|| Partition::of(region), |(_, partition)| *partition);
    let mut policy = Builder { partition, statements: Vec::new() };
    if let Some((arn, _)) = queue {
        policy.allow(
            "Queue",
            &["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"],
            vec![arn],
        );
    }
    policy.uploads(config, &buckets);
    policy.destinations(config, &buckets);
    policy.outbox(config);
    policy.sinks(config, region)?;
    policy.keys(config, scope)?;
    Ok(Policy { version: "2012-10-17", statement: policy.statements })
}

/// Where objects are moved to.
fn destinations(actions: &ActionsConfig) -> Vec<Location> {
    actions.destinations().map(Destination::root).collect()
}

struct Builder {
    partition: Partition,
    statements: Vec<Statement>,
}

impl Builder {
    fn allow(&mut self, sid: &str, actions: &[&'static str], resources: Vec<String>) {
        self.allow_if(sid, actions, resources, None);
    }

    fn allow_if(
        &mut self,
        sid: &str,
        actions: &[&'static str],
        mut resources: Vec<String>,
        condition: Option<serde_json::Value>,
    ) {
        resources.sort();
        resources.dedup();
        let mut actions = actions.to_vec();
        actions.sort_unstable();
        if !actions.is_empty() && !resources.is_empty() {
            let sid = sid.to_owned();
            self.statements.push(Statement { sid, effect: "Allow", action: actions, resource: resources, condition });
        }
    }

    fn bucket_arns<'b>(&self, buckets: impl IntoIterator<Item = &'b str>) -> Vec<String> {
        buckets.into_iter().map(|bucket| format!("arn:{}:s3:::{bucket}", self.partition.name())).collect()
    }

    fn object_arns<'l>(&self, places: impl IntoIterator<Item = &'l Location>) -> Vec<String> {
        let arn = |place: &Location| format!("arn:{}:s3:::{}/{}*", self.partition.name(), place.bucket, literal(&place.prefix));
        places.into_iter().map(arn).collect()
    }

    /// The ARN of something whose account the configuration does not name.
    fn regional_arn(&self, service: &str, region: Option<&str>, name: &str) -> String {
        format!("arn:{}:{service}:{}:*:{name}", self.partition.name(), region.unwrap_or("*"))
    }

    /// Reading, tagging and removing uploads.
    fn uploads(&mut self, config: &Config, buckets: &[String]) {
        let actions = &config.actions;
        let mut needed = vec!["s3:GetObject", "s3:GetObjectVersion"];
        let tags = actions.tag || config.queue.filters.iter().any(|rule| rule.tag);
        if tags {
            needed.extend(["s3:PutObjectTagging", "s3:PutObjectVersionTagging"]);
        }
        let moves = actions.destinations().next().is_some();
        let replaces = actions.uses(Disposal::Replace);
        if tags || moves || replaces || filters_read_tags(config) || sinks_read_tags(config) {
            needed.extend(["s3:GetObjectTagging", "s3:GetObjectVersionTagging"]);
        }
        if actions.removes() {
            needed.extend(["s3:DeleteObject", "s3:DeleteObjectVersion"]);
        }
        if replaces {
            needed.push("s3:PutObject");
            // The placeholder keeps the object's own tags.
            if !tags {
                needed.push("s3:PutObjectTagging");
            }
        }
        let everything = |bucket: &String| Location { bucket: bucket.clone(), prefix: String::new() };
        let objects = self.object_arns(&buckets.iter().map(everything).collect::<Vec<_>>());
        self.allow("Uploads", &needed, objects);
        // Without it, S3 answers 403 instead of 404 for an object that is gone: its message would come back until it is given
        // up.
        self.allow("UploadBuckets", &["s3:ListBucket"], self.bucket_arns(buckets.iter().map(String::as_str)));
    }

    /// Copying objects to where they go, and undoing a copy of what was not scanned.
    fn destinations(&mut self, config: &Config, uploads: &[String]) {
        let places = destinations(&config.actions);
        let needed = [
            "s3:AbortMultipartUpload",
            "s3:DeleteObject",
            "s3:DeleteObjectVersion",
            "s3:GetObjectTagging",
            "s3:PutObject",
            "s3:PutObjectTagging",
            "s3:PutObjectVersionTagging",
        ];
        self.allow("Destinations", &needed, self.object_arns(&places));
        // Whether a copy is there already, when its tags do not tell: a HEAD.
        let mut in_quarantine = vec!["s3:GetObject"];
        let quarantines: Vec<Location> = config.actions.quarantines().map(Destination::root).collect();
        let is_emptied = config.http.enabled && !config.http.admin_tokens.is_empty();
        if is_emptied || quarantines.iter().any(|place| uploads.contains(&place.bucket)) {
            // To scan it again, and to take it out.
            in_quarantine.extend(["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:GetObjectVersion"]);
            in_quarantine.extend(["s3:GetObjectTagging", "s3:GetObjectVersionTagging"]);
            in_quarantine.extend(["s3:PutObjectTagging", "s3:PutObjectVersionTagging"]);
            // Whether anything is there.
            let promotions: Vec<Location> = config.actions.promotions().map(Destination::root).collect();
            self.allow("Promotions", &["s3:GetObject"], self.object_arns(&promotions));
        }
        self.allow("Quarantines", &in_quarantine, self.object_arns(&quarantines));
        // As for uploads: somebody may have taken the copy away already.
        let buckets = self.bucket_arns(places.iter().map(|place| place.bucket.as_str()));
        self.allow("DestinationBuckets", &["s3:ListBucket"], buckets);
        // Where this service writes must not feed the queue.
        if config.queue.url.is_some() {
            let written = config.report.locations();
            let buckets = self.bucket_arns(places.iter().chain(&written).map(|place| place.bucket.as_str()));
            self.allow("Notifications", &["s3:GetBucketNotification"], buckets);
        }
    }

    fn outbox(&mut self, config: &Config) {
        self.allow("Outbox", &["s3:GetObject", "s3:PutObject"], self.object_arns(&config.report.outbox));
    }

    /// What each sink needs. One that asks for the object's tags is named in [`sinks_read_tags`] too.
    fn sinks(&mut self, config: &Config, region: Option<&str>) -> Result<(), IamError> {
        for (name, sink) in config.report.sinks() {
            let sid = format!("Sink{}", names::sid(&name));
            match sink.kind() {
                Some(SinkKind::EventBridge(sink)) => {
                    let bus = match sink.bus.as_str() {
                        arn if arn.starts_with("arn:") => arn.to_owned(),
                        name => self.regional_arn("events", region, &format!("event-bus/{name}")),
                    };
                    self.allow(&sid, &["events:DescribeEventBus", "events:PutEvents"], vec![bus]);
                }
                Some(SinkKind::S3(sink)) => {
                    self.allow(&sid, &["s3:PutObject"], self.object_arns([&sink.to.location()]));
                }
                Some(SinkKind::Ses(sink)) => {
                    let domain = sink.from.rsplit_once('@').map_or("", |(_, domain)| domain);
                    let identities = [sink.from.as_str(), domain].map(|name| format!("identity/{}", literal(name)));
                    let set = sink.configuration_set.iter().map(|set| format!("configuration-set/{}", literal(set)));
                    let arns = identities.into_iter().chain(set).map(|name| self.regional_arn("ses", region, &name));
                    let arns = arns.collect();
                    self.allow(&sid, &["ses:SendEmail"], arns);
                }
                Some(SinkKind::Sns(sink)) => {
                    self.allow(&sid, &["sns:GetTopicAttributes", "sns:Publish"], vec![sink.topic_arn.clone()]);
                }
                // The address that S3 signs is good for no more than the signer may do.
                Some(SinkKind::Webhook(sink))
                    if sink.upscan.as_ref().is_some_and(|upscan| upscan.download_url_secs.is_some()) =>
                {
                    let places: Vec<Location> = config.actions.promotions().map(Destination::root).collect();
                    self.allow(&sid, &["s3:GetObject"], self.object_arns(&places));
                }
                Some(SinkKind::Notify(_) | SinkKind::Postgres(_) | SinkKind::Webhook(_)) => {}
                Some(SinkKind::Sqs(queue)) => {
                    let (arn, _) = queue_arn(&queue.queue_url, region)?;
                    // The attributes tell, at start, that it is not the queue of the events.
                    let check: &[_] = if config.queue.url.is_some() { &["sqs:GetQueueAttributes"] } else { &[] };
                    self.allow(&sid, &[&["sqs:SendMessage"], check].concat(), vec![arn]);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// The keys that encrypt what is read and what is written. S3 uses them in our name.
    fn keys(&mut self, config: &Config, scope: &Scope) -> Result<(), IamError> {
        for key in &scope.kms_keys {
            if !names::is_key_arn(key) {
                return Err(IamError::KmsKey(key.clone()));
            }
        }
        let actions = &config.actions;
        let copies = actions.destinations().next().is_some() || actions.uses(Disposal::Replace);
        let own_for_copies = copies && actions.kms_key_id.is_none();
        // A copy keeps the object's key; and an upload in parts has to read the parts again.
        let needed: &[_] = if own_for_copies { &["kms:Decrypt", "kms:GenerateDataKey"] } else { &["kms:Decrypt"] };
        self.allow("UploadKeys", needed, scope.kms_keys.clone());
        let Some(key) = actions.kms_key_id.as_deref().filter(|_| copies) else { return Ok(()) };
        let (resource, condition) = match names::key(key, self.partition) {
            names::Key::Arn(arn) => (arn, None),
            names::Key::Alias { keys, alias } => {
                let condition = serde_json::json!({"ForAnyValue:StringEquals": {"kms:ResourceAliases": alias}});
                (keys, Some(condition))
            }
        };
        self.allow_if("CopyKey", &["kms:Decrypt", "kms:GenerateDataKey"], vec![resource], condition);
        Ok(())
    }
}

fn filters_read_tags(config: &Config) -> bool {
    let mut found = false;
    for condition in config.queue.filters.iter().flat_map(|rule| [&rule.skip, &rule.only]).flatten() {
        condition.each(&mut |part| found |= matches!(part, Condition::Tag { .. }));
    }
    found
}

/// Whether a sink is told the object's tags.
fn sinks_read_tags(config: &Config) -> bool {
    let is_read = |to: &Recipient, mut values: std::collections::btree_map::Values<'_, String, Value>| {
        matches!(to, Recipient::Tag(_)) || values.any(|value| matches!(value, Value::Tag(_)))
    };
    config.report.sinks().values().any(|sink| match sink.kind() {
        Some(SinkKind::Notify(mail)) => is_read(&mail.to, mail.personalisation.values()),
        Some(SinkKind::Ses(mail)) => is_read(&mail.to, mail.values.values()),
        Some(
            SinkKind::EventBridge(_)
            | SinkKind::Postgres(_)
            | SinkKind::S3(_)
            | SinkKind::Sns(_)
            | SinkKind::Sqs(_)
            | SinkKind::Webhook(_),
        )
        | None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::FilterConfig;

    const QUEUE: &str = "https://sqs.eu-west-2.amazonaws.com/123456789012/uploads";
    const REPORTS: &str = "https://sqs.eu-west-2.amazonaws.com/123456789012/reports";

    fn scope() -> Scope {
        Scope { buckets: vec!["upl".into(), "upl2".into()], ..Scope::default() }
    }

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    /// One line for each statement: `Sid: actions; resources`.
    fn lines(policy: &Policy) -> Vec<String> {
        let short = |statement: &Statement| {
            format!("{}: {}; {}", statement.sid, statement.action.join(" "), statement.resource.join(" "))
        };
        policy.statement.iter().map(short).collect()
    }

    #[test]
    fn only_what_is_on() -> Result<(), IamError> {
        let read = "s3:GetObject s3:GetObjectVersion";
        let uploads = "arn:aws:s3:::upl/* arn:aws:s3:::upl2/*";
        let buckets = "UploadBuckets: s3:ListBucket; arn:aws:s3:::upl arn:aws:s3:::upl2".to_owned();
        let queue = "Queue: sqs:ChangeMessageVisibility sqs:DeleteMessage sqs:GetQueueAttributes sqs:ReceiveMessage; \
                     arn:aws:sqs:eu-west-2:123456789012:uploads";
        let tagging = "s3:GetObjectTagging s3:GetObjectVersion s3:GetObjectVersionTagging s3:PutObjectTagging \
                       s3:PutObjectVersionTagging";
        let copy = "s3:AbortMultipartUpload s3:DeleteObject s3:DeleteObjectVersion s3:GetObjectTagging s3:PutObject \
                    s3:PutObjectTagging s3:PutObjectVersionTagging";
        for (text, expected) in [
            ("[actions]\ntag = false".to_owned(), vec![format!("Uploads: {read}; {uploads}"), buckets.clone()]),
            (
                "[actions]\ntag = false\n[[queue.filters]]\nname = 'n'\nskip = { not = { tag = { key = 'k' } } }".to_owned(),
                vec![
                    format!(
                        "Uploads: s3:GetObject s3:GetObjectTagging s3:GetObjectVersion s3:GetObjectVersionTagging; {uploads}"
                    ),
                    buckets.clone(),
                ],
            ),
            (String::new(), vec![format!("Uploads: s3:GetObject {tagging}; {uploads}"), buckets.clone()]),
            (
                format!(
                    "[queue]\nurl = '{QUEUE}'\n[actions]\ntag = false\nquarantine_to = 's3://bad/q*/'\nkms_key_id = 'alias/a'\n\
                     [report]\nqueue_url = '{REPORTS}'\noutbox = 's3://out'"
                ),
                vec![
                    queue.to_owned(),
                    format!(
                        "Uploads: s3:DeleteObject s3:DeleteObjectVersion s3:GetObject s3:GetObjectTagging s3:GetObjectVersion \
                         s3:GetObjectVersionTagging; {uploads}"
                    ),
                    buckets.clone(),
                    format!("Destinations: {copy}; arn:aws:s3:::bad/q${{*}}/*"),
                    "Quarantines: s3:GetObject; arn:aws:s3:::bad/q${*}/*".to_owned(),
                    "DestinationBuckets: s3:ListBucket; arn:aws:s3:::bad".to_owned(),
                    "Notifications: s3:GetBucketNotification; arn:aws:s3:::bad arn:aws:s3:::out".to_owned(),
                    "Outbox: s3:GetObject s3:PutObject; arn:aws:s3:::out/*".to_owned(),
                    "SinkQueue: sqs:GetQueueAttributes sqs:SendMessage; arn:aws:sqs:eu-west-2:123456789012:reports".to_owned(),
                    "CopyKey: kms:Decrypt kms:GenerateDataKey; arn:aws:kms:*:*:key/*".to_owned(),
                ],
            ),
        ] {
            assert_eq!(lines(&policy(&config(&text), &scope())?), expected, "{text}");
        }
        Ok(())
    }

    #[test]
    fn what_deleting_replacing_and_telling_need() -> Result<(), IamError> {
        let first = |text: &str| Ok::<_, IamError>(lines(&policy(&config(text), &scope())?)[0].clone());
        let delete = first("[actions]\ninfected = 'delete'")?;
        assert!(delete.contains("s3:DeleteObjectVersion") && !delete.contains("s3:PutObject "), "{delete}");
        let replace = first("[[actions.rules]]\nbucket = 'ruled'\ninfected = 'replace'\ntag = false")?;
        assert!(replace.contains("s3:PutObject ") && replace.contains("arn:aws:s3:::ruled/*"), "{replace}");
        for (sink, expected) in [
            (
                "event_bridge = { bus = 'b' }",
                "SinkA: events:DescribeEventBus events:PutEvents; arn:aws:events:eu-west-2:*:event-bus/b",
            ),
            ("s3 = { to = 's3://results/r/{key}' }", "SinkA: s3:PutObject; arn:aws:s3:::results/r/*"),
            (
                "ses = { from = 'a@b.example', to = { address = 'c@b.example' }, subject = 's', body = 'b' }",
                "SinkA: ses:SendEmail; arn:aws:ses:eu-west-2:*:identity/a@b.example arn:aws:ses:eu-west-2:*:identity/b.example",
            ),
            (
                "sns = { topic_arn = 'arn:aws:sns:eu-west-2:1:t' }",
                "SinkA: sns:GetTopicAttributes sns:Publish; arn:aws:sns:eu-west-2:1:t",
            ),
        ] {
            let scope = Scope { region: Some("eu-west-2".to_owned()), ..scope() };
            let found = lines(&policy(&config(&format!("[report.sinks.a]\n{sink}")), &scope)?);
            assert_eq!(found.last().map(String::as_str), Some(expected), "{sink}");
        }
        Ok(())
    }

    #[test]
    fn what_operators_need() -> Result<(), IamError> {
        let text = "[http]\nenabled = true\nadmin_tokens = ['0123456789abcdef']\n\
                    [actions]\npromote_to = 's3://ok/'\nquarantine_to = 's3://bad/'";
        let all = lines(&policy(&config(text), &scope())?);
        let tagging = "s3:GetObjectTagging s3:GetObjectVersion s3:GetObjectVersionTagging s3:PutObjectTagging \
                       s3:PutObjectVersionTagging";
        for expected in [
            "Promotions: s3:GetObject; arn:aws:s3:::ok/*".to_owned(),
            format!("Quarantines: s3:DeleteObject s3:DeleteObjectVersion s3:GetObject {tagging}; arn:aws:s3:::bad/*"),
        ] {
            assert!(all.contains(&expected), "{all:?}");
        }
        let closed = lines(&policy(&config(&text.replace("enabled = true", "")), &scope())?);
        assert!(closed.contains(&"Quarantines: s3:GetObject; arn:aws:s3:::bad/*".to_owned()), "{closed:?}");
        Ok(())
    }

    #[test]
    fn the_partition_is_that_of_the_region() -> Result<(), IamError> {
        for (url, region, uploads, queue) in [
            ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", None, "arn:aws-cn:s3:::upl/*", "arn:aws-cn:sqs:cn-north-1:1:q"),
            (
                "http://localhost:4566/1/q",
                Some("us-gov-west-1"),
                "arn:aws-us-gov:s3:::upl/*",
                "arn:aws-us-gov:sqs:us-gov-west-1:1:q",
            ),
        ] {
            let scope = Scope { buckets: vec!["upl".into()], region: region.map(str::to_owned), ..Scope::default() };
            let policy = policy(&config(&format!("[queue]\nurl = '{url}'")), &scope)?;
            assert_eq!(policy.statement[0].resource, [queue]);
            assert_eq!(policy.statement[1].resource, [uploads]);
        }
        Ok(())
    }

    #[test]
    fn the_buckets_that_are_known() {
        let known = |config: &Config, names: &[&str]| {
            let scope = Scope { buckets: names.iter().map(|&name| name.to_owned()).collect(), ..Scope::default() };
            buckets(config, &scope).map(|names| names.join(" ")).map_err(|error| error.to_string())
        };
        let rule = FilterConfig {
            name: "n".into(),
            bucket: Some("ruled".into()),
            skip: Some(Condition::Prefix("p".into())),
            only: None,
            tag: false,
        };
        let mut config = Config::default();
        assert!(known(&config, &[]).is_err_and(|error| error.contains("--bucket")));
        for wrong in ["*", "s3://b", "b/prefix", "ab", "UPPER"] {
            assert!(known(&config, &[wrong]).is_err_and(|error| error.contains("3 to 63")), "{wrong}");
        }
        config.queue.filters.push(rule);
        config.http.s3_buckets.push("api".into());
        assert_eq!(known(&config, &["named"]).as_deref(), Ok("named ruled"));
        config.http.enabled = true;
        assert_eq!(known(&config, &[]).as_deref(), Ok("api ruled"));
    }

    #[test]
    fn keys() -> Result<(), IamError> {
        let key = "arn:aws:kms:eu-west-2:123456789012:key/1234abcd";
        let with_key = Scope { kms_keys: vec![key.to_owned()], ..scope() };
        for (text, expected) in [
            ("", format!("UploadKeys: kms:Decrypt; {key}")),
            ("[actions]\npromote_to = 's3://ok'", format!("UploadKeys: kms:Decrypt kms:GenerateDataKey; {key}")),
        ] {
            assert_eq!(lines(&policy(&config(text), &with_key)?).last(), Some(&expected));
        }
        let wrong = Scope { kms_keys: vec!["alias/a".to_owned()], ..scope() };
        assert_eq!(policy(&Config::default(), &wrong), Err(IamError::KmsKey("alias/a".to_owned())));
        Ok(())
    }
}
