//! From an upload to a verdict, and to the object's place.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{BucketVersioningStatus, MetadataDirective, StorageClass, VersioningConfiguration};
use serde_json::json;

use crate::aws::{Aws, Setup};
use crate::samples::{self, EICAR_NAME, eicar};
use crate::service::{Service, clamgate};
use crate::wait;
use crate::web::curl;

/// Name, content, status, detail tag, whether it ends in the clean bucket.
fn sample_set() -> Vec<(String, Vec<u8>, &'static str, Option<&'static str>)> {
    let in_zip = samples::zip(&[("eicar.com", &eicar())]);
    let long = format!("long/{}", "k".repeat(1024 - 5));
    let infected = Some(EICAR_NAME);
    vec![
        ("clean.txt".into(), b"hello world".to_vec(), "CLEAN", None),
        ("empty".into(), vec![], "CLEAN", None),
        ("eicar.com".into(), eicar(), "INFECTED", infected),
        ("eicar.tar.gz".into(), samples::tar_gz("e.zip", &in_zip), "INFECTED", infected),
        ("encrypted.zip".into(), samples::encrypted_zip("a", b"x"), "UNSCANNABLE", Some("ENCRYPTED")),
        ("with space+plus%percent%2B.txt".into(), b"clean".to_vec(), "CLEAN", None),
        ("é/ünï/🐚 \"quoted\" <tag>&.txt".into(), eicar(), "INFECTED", infected),
        ("//slashes//../dots/".into(), b"clean too".to_vec(), "CLEAN", None),
        (long, b"a key of 1,024 bytes".to_vec(), "CLEAN", None),
        ("large.bin".into(), samples::noise(40_000_000), "CLEAN", None),
    ]
}

async fn every_sample_ends_in_its_place(versioned: bool) {
    let aws = Aws::with(Setup { versioned, receives: 5 }).await;
    let service = Service::start(&aws, &[]).await;
    let samples = sample_set();
    for (key, body, _, _) in &samples {
        aws.upload(key, body.clone()).await;
    }
    aws.until_drained().await;

    for (key, body, status, detail) in &samples {
        let (place, other) = if *status == "CLEAN" { (&aws.clean, &aws.quarantine) } else { (&aws.quarantine, &aws.clean) };
        let stored = aws.get(place, key).await.unwrap_or_else(|| panic!("{key} is not in {place}"));
        assert_eq!(stored.body, *body, "{key}");
        assert_eq!(stored.status(), Some(*status), "{key}");
        assert_eq!(stored.tags.get("clamgate-detail").map(String::as_str), *detail, "{key}");
        assert_eq!(aws.get(other, key).await, None, "{key} is in {other} too");
        assert_eq!(aws.get(&aws.uploads, key).await, None, "{key} is still in uploads");
    }
    let reports = aws.reports(samples.len()).await;
    for (key, body, status, _) in &samples {
        let report = reports.iter().find(|report| report["target"]["key"] == *key).unwrap();
        assert_eq!(report["schema"], "clamgate.scan/1");
        assert_eq!(report["status"], *status);
        assert_eq!(report["target"]["size"], body.len());
        assert_eq!(report["target"]["version_id"].is_string(), versioned, "{report}");
        assert_eq!(report["actions"][0]["outcome"], "done");
        assert!(report["timings_ms"]["total"].is_number());
    }
    let lines = service.logged("object scanned");
    assert_eq!(lines.len(), samples.len());
    assert!(lines.iter().all(|line| line["bucket"] == aws.uploads && line["key"].is_string() && line["total_ms"].is_number()));
}

#[tokio::test]
async fn every_sample_ends_in_its_place_without_versions() {
    every_sample_ends_in_its_place(false).await;
}

#[tokio::test]
async fn every_sample_ends_in_its_place_with_versions() {
    every_sample_ends_in_its_place(true).await;
}

