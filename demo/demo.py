"""clamgate at work: uploads to a local S3, and what became of each.

Exits with 0 when every upload ended as it must, 1 otherwise. Nothing is left running, and no file is left behind but downloaded
definitions.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Callable
from urllib.parse import quote_plus

from botocore.exceptions import BotoCoreError, ClientError

import definitions
import samples
from local_aws import LocalAws, Queues, create_queues, exists, messages_in_flight, notify, queue_depth, stop
from runner import DemoError, main, wait_for
from samples import CLEAN, EICAR, MIB, QUARANTINE, UPLOADS, VERSIONED, Sample
from service import show_end, start_service, wait_until_healthy
from table import lines, shortened

BUCKETS = [UPLOADS, VERSIONED, CLEAN, QUARANTINE]
LABELS = {"uploaded-by": "demo"}
MULTIPART_BYTES = 64 * MIB
REPORT_SECONDS = 300
SETTLE_SECONDS = 30


@dataclass(frozen=True)
class Upload:
    """An object as it was put."""

    sample: Sample
    etag: str
    version_id: str | None
    finished_at: float


@dataclass
class Row:
    """A line of the table."""

    key: str
    status: str
    why: str
    milliseconds: float | None
    place: str
    problems: list[str]


class Reports(threading.Thread):
    """All reports from the result queue, with the time each arrived."""

    def __init__(self, aws: LocalAws, url: str) -> None:
        super().__init__(daemon=True)
        self.sqs, self.url = aws.client("sqs"), url
        self.received: list[tuple[float, dict[str, Any]]] = []
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.is_set():
            try:
                answer = self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
            except (BotoCoreError, ClientError):
                return  # the local AWS has gone
            for message in answer.get("Messages", []):
                self.received.append((time.time(), json.loads(message["Body"])))
                self.sqs.delete_message(QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"])

    def of(self, upload: Upload) -> list[tuple[float, dict[str, Any]]]:
        """Those on exactly these bytes under this key, the first first."""

        def matches(target: dict[str, Any]) -> bool:
            return (
                (target["bucket"], target["key"]) == (upload.sample.bucket, upload.sample.key)
                and (target["etag"] or "").strip('"') == upload.etag
                and (target["version_id"] or None) == upload.version_id
            )

        return [entry for entry in list(self.received) if matches(entry[1]["target"])]


class Demo:
    """The running parts, and what is done with them."""

    def __init__(self, aws: LocalAws, service: subprocess.Popen[bytes], queues: Queues, reports: Reports) -> None:
        self.s3, self.sqs = aws.client("s3"), aws.client("sqs")
        self.service, self.queues, self.reports = service, queues, reports
        self.uploads: list[Upload] = []

    def upload(self, sample: Sample) -> Upload:
        """Put it as a client would: large files in parts."""
        target = {"Bucket": sample.bucket, "Key": sample.key}
        labels = {"Metadata": LABELS, "Tagging": "uploaded-by=demo"} if sample.labelled else {}
        with sample.path.open("rb") as file:
            if sample.path.stat().st_size < MULTIPART_BYTES:
                answer = self.s3.put_object(**target, **labels, Body=file)
            else:
                target["UploadId"] = self.s3.create_multipart_upload(**target, **labels)["UploadId"]
                parts: list[dict[str, Any]] = []
                while block := file.read(16 * MIB):
                    number = len(parts) + 1
                    part = self.s3.upload_part(**target, PartNumber=number, Body=block)
                    parts.append({"PartNumber": number, "ETag": part["ETag"]})
                answer = self.s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
        upload = Upload(sample, answer["ETag"].strip('"'), answer.get("VersionId"), time.time())
        self.uploads.append(upload)
        return upload

    def announce(self, upload: Upload) -> None:
        """Send the notification of this upload once more, as SQS may."""
        content: dict[str, Any] = {"key": quote_plus(upload.sample.key, safe="/"), "eTag": upload.etag}
        content["size"] = upload.sample.path.stat().st_size
        bucket = {"name": upload.sample.bucket, "arn": f"arn:aws:s3:::{upload.sample.bucket}"}
        record = {
            "eventVersion": "2.1",
            "eventSource": "aws:s3",
            "eventTime": "2024-01-01T00:00:00.000Z",
            "eventName": "ObjectCreated:Put",
            "s3": {"s3SchemaVersion": "1.0", "bucket": bucket, "object": content},
        }
        self.sqs.send_message(QueueUrl=self.queues.uploads, MessageBody=json.dumps({"Records": [record]}))

    def first_report(self, upload: Upload) -> tuple[float, dict[str, Any]]:
        """Wait for it."""

        def check() -> Any:
            if self.service.poll() is not None:
                raise DemoError(f"clamgate ended with {self.service.returncode}")
            return self.reports.of(upload)

        return wait_for(f"the report on {upload.sample.key}", REPORT_SECONDS, check)[0]

    def wait_until_idle(self) -> None:
        """Every message worked off."""
        wait_for("the queue to be empty", REPORT_SECONDS, lambda: queue_depth(self.sqs, self.queues.uploads) == 0)

    def tags(self, bucket: str, key: str) -> dict[str, str]:
        """The object's tags."""
        answer = self.s3.get_object_tagging(Bucket=bucket, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def row(self, upload: Upload) -> Row:
        """What became of this upload, and what of that is wrong."""
        sample = upload.sample
        received_at, report = self.first_report(upload)
        # The report is sent before the object is removed from where it was.
        try:
            wait_for("the removal", SETTLE_SECONDS, lambda: not exists(self.s3, sample.bucket, sample.key))
        except DemoError:
            pass  # the places below show it
        places = [bucket for bucket in BUCKETS if exists(self.s3, bucket, sample.key)]
        milliseconds = 1000 * (received_at - upload.finished_at)
        row = Row(sample.key, report["status"], why(report), milliseconds, ", ".join(places) or "nowhere", [])

        def require(holds: bool, problem: str) -> None:
            if not holds:
                row.problems.append(problem)

        require(report["status"] == sample.status, f"expected {sample.status}")
        require(report["reason"] == sample.reason, f"expected the reason {sample.reason}")
        require(bool(report["signatures"]) == (sample.status == "INFECTED"), f"signatures: {report['signatures']}")
        scan_ids = {other["scan_id"] for _, other in self.reports.of(upload)}
        require(len(scan_ids) == 1, f"several scan ids for the same work: {scan_ids}")
        require(places == [sample.place], f"expected in {sample.place} alone")
        if places == [sample.place]:
            self.check_object(sample, report, require)
        return row

    def check_object(self, sample: Sample, report: dict[str, Any], require: Callable[[bool, str], None]) -> None:
        """The bytes, the tags and the metadata where the object is now."""
        found = self.s3.get_object(Bucket=sample.place, Key=sample.key)
        digest = hashlib.sha256()
        for block in found["Body"].iter_chunks(MIB):
            digest.update(block)
        with sample.path.open("rb") as file:
            expected = hashlib.file_digest(file, "sha256").hexdigest()
        require(digest.hexdigest() == expected, "its content changed")
        require(report["sha256"] == expected, f"the report has sha256 {report['sha256']}")
        tags = self.tags(sample.place, sample.key)
        require(tags.get("clamgate-status") == sample.status, f"tags: {tags}")
        require(tags.get("clamgate-scan-id") == report["scan_id"], f"scan id: tags {tags}, report {report['scan_id']}")
        has_detail = bool(report["signatures"] or report["reason"])
        require(("clamgate-detail" in tags) == has_detail, f"clamgate-detail: {tags}")
        if sample.labelled:
            require(tags.get("uploaded-by") == "demo", f"the uploader's tag is lost: {tags}")
            require(found["Metadata"] == LABELS, f"the uploader's metadata is lost: {found['Metadata']}")

    def sample_set(self, directory: Path) -> list[Row]:
        """Each sample once."""
        files = samples.build(directory)
        print(f"\nuploading {len(files)} objects ...")
        uploads = [self.upload(sample) for sample in files]
        return [self.row(upload) for upload in uploads]

    def replaced_while_scanned(self, scratch: Path) -> list[Row]:
        """A clean object is overwritten with EICAR while it is being scanned: the clean verdict must not touch the new one."""
        key = "replaced while scanned"
        old = self.upload(Sample(key, samples.slow_file(scratch / "slow"), "CLEAN"))
        wait_for("the scan to begin", REPORT_SECONDS, lambda: messages_in_flight(self.sqs, self.queues.uploads))
        time.sleep(0.7)  # fetched, and some seconds of scanning to go
        path = scratch / "replacement"
        path.write_bytes(EICAR)
        new = self.upload(Sample(key, path, "INFECTED"))
        self.wait_until_idle()
        row = self.row(new)
        row.key = f"{key}: the new one"
        return [self.replaced_row(old, new), row]

    def replaced_row(self, old: Upload, new: Upload) -> Row:
        """The object that was replaced: it has a verdict, but its bytes are gone, so nothing can have been done with them."""
        received_at, report = self.first_report(old)
        milliseconds = 1000 * (received_at - old.finished_at)
        row = Row(f"{old.sample.key}: the old one", report["status"], report["reason"] or "", milliseconds, "nowhere", [])
        if report["status"] != old.sample.status:
            row.problems.append(f"expected {old.sample.status}")
        if done := [action for action in report["actions"] if action["outcome"] == "done"]:
            row.problems.append(f"the verdict was acted on: {done}")
        ended = datetime.fromisoformat(report["scanned_at"]).timestamp()
        began = ended - report["timings_ms"]["scan"] / 1000
        if not began < new.finished_at < ended:
            row.problems.append("was not replaced during its scan, so this run shows nothing")
        return row

    def same_message_twice(self, scratch: Path) -> list[Row]:
        """Once while the object is being worked on, once when it has long been moved."""
        later = next(upload for upload in self.uploads if upload.sample.labelled)
        before = self.state(later.sample)
        path = scratch / "twice"
        path.write_bytes(b"Twice.\n")
        at_once = self.upload(Sample("the same message twice, at once", path, "CLEAN"))
        self.announce(at_once)
        self.announce(later)
        self.wait_until_idle()
        rows = [self.row(at_once), self.row(later)]
        rows[1].key, rows[1].milliseconds = "the same message twice, later", None
        if self.state(later.sample) != before:
            rows[1].problems.append("the object changed")
        return rows

    def state(self, sample: Sample) -> tuple[Any, ...]:
        """What must stay the same of an object that has its verdict."""
        head = self.s3.head_object(Bucket=sample.place, Key=sample.key)
        return head["ETag"], head["LastModified"], head["Metadata"], self.tags(sample.place, sample.key)

    def leftovers(self) -> list[str]:
        """What is where it should not be, over all."""
        problems = []
        for name, url in (("queue", self.queues.uploads), ("dead-letter queue", self.queues.dead_letters)):
            if depth := queue_depth(self.sqs, url):
                problems.append(f"{depth} messages are in the {name}")
        expected: dict[str, set[str]] = {bucket: set() for bucket in BUCKETS}
        for upload in self.uploads:  # a key's last upload counts
            expected[CLEAN].discard(upload.sample.key)
            expected[upload.sample.place].add(upload.sample.key)
        for bucket in BUCKETS:
            listing = self.s3.list_object_versions(Bucket=bucket)
            entries = [entry["Key"] for kind in ("Versions", "DeleteMarkers") for entry in listing.get(kind, [])]
            if sorted(entries) != sorted(expected[bucket]):
                problems.append(f"bucket {bucket}: {len(entries)} objects, {len(expected[bucket])} expected: {sorted(entries)}")
        return problems


def create_aws(aws: LocalAws) -> Queues:
    """Buckets, queues, and the notifications that join them."""
    s3, queues = aws.client("s3"), create_queues(aws.client("sqs"))
    for bucket in BUCKETS:
        s3.create_bucket(Bucket=bucket)
    s3.put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
    for bucket in (UPLOADS, VERSIONED):
        notify(s3, bucket, "uploads")
    return queues


def write_config(scratch: Path, database: Path, queues: Queues) -> Path:
    """clamgate's configuration. A JSON string is also a TOML string."""
    (scratch / "scratch").mkdir()
    sections = {
        "definitions": {"dir": str(database)},
        "scan": {"scratch_dir": str(scratch / "scratch")},
        "queue": {"url": queues.uploads},
        "actions": {"promote_to": f"s3://{CLEAN}/", "quarantine_to": f"s3://{QUARANTINE}/"},
        "report": {"queue_url": queues.reports},
        "service": {"health_socket": str(scratch / "health.sock")},
        "log": {"format": "json"},
    }
    lines = []
    for section, fields in sections.items():
        lines.append(f"[{section}]")
        lines += [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items()]
    path = scratch / "clamgate.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def why(report: dict[str, Any]) -> str:
    """The first signature, how many more, and the reason: what of these there is."""
    names = report["signatures"]
    parts = [*names[:1], f"+{len(names) - 1} more" if len(names) > 1 else "", report["reason"] or ""]
    return ", ".join(part for part in parts if part)


def print_table(rows: list[Row]) -> None:
    """What the demo is for."""
    cells = [["key", "status", "signature or reason", "ms", "where it is now", ""]]
    for row in rows:
        milliseconds = "" if row.milliseconds is None else f"{row.milliseconds:.0f}"
        verdict = "ok" if not row.problems else "WRONG: " + "; ".join(row.problems)
        cells.append([shortened(row.key, 40), row.status, shortened(row.why, 50), milliseconds, row.place, verdict])
    print()
    print("\n".join(lines(cells, right=frozenset({3}))))
    print("\nms: from the end of the upload to the arrival of the report\n")


def run(clamgate: Path, database: Path | None, stack: ExitStack) -> int:
    """All of it. What is started is also put on the stack, which ends it."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-demo-")))
    database = (database or definitions.find()).resolve()
    aws = LocalAws(scratch)
    stack.callback(aws.stop)
    aws.wait_until_ready()
    queues = create_aws(aws)

    config, log = write_config(scratch, database, queues), scratch / "clamgate.log"
    begun = time.monotonic()
    service = start_service(clamgate, config, log, aws.environment())
    stack.callback(stop, service, 35)
    show_log = True
    try:
        wait_until_healthy(clamgate, config, aws.environment(), service)
        print(f"clamgate is ready after {time.monotonic() - begun:.1f} s", end="")
        reports = Reports(aws, queues.reports)
        reports.start()
        stack.callback(reports.ended.set)
        demo = Demo(aws, service, queues, reports)
        rows = demo.sample_set(scratch / "samples")
        rows += demo.replaced_while_scanned(scratch)
        rows += demo.same_message_twice(scratch)
        problems = demo.leftovers()
        begun = time.monotonic()
        code = stop(service, 35)
        if code != 0:
            problems.append(f"clamgate ended with {code} on SIGTERM")
        print_table(rows)
        wrong = sum(bool(row.problems) for row in rows)
        print(f"{len(rows)} rows, {wrong} not as expected")
        for problem in problems:
            print(f"WRONG: {problem}")
        if not problems:
            print(f"queue and dead-letter queue are empty; clamgate left within {time.monotonic() - begun:.1f} s of SIGTERM")
        show_log = bool(wrong or problems)
    except KeyboardInterrupt:
        show_log = False
        raise
    finally:
        if show_log:
            show_end(log)
    return int(show_log)


if __name__ == "__main__":
    sys.exit(main(__doc__, run))
