"""How much memory `clamgate enqueue` takes, whether an interruption leaves a gap, and how two workers share.

Fills a bucket of a local AWS, enqueues it at each of the given numbers of objects, and asks the kernel for the
largest resident set (VmHWM). At the largest number it also interrupts the run in the middle, resumes it, and compares
the keys on the queue with those in the bucket. Then it enqueues all of them once more for two `clamgate serve`, of which
the second is started when the first has done a tenth. Exits with 1 when a key is missing or comes twice, when a scan
fails, or when a worker gets nothing to do.
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
from local_aws import LocalAws, Queues, create_queues, queue_depth, stop  # noqa: E402

BUCKET = "existing"
PREFIX = "incoming/2026/11/21/"
THREADS = 8
WORKER_GRACE_SECONDS = 60
# Nothing has been done for so long: the rest will not be done either.
PATIENCE_SECONDS = 120


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
        self.peak_kib = max(self.peak_kib, peak_kib(self.process.pid))


def peak_kib(pid: int) -> int:
    """The largest resident set of a process until now; 0 when it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return max((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), default=0)


class Worker:
    """`clamgate serve` on the queue, as a child process. It leaves the objects where they are."""

    def __init__(self, clamgate: Path, aws: LocalAws, queue: str, definitions: Path, scratch: Path) -> None:
        scratch.mkdir()
        self.log = scratch / "log"
        environment = aws.environment() | {
            "CLAMGATE_QUEUE__URL": queue,
            "CLAMGATE_QUEUE__WAIT_SECS": "1",
            "CLAMGATE_DEFINITIONS__DIR": str(definitions),
            "CLAMGATE_DEFINITIONS__POLL_SECS": "0",
            "CLAMGATE_SCAN__SCRATCH_DIR": str(scratch),
            "CLAMGATE_LOG__FORMAT": "json",
        }
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([clamgate, "serve"], env=environment, stderr=log, start_new_session=True)

    def stop(self) -> float:
        """End it; its largest resident set in MiB."""
        peak = peak_kib(self.process.pid) / 1024
        code = stop(self.process, WORKER_GRACE_SECONDS)
        if code != 0:
            raise RuntimeError(f"a worker ended with {code}:\n{self.log.read_text()[-2000:]}")
        return peak

    def scanned(self) -> tuple[Counter[str], int]:
        """How often it scanned each key, and how many other verdicts than CLEAN and failed attempts there were."""
        keys: Counter[str] = Counter()
        failures = 0
        with self.log.open() as lines:
            for line in lines:
                entry = json.loads(line)
                if entry["message"] == "object scanned":
                    keys[entry["key"]] += 1
                    failures += entry["status"] != "CLEAN"
                else:
                    failures += entry["level"] in ("WARN", "ERROR")
        return keys, failures


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


def drain(aws: LocalAws, queue: str, until: int) -> None:
    """Wait until so few messages are left."""
    sqs = aws.client("sqs")
    least, since = sys.maxsize, time.monotonic()
    while (depth := queue_depth(sqs, queue)) > until:
        if depth < least:
            least, since = depth, time.monotonic()
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise RuntimeError(f"{depth} messages are left, and nothing happens")
        time.sleep(0.05)


def shared(clamgate: Path, aws: LocalAws, queues: Queues, expected: Counter[str], definitions: Path, scratch: Path) -> bool:
    """Have two workers empty the queue, the second one from when a tenth is done; whether each object was scanned once."""
    objects = expected.total()
    workers = [Worker(clamgate, aws, queues.uploads, definitions, scratch / "first")]
    try:
        began = time.monotonic()
        drain(aws, queues.uploads, objects - objects // 10)
        workers.append(Worker(clamgate, aws, queues.uploads, definitions, scratch / "second"))
        drain(aws, queues.uploads, 0)
        seconds = time.monotonic() - began
        peaks = [worker.stop() for worker in workers]
    finally:
        for worker in workers:
            stop(worker.process, WORKER_GRACE_SECONDS)
    keys: Counter[str] = Counter()
    failed, shares = 0, []
    for name, worker, peak in zip(("first worker", "second worker"), workers, peaks, strict=True):
        scanned, failures = worker.scanned()
        print(f"{name:<24} {peak:6.1f} MiB {scanned.total():8} objects, {failures} failures")
        shares.append(scanned.total())
        keys += scanned
        failed += failures
    left = queue_depth(aws.client("sqs"), queues.uploads) + queue_depth(aws.client("sqs"), queues.dead_letters)
    missing, twice = len(expected - keys), len(keys - expected)
    print(f"drained in {seconds:.1f} s: {missing} objects missing, {twice} twice, {failed} failed, {left} messages left")
    return keys == expected and failed == 0 and left == 0 and min(shares) > 0


def show(label: str, run: Run) -> None:
    print(f"{label:<24} {run.peak_mib:6.1f} MiB {run.seconds:8.1f} s   exit {run.code}   {run.summary}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clamgate", type=Path, required=True, help="the program")
    parser.add_argument("--objects", type=int, nargs="+", default=[5_000, 50_000], help="how many objects, ascending")
    definitions = Path(__file__).resolve().parent.parent / "tests/data/signatures"
    parser.add_argument("--definitions", type=Path, default=definitions, help="the workers' database directory")
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        aws = LocalAws(scratch)
        try:
            aws.wait_until_ready()
            queues = create_queues(aws.client("sqs"))
            queue = queues.uploads
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
            wrong += Enqueue(arguments.clamgate, aws, queue).wait().code != 0
            wrong += not shared(arguments.clamgate, aws, queues, expected, arguments.definitions, scratch)
            return 1 if wrong else 0
        finally:
            aws.stop()


if __name__ == "__main__":
    sys.exit(main())
