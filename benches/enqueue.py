"""How much memory `clamgate enqueue` takes for more and more objects, and whether an interruption leaves a gap.

Fills a bucket of a local AWS, enqueues it at each of the given numbers of objects, and asks the kernel for the
largest resident set (VmHWM). At the largest number it also interrupts the run in the middle, resumes it, and compares the keys on the queue with those
in the bucket. Exits with 1 when a key is missing or comes twice.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
from local_aws import LocalAws, create_queues, queue_depth  # noqa: E402

BUCKET = "existing"
PREFIX = "incoming/2026/11/21/"
THREADS = 8


@dataclass
class Run:
    """One finished `clamgate enqueue`."""

    seconds: float
    peak_mib: float
    code: int
    summary: str


class Enqueue:
    """`clamgate enqueue` on the bucket, as a child process."""

    def __init__(self, clamgate: Path, aws: LocalAws, queue: str, *options: str) -> None:
        command = [str(clamgate), "enqueue", f"s3://{BUCKET}/{PREFIX}", "--queue-url", queue, *options]
        self.began = time.monotonic()
        self.peak_kib = 0
        self.process = subprocess.Popen(command, env=aws.environment(), stderr=subprocess.PIPE, text=True)

    def wait(self) -> Run:
        """Wait for the end. What it prints fits into a pipe."""
        # Not ru_maxrss of wait4: that begins with what this script had when it forked.
        while self.process.poll() is None:
            self.look()
            time.sleep(0.02)
        assert self.process.stderr
        summary = next((line.strip() for line in self.process.stderr if " listed: " in line), "")
        return Run(time.monotonic() - self.began, self.peak_kib / 1024, self.process.returncode, summary)

    def look(self) -> None:
        """Note the largest resident set until now."""
        try:
            lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        except OSError:  # it has just ended
            return
        self.peak_kib = max([self.peak_kib, *(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))])


def in_threads(aws: LocalAws, service: str, work: Callable[[Any, Any], None], items: Iterable[Any]) -> None:
    """Call `work(client, item)` for each item, with a client for each thread."""
    local = threading.local()

    def one(item: Any) -> None:
        if not hasattr(local, "client"):
            local.client = aws.client(service)
        work(local.client, item)

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(one, items):
            pass


def fill(aws: LocalAws, begin: int, end: int) -> None:
    """Small objects from one number to another."""
    in_threads(
        aws, "s3", lambda s3, n: s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}{n:07}.txt", Body=b"clean"), range(begin, end)
    )


def take_all(aws: LocalAws, queue: str, expected: int) -> Counter[str]:
    """Take every message from the queue; how often each key was there."""
    keys: Counter[str] = Counter()
    lock = threading.Lock()

    def take(sqs: Any, _: int) -> None:
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            found = [item["key"] for message in messages for item in json.loads(message["Body"])["objects"]]
            with lock:
                keys.update(found)
            entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n, message in enumerate(messages)]
            sqs.delete_message_batch(QueueUrl=queue, Entries=entries)

    in_threads(aws, "sqs", take, range(THREADS))
    left = queue_depth(aws.client("sqs"), queue)
    if left:
        raise RuntimeError(f"{left} of {expected} messages could not be taken")
    return keys


def interrupted(clamgate: Path, aws: LocalAws, queue: str, objects: int, scratch: Path) -> tuple[list[Run], Counter[str]]:
    """Enqueue with an interruption when about half is done."""
    sqs = aws.client("sqs")
    options = ["--state", str(scratch / "state.json")]
    first = Enqueue(clamgate, aws, queue, *options)
    while first.process.poll() is None and queue_depth(sqs, queue) < objects // 2:
        first.look()
        time.sleep(0.05)
    first.process.send_signal(signal.SIGINT)
    return [first.wait(), Enqueue(clamgate, aws, queue, *options).wait()], take_all(aws, queue, objects)


def show(label: str, run: Run) -> None:
    print(f"{label:<24} {run.peak_mib:6.1f} MiB {run.seconds:8.1f} s   exit {run.code}   {run.summary}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clamgate", type=Path, required=True, help="the program")
    parser.add_argument("--objects", type=int, nargs="+", default=[5_000, 50_000], help="how many objects, ascending")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        aws = LocalAws(scratch)
        try:
            aws.wait_until_ready()
            queue = create_queues(aws.client("sqs")).uploads
            aws.client("s3").create_bucket(Bucket=BUCKET)
            there, wrong = 0, 0
            for objects in arguments.objects:
                fill(aws, there, objects)
                there = objects
                expected = Counter(f"{PREFIX}{n:07}.txt" for n in range(objects))
                run = Enqueue(arguments.clamgate, aws, queue).wait()
                show(f"{objects} objects", run)
                wrong += run.code != 0 or take_all(aws, queue, objects) != expected
            (first, second), keys = interrupted(arguments.clamgate, aws, queue, there, scratch)
            show("interrupted", first)
            show("resumed", second)
            wrong += (first.code, second.code) != (2, 0) or keys != expected
            print(f"{len(expected - keys)} keys missing, {len(keys - expected)} twice")
            return 1 if wrong else 0
        finally:
            aws.stop()


if __name__ == "__main__":
    sys.exit(main())