#[tokio::test]
async fn an_object_that_stays_is_tagged_beside_its_own_tags() {
    for versioned in [false, true] {
        let aws = Aws::with(Setup { versioned, receives: 5 }).await;
        let put = |key: &str, tagging: &str| {
            let request = aws.s3.put_object().bucket(&aws.uploads).key(key).body(ByteStream::from(eicar()));
            let request = request.tagging(tagging);
            async move { request.send().await.unwrap() }
        };
        put("few", "team=a%20b&clamgate-status=FORGED").await;
        let _service =
            Service::start(&aws, &[("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")]).await;
        aws.until_drained().await;
        let report = aws.reports(1).await.remove(0);
        let expected = BTreeMap::from(
            [
                ("team", "a b"),
                ("clamgate-status", "INFECTED"),
                ("clamgate-detail", EICAR_NAME),
                ("clamgate-scan-id", report["scan_id"].as_str().unwrap()),
                ("clamgate-definitions", &format!("0 {}", &report["definitions"]["fingerprint"].as_str().unwrap()[..16])),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        assert_eq!(aws.get(&aws.uploads, "few").await.unwrap().tags, expected);
        assert_eq!(report["actions"], json!([{"action":"tag","outcome":"done"}]));
    }
}

/// An uploader could switch off verdict, quarantine and report with eight tags.
#[tokio::test]
async fn too_many_tags_kept_an_infected_object_in_place_without_a_word() {
    for (own, status) in [(9, Some("INFECTED")), (10, None)] {
        let aws = Aws::new().await;
        let tags: Vec<String> = (0..own).map(|n| format!("t{n}=v")).collect();
        let request = aws.s3.put_object().bucket(&aws.uploads).key("k").body(ByteStream::from(eicar()));
        request.tagging(tags.join("&")).send().await.unwrap();
        let _service = Service::start(&aws, &[]).await;
        assert_eq!(aws.reports(1).await[0]["status"], "INFECTED");
        aws.until_drained().await;
        let stored = aws.get(&aws.quarantine, "k").await.unwrap();
        assert_eq!((stored.tags.len(), stored.status()), (10, status));
        assert_eq!(aws.get(&aws.uploads, "k").await, None);
    }
}

#[tokio::test]
async fn a_key_too_long_for_its_destination_is_told_and_tagged() {
    let aws = Aws::new().await;
    let place = format!("s3://{}/prefix/", aws.quarantine);
    let key = "k".repeat(1020);
    let _service = Service::start(&aws, &[("CLAMGATE_ACTIONS__QUARANTINE_TO", &place)]).await;
    aws.upload(&key, eicar()).await;
    let report = aws.reports(1).await.remove(0);
    assert_eq!(report["status"], "INFECTED");
    assert_eq!(report["actions"][0]["outcome"], "failed", "{report}");
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.uploads, &key).await.unwrap().status(), Some("INFECTED"));
}

/// The slow first version was promoted over the fast second one, whose original was removed by then.
#[tokio::test]
async fn an_older_version_replaced_the_newer_one_at_the_destination() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let service = Service::start(&aws, &[]).await;
    aws.upload("k", samples::slow(8)).await;
    wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
    aws.upload("k", b"the newer one".to_vec()).await;
    let reports = aws.reports(2).await;
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.clean, "k").await.unwrap().body, b"the newer one");
    let late = reports.iter().find(|report| report["actions"][0]["outcome"] == "skipped");
    assert_eq!(late.unwrap()["actions"][0]["detail"], "a newer version is there already");
}

