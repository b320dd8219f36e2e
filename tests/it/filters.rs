//! Objects that are not scanned.

use std::collections::BTreeMap;

use crate::aws::Aws;
use crate::samples::eicar;
use crate::service::Service;

const FILTERS: &str = r#"[
    { name = "thumbnails", skip = { any = [{ prefix = "thumbs/" }, { all = [{ suffix = ".tmp" }, { max_bytes = 100 }] }] }, tag = true },
    { name = "trusted", skip = { tag = { key = "scan", value = "no" } } },
    { name = "videos", skip = { content_type = "video/*" } },
    { name = "elsewhere", bucket = "another", skip = { min_bytes = 1 } },
]"#;

#[tokio::test]
async fn what_a_rule_skips_is_acknowledged_and_tagged() {
    let aws = Aws::new().await;
    let put = |key: &'static str, tags: &'static str, kind: &'static str| {
        let request = aws.s3.put_object().bucket(&aws.uploads).key(key).body(eicar().into());
        let request = request.set_tagging(Some(tags.to_owned()).filter(|tags| !tags.is_empty()));
        async move { request.content_type(kind).send().await.unwrap() }
    };
    let (plain, video) = ("application/octet-stream", "video/mp4; codecs=x");
    for (key, tags, kind) in [
        ("thumbs/1", "", plain),
        ("thumbs/judged", "clamgate-status=INFECTED", plain),
        ("a.tmp", "team=blue", plain),
        ("trusted", "scan=no", plain),
        ("not-trusted", "scan=yes", plain),
        ("film", "", video),
        ("other", "", plain),
    ] {
        put(key, tags, kind).await;
    }
    let service = Service::start(
        &aws,
        &[("CLAMGATE_QUEUE__FILTERS", FILTERS), ("CLAMGATE_ACTIONS__QUARANTINE_TO", ""), ("CLAMGATE_ACTIONS__PROMOTE_TO", "")],
    )
    .await;
    aws.until_drained().await;

    for (key, expected) in [
        ("thumbs/1", &[("clamgate-detail", "thumbnails"), ("clamgate-status", "SKIPPED")][..]),
        ("thumbs/judged", &[("clamgate-status", "INFECTED")]),
        ("a.tmp", &[("clamgate-detail", "thumbnails"), ("clamgate-status", "SKIPPED"), ("team", "blue")]),
        ("trusted", &[("scan", "no")]),
        ("film", &[]),
    ] {
        let expected: BTreeMap<_, _> = expected.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert_eq!(aws.get(&aws.uploads, key).await.unwrap().tags, expected, "{key}");
    }
    for key in ["not-trusted", "other"] {
        assert_eq!(aws.get(&aws.uploads, key).await.unwrap().status(), Some("INFECTED"), "{key}");
    }
    let mut rules: Vec<_> = service.logged("object skipped").iter().map(|line| line["rule"].to_string()).collect();
    rules.sort();
    assert_eq!(rules, [r#""thumbnails""#, r#""thumbnails""#, r#""thumbnails""#, r#""trusted""#, r#""videos""#]);
    assert_eq!(aws.reports(2).await.len(), 2);
}
