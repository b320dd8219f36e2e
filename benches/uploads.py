"""Objects in a local S3, and the messages that announce them on a local SQS."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

from local_aws import LocalAws, queue_depth
from setting import Setting

THREADS = 8
PART_BYTES = 64 << 20
# Nothing has been done for so long: the rest will not be done either.
PATIENCE_SECONDS = 600
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Upload:
    """An object that is to be put."""

    key: str
    size: int
    # Bytes from this seed, or the content of this file.
    content: int | Path

    def body(self) -> bytes:
        return randbytes(self.content, self.size) if isinstance(self.content, int) else self.content.read_bytes()

    def parts(self) -> Iterator[bytes]:
        """The body of a large one, a part at a time."""
        assert isinstance(self.content, int)
        for begin in range(0, self.size, PART_BYTES):
            yield randbytes(self.content + begin, min(PART_BYTES, self.size - begin))


def randbytes(seed: int, size: int) -> bytes:
    """Random but for the first two, which libclamav takes for no format: two random bytes are those of .Z, or of a program, once in
    thirty thousand files."""
    return (b"\xfe\xfe" + random.Random(seed).randbytes(size))[:size]


def random_uploads(prefix: str, count: int, size: int, seed: int) -> list[Upload]:
    """Objects of random bytes, no two the same as long as the seeds are a million apart."""
    return [Upload(f"{prefix}/{n:06}", size, seed * 1_000_000 + n) for n in range(count)]


def file_uploads(prefix: str, setting: Setting) -> list[Upload]:
    """The corpus."""
    return [Upload(f"{prefix}/{n:06}{path.suffix}", path.stat().st_size, path) for n, path in enumerate(setting.files)]


class Store:
    """A local AWS with a bucket, and one with versions, ended with the stack."""

    BUCKET, VERSIONED = "bench", "bench-versions"

    def __init__(self, setting: Setting, stack: ExitStack) -> None:
        directory = setting.scratch / f"aws-{time.monotonic_ns()}"
        directory.mkdir()
        self.aws = LocalAws(directory, is_lean=True)
        stack.callback(self.aws.stop)
        self.aws.wait_until_ready()
        self.s3, self.sqs = self.aws.client("s3"), self.aws.client("sqs")
        for bucket in (self.BUCKET, self.VERSIONED):
            self.s3.create_bucket(Bucket=bucket)
        self.s3.put_bucket_versioning(Bucket=self.VERSIONED, VersioningConfiguration={"Status": "Enabled"})

    def queue(self, name: str) -> str:
        """A new queue. Nothing here takes longer than its visibility timeout."""
        return self.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": "600"})["QueueUrl"]

    def in_threads(
        self, service: str, work: Callable[[Any, Any], Any], items: Iterable[Any], threads: int = THREADS
    ) -> list[Any]:
        """`work(client, item)` for each item, with a client for each thread."""
        local = threading.local()

        def one(item: Any) -> Any:
            if not hasattr(local, "client"):
                local.client = self.aws.client(service)
            return work(local.client, item)

        pool = ThreadPoolExecutor(threads)
        try:
            return list(pool.map(one, items))
        finally:
            pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, those that have not begun

    def put(self, s3: Any, upload: Upload, bucket: str = BUCKET) -> str:
        """Put it, a large one in parts; what S3 would send about it."""
        target: dict[str, Any] = {"Bucket": bucket, "Key": upload.key}
        if upload.size <= PART_BYTES or isinstance(upload.content, Path):
            return notification(bucket, upload, s3.put_object(**target, Body=upload.body()))
        target["UploadId"] = s3.create_multipart_upload(**target)["UploadId"]
        parts = []
        for number, block in enumerate(upload.parts(), 1):
            etag = s3.upload_part(**target, PartNumber=number, Body=block)["ETag"]
            parts.append({"PartNumber": number, "ETag": etag})
        return notification(bucket, upload, s3.complete_multipart_upload(**target, MultipartUpload={"Parts": parts}))

    def put_all(self, uploads: list[Upload], bucket: str = BUCKET) -> list[str]:
        """The notifications of the objects, which are put now."""
        return self.in_threads("s3", lambda s3, upload: self.put(s3, upload, bucket), uploads)

    def send_all(self, queue: str, notifications: list[str]) -> None:
        """Ten at a time."""
        batches = [notifications[begin:begin + 10] for begin in range(0, len(notifications), 10)]

        def send(sqs: Any, batch: list[str]) -> None:
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(batch)]
            sqs.send_message_batch(QueueUrl=queue, Entries=entries)

        self.in_threads("sqs", send, batches, 4)

    def delete_all(self, uploads: list[Upload], bucket: str = BUCKET) -> None:
        batches = [uploads[begin:begin + 500] for begin in range(0, len(uploads), 500)]
        for batch in batches:
            self.s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": upload.key} for upload in batch]})

    def wait_until_full(self, queue: str, depth: int, check: Callable[[], None]) -> None:
        """Until so many messages are there. `check` raises when whoever sends them has ended."""
        self.wait(queue, lambda now: now >= depth, check)

    def wait_until_empty(self, queue: str, check: Callable[[], None]) -> None:
        """Until no message is left, those that somebody works on included."""
        self.wait(queue, lambda now: now == 0, check)

    def wait(self, queue: str, is_done: Callable[[int], bool], check: Callable[[], None]) -> None:
        last, since = -1, time.monotonic()
        while not is_done(now := queue_depth(self.sqs, queue)):
            check()
            if now != last:
                last, since = now, time.monotonic()
            if time.monotonic() - since > PATIENCE_SECONDS:
                raise RuntimeError(f"{now} messages are on a queue, and nothing happens")
            time.sleep(POLL_SECONDS)

    def take(self, queue: str, count: int) -> list[tuple[float, dict[str, Any]]]:
        """All results, which are so many, each with the time in seconds at which it was sent."""
        results: list[tuple[float, dict[str, Any]]] = []
        while len(results) < count:
            wish = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 5, "AttributeNames": ["SentTimestamp"]}
            messages = self.sqs.receive_message(QueueUrl=queue, **wish).get("Messages", [])
            if not messages:
                raise RuntimeError(f"{len(results)} results came, {count} should have")
            for message in messages:
                results.append((int(message["Attributes"]["SentTimestamp"]) / 1000, json.loads(message["Body"])))
            entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
            self.sqs.delete_message_batch(QueueUrl=queue, Entries=entries)
        if left := queue_depth(self.sqs, queue):
            raise RuntimeError(f"{left} more results came than the {count} that should have")
        return results


def notification(bucket: str, upload: Upload, put: dict[str, Any]) -> str:
    """What S3 would send about an upload that it answered like this."""
    content = {"key": quote_plus(upload.key, safe="/"), "eTag": put["ETag"].strip('"'), "size": upload.size}
    if "VersionId" in put:
        content["versionId"] = put["VersionId"]
    place = {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"}
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventTime": time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime()),
        "eventName": "ObjectCreated:Put",
        "s3": {"s3SchemaVersion": "1.0", "bucket": place, "object": content},
    }
    return json.dumps({"Records": [record]})