/// A rescan of an object at its destination copied it onto itself, and then removed it.
#[tokio::test]
async fn an_object_at_its_destination_was_removed() {
    let aws = Aws::new().await;
    aws.s3.put_object().bucket(&aws.clean).key("k").body(ByteStream::from_static(b"hello world")).send().await.unwrap();
    let record =
        format!(r#"{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{}"}},"object":{{"key":"k"}}}}}}"#, aws.clean);
    aws.send(&format!(r#"{{"Records":[{record}]}}"#)).await;
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.clean, "k").await.unwrap().status(), Some("CLEAN"));
}

/// The original was only hidden by a delete marker.
#[tokio::test]
async fn a_version_was_not_pinned_when_the_event_lacked_it() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let bucket = aws.silent_bucket().await;
    let enabled = VersioningConfiguration::builder().status(BucketVersioningStatus::Enabled).build();
    aws.s3.put_bucket_versioning().bucket(&bucket).versioning_configuration(enabled).send().await.unwrap();
    aws.s3.put_object().bucket(&bucket).key("k").body(ByteStream::from(eicar())).send().await.unwrap();
    let record =
        format!(r#"{{"eventName":"ObjectCreated:Put","s3":{{"bucket":{{"name":"{bucket}"}},"object":{{"key":"k"}}}}}}"#);
    aws.send(&format!(r#"{{"Records":[{record}]}}"#)).await;
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    let versions = aws.s3.list_object_versions().bucket(&bucket).send().await.unwrap();
    assert!(versions.versions().is_empty() && versions.delete_markers().is_empty(), "{versions:?}");
}

/// The null version is overwritten in place, so only the ETag pins it.
#[tokio::test]
async fn a_bucket_whose_versions_are_suspended() {
    let aws = Aws::with(Setup { versioned: true, receives: 5 }).await;
    let suspended = VersioningConfiguration::builder().status(BucketVersioningStatus::Suspended).build();
    aws.s3.put_bucket_versioning().bucket(&aws.uploads).versioning_configuration(suspended).send().await.unwrap();
    let _service = Service::start(&aws, &[]).await;
    aws.upload("k", eicar()).await;
    let report = aws.reports(1).await.remove(0);
    assert!(report["target"]["version_id"].is_null(), "{report}");
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.quarantine, "k").await.unwrap().status(), Some("INFECTED"));
    assert_eq!(aws.get(&aws.uploads, "k").await, None);
}

#[tokio::test]
async fn a_copy_keeps_all_that_belongs_to_the_object() {
    // With CopyObject, in parts, and to quarantine, where the copy gets other metadata: then everything has to be said again.
    let infected = samples::tar_gz("eicar", &eicar());
    for (body, parts_above, status) in [
        (samples::noise(100), "5000000000", "CLEAN"),
        (samples::noise(12_000_000), "6000000", "CLEAN"),
        (infected, "5000000000", "INFECTED"),
    ] {
        let aws = Aws::new().await;
        let place = if status == "CLEAN" { &aws.clean } else { &aws.quarantine };
        let expires = DateTime::from_secs(2_000_000_000);
        aws.s3
            .put_object()
            .bucket(&aws.uploads)
            .key("k")
            .body(ByteStream::from(body.clone()))
            .content_type("application/x-test")
            .content_disposition("attachment; filename=\"a.bin\"")
            .content_encoding("identity")
            .content_language("de")
            .cache_control("max-age=7")
            .expires(expires)
            .metadata("owner", "somebody")
            .storage_class(StorageClass::StandardIa)
            .tagging("team=x")
            .send()
            .await
            .unwrap();
        let _service = Service::start(&aws, &[("CLAMGATE_ACTIONS__MULTIPART_COPY_BYTES", parts_above)]).await;
        aws.until_drained().await;
        let copy = aws.s3.head_object().bucket(place).key("k").send().await.unwrap();
        assert_eq!(copy.content_type(), Some("application/x-test"));
        assert_eq!(copy.content_disposition(), Some("attachment; filename=\"a.bin\""));
        assert_eq!(copy.content_encoding(), Some("identity"));
        assert_eq!(copy.content_language(), Some("de"));
        assert_eq!(copy.cache_control(), Some("max-age=7"));
        assert_eq!(copy.expires_string(), Some("Wed, 18 May 2033 03:33:20 GMT"));
        assert_eq!(copy.metadata().unwrap()["owner"], "somebody");
        assert_eq!(copy.storage_class(), Some(&StorageClass::StandardIa));
        assert_eq!(copy.e_tag().unwrap().contains('-'), body.len() > 6_000_000, "copied in parts or not");
        let stored = aws.get(place, "k").await.unwrap();
        assert_eq!(stored.body, body);
        assert_eq!((stored.tags["team"].as_str(), stored.status()), ("x", Some(status)));
    }
}

#[tokio::test]
async fn a_configured_kms_key_encrypts_the_copy() {
    let aws = Aws::new().await;
    let _service = Service::start(&aws, &[("CLAMGATE_ACTIONS__KMS_KEY_ID", "arn:aws:kms:us-east-1:000000000000:key/k")]).await;
    aws.upload("k", b"hello world".to_vec()).await;
    aws.until_drained().await;
    let copy = aws.s3.head_object().bucket(&aws.clean).key("k").send().await.unwrap();
    assert_eq!(copy.server_side_encryption().map(|kind| kind.as_str()), Some("aws:kms"));
    assert_eq!(copy.ssekms_key_id(), Some("arn:aws:kms:us-east-1:000000000000:key/k"));
}

#[tokio::test]
async fn an_object_that_is_replaced_while_it_is_scanned_keeps_no_verdict_of_the_old_one() {
    for versioned in [false, true] {
        for stay in [false, true] {
            let aws = Aws::with(Setup { versioned, receives: 5 }).await;
            let places = [("CLAMGATE_ACTIONS__PROMOTE_TO", ""), ("CLAMGATE_ACTIONS__QUARANTINE_TO", "")];
            let service = Service::start(&aws, if stay { &places } else { &[] }).await;
            aws.upload("k", samples::slow(16)).await;
            wait::until("a scan under way", || async { service.health().await.filter(|health| health.scans > 0) }).await;
            aws.upload("k", eicar()).await;
            aws.until_drained().await;

            let case = format!("versioned: {versioned}, stay: {stay}");
            let (bucket, gone) = if stay { (&aws.uploads, &aws.quarantine) } else { (&aws.quarantine, &aws.uploads) };
            let stored = aws.get(bucket, "k").await.unwrap_or_else(|| panic!("{case}: nothing in {bucket}"));
            assert_eq!(stored.body, eicar(), "{case}");
            assert_eq!(stored.status(), Some("INFECTED"), "{case}");
            assert_eq!(aws.get(gone, "k").await, None, "{case}");
            if let Some(clean) = aws.get(&aws.clean, "k").await {
                assert!(versioned, "{case}: without versions, the replaced content is gone");
                assert_ne!(clean.body, eicar(), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_object_that_is_gone_needs_nothing() {
    let aws = Aws::new().await;
    aws.upload("k", b"hello world".to_vec()).await;
    aws.s3.delete_object().bucket(&aws.uploads).key("k").send().await.unwrap();
    let service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    service.until_logged("object gone or replaced; nothing to scan", 1).await;
    assert!(aws.keys(&aws.clean).await.is_empty());
}

#[tokio::test]
async fn what_s3_cannot_hand_out_is_unsupported() {
    let aws = Aws::new().await;
    let put = |key: &str| aws.s3.put_object().bucket(&aws.uploads).key(key).body(ByteStream::from_static(b"hello world"));
    put("archived").storage_class(StorageClass::Glacier).send().await.unwrap();
    // A key of 32 bytes, in base64, and its MD5.
    put("sse-c")
        .sse_customer_algorithm("AES256")
        .sse_customer_key("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
        .sse_customer_key_md5("KYvwGXoFFJ42a2u2GDWhwQ==")
        .send()
        .await
        .unwrap();
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    for report in aws.reports(2).await {
        assert_eq!(
            (report["status"].as_str(), report["reason"].as_str()),
            (Some("UNSCANNABLE"), Some("UNSUPPORTED")),
            "{report}"
        );
        assert_eq!(report["actions"][0]["outcome"], "skipped", "{report}");
        assert_eq!(report["actions"][1]["action"], "tag", "{report}");
        let key = report["target"]["key"].as_str().unwrap();
        let tags = aws.s3.get_object_tagging().bucket(&aws.uploads).key(key).send().await.unwrap();
        assert!(tags.tag_set().iter().any(|tag| tag.value() == "UNSUPPORTED"), "{tags:?}");
    }
}

#[tokio::test]
async fn an_object_over_the_size_limit_is_not_fetched() {
    let aws = Aws::new().await;
    let _service = Service::start(&aws, &[("CLAMGATE_LIMITS__MAX_FILE_SIZE_BYTES", "1000000")]).await;
    aws.upload("big", samples::noise(1_000_001)).await;
    aws.until_drained().await;
    let report = aws.reports(1).await.remove(0);
    assert_eq!((report["reason"].as_str(), report["sha256"].as_str()), (Some("TOO_LARGE"), None), "{report}");
    assert!(aws.get(&aws.quarantine, "big").await.is_some());
}

#[tokio::test]
async fn a_destination_that_would_be_scanned_again_is_refused() {
    let aws = Aws::new().await;
    aws.notify(&aws.quarantine).await;
    for (place, name) in [(&aws.uploads, "promote_to"), (&aws.quarantine, "quarantine_to")] {
        let variable = format!("CLAMGATE_ACTIONS__{}", name.to_uppercase());
        let mut service = Service::new(&aws, &[(variable.as_str(), &format!("s3://{place}/done/"))]);
        service.spawn();
        assert_eq!(service.until_ended().await.code(), Some(2), "{name}");
        let log = service.logged("cannot go on");
        assert!(log[0]["error"].as_str().unwrap().contains("would be scanned again"), "{log:?}");
    }
    // So is the destination of a rule, whatever its template makes of a key.
    let rules = format!("[{{prefix = 'x/', quarantine_to = 's3://{}/done/{{uuid}}'}}]", aws.quarantine);
    let settings = [("CLAMGATE_ACTIONS__QUARANTINE_TO", ""), ("CLAMGATE_ACTIONS__RULES", rules.as_str())];
    let mut service = Service::new(&aws, &settings);
    service.spawn();
    assert_eq!(service.until_ended().await.code(), Some(2));
    let log = service.logged("cannot go on");
    assert!(log[0]["error"].as_str().unwrap().contains("would be scanned again"), "{log:?}");
}

#[tokio::test]
async fn a_missing_queue_ends_the_start() {
    let aws = Aws::new().await;
    let mut service = Service::new(&aws, &[("CLAMGATE_QUEUE__URL", &format!("{}-missing", aws.queue))]);
    service.spawn();
    assert_eq!(service.until_ended().await.code(), Some(2));
    assert!(service.logged("cannot go on")[0]["error"].as_str().unwrap().contains("queue.url"));
    let socket = service.dir.path().join("scratch/clamgate-health.sock");
    let health = clamgate().arg("health").env("CLAMGATE_SERVICE__HEALTH_SOCKET", &socket).status().unwrap();
    assert_eq!(health.code(), Some(1), "nobody answers any more");
}

/// Twice the same upload costs one scan; the verdict is each object's own all the same.
#[tokio::test]
async fn the_same_content_is_scanned_once() {
    for (verdicts, expected) in [("50000", (2, 2, 0)), ("0", (0, 0, 0))] {
        let aws = Aws::new().await;
        let settings = [
            ("CLAMGATE_HTTP__ENABLED", "true"),
            ("CLAMGATE_HTTP__LISTEN", "127.0.0.1:0"),
            ("CLAMGATE_SCAN__CACHED_VERDICTS", verdicts),
        ];
        let service = Service::start(&aws, &settings).await;
        let encrypted = samples::encrypted_zip("a", b"x");
        for number in 0..3 {
            aws.upload(&format!("bad/{number}"), eicar()).await;
            aws.upload(&format!("good/{number}"), b"hello world".to_vec()).await;
            // An incomplete scan is done again.
            aws.upload(&format!("locked/{number}"), encrypted.clone()).await;
        }
        aws.upload("good/other", b"hello worlD".to_vec()).await;
        let reports = aws.reports(10).await;
        let cached: Vec<_> = reports.iter().filter(|report| report.get("cached") == Some(&json!(true))).collect();
        let of =
            |prefix: &str| cached.iter().filter(|report| report["target"]["key"].as_str().unwrap().starts_with(prefix)).count();
        assert_eq!((of("bad/"), of("good/"), of("locked/")), expected, "{verdicts}");
        aws.until_drained().await;
        for report in reports {
            let key = report["target"]["key"].as_str().unwrap();
            let (bucket, status) = match key.split('/').next() {
                Some("bad") => (&aws.quarantine, "INFECTED"),
                Some("locked") => (&aws.quarantine, "UNSCANNABLE"),
                _ => (&aws.clean, "CLEAN"),
            };
            assert_eq!(report["status"], status, "{key}");
            let stored = aws.get(bucket, key).await.unwrap();
            assert_eq!(stored.status(), Some(status), "{key}");
            assert_eq!(report["scan_id"], *stored.tags["clamgate-scan-id"], "{key}");
        }
        let metrics = curl(&[&format!("{}/metrics", service.http_address().await)]).await;
        let hits = format!("\nclamgate_cached_verdicts_total {}\n", expected.0 + expected.1);
        assert_eq!(metrics.text().contains(&hits), verdicts != "0", "{}", metrics.text());
    }
}

#[tokio::test]
async fn an_overwrite_with_the_same_bytes_is_scanned_like_any_other() {
    let aws = Aws::new().await;
    aws.upload("k", b"hello world".to_vec()).await;
    let copy = aws.s3.copy_object().bucket(&aws.uploads).key("k").copy_source(format!("{}/k", aws.uploads));
    copy.metadata_directive(MetadataDirective::Replace).metadata("a", "b").send().await.unwrap();
    let _service = Service::start(&aws, &[]).await;
    aws.until_drained().await;
    assert_eq!(aws.get(&aws.clean, "k").await.unwrap().status(), Some("CLEAN"));
    assert!(aws.keys(&aws.uploads).await.is_empty());
}
