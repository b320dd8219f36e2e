"""From upload to verdict: `clamgate serve` beside a plain consumer that sends each object to clamd, on the same local AWS.

Throughput is measured on a backlog: the objects are there, their notifications are sent at once. Latency is measured on uploads
that come at a steady pace, which the slower of the two can keep. Both write a message for each result, and the queue's own time
stamp on that message is when the verdict was there.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import svg
from figures import digits, percentile, spread, table
from local_aws import free_port, notify, stop
from peers import Clamd
from processes import cpu_seconds, scan_thread_seconds
from serve import Serve
from setting import Setting, say
from uploads import Store, Upload, file_uploads, random_uploads

TITLE = "End to end: objects per second, and from upload to verdict"
SMALL_BYTES = 10_000
OURS, PLAIN = "clamgate serve", "plain consumer and clamd"
SMALL, VERSIONED, CORPUS = "objects of 10 KB", "objects of 10 KB, in a bucket with versions", "the corpus"
UPLOADERS = 4
# A backlog of small objects takes seconds, and says little alone: so many for each round.
SMALL_TURNS = 4


class Contender:
    """One of the two, with its queues and the processes whose time is counted."""

    def __init__(self, store: Store, name: str) -> None:
        self.name, self.short, self.store = name, name.split()[0], store
        self.uploads, self.results = store.queue(f"{self.short}-uploads"), store.queue(f"{self.short}-results")
        # Its objects are announced by S3 itself; those of the store's own bucket are not.
        self.bucket = f"{self.short}-live"
        store.s3.create_bucket(Bucket=self.bucket)
        notify(store.s3, self.bucket, f"{self.short}-uploads")
        # Whether each file of the corpus was clean.
        self.is_clean: dict[str, bool] = {}
        self.pids: dict[str, int] = {}
        self.is_alive: Callable[[], None] = lambda: None

    def used(self) -> dict[str, float]:
        """Processor seconds until now."""
        used = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        if self.name == OURS:
            used["scan threads"] = scan_thread_seconds(self.pids["clamgate"])
        return used | {"S3 and SQS": cpu_seconds(self.store.aws.process.pid)}

    def backlog(self, uploads: list[Upload], bucket: str = Store.BUCKET) -> dict[str, Any]:
        """Announce objects that are there already, all at once."""
        messages = self.store.put_all(uploads, bucket)
        before = self.used()
        self.store.send_all(self.uploads, messages)
        self.store.wait_until_full(self.results, len(uploads), self.is_alive)
        self.store.wait_until_empty(self.uploads, self.is_alive)
        used = self.used()
        times = sorted(sent for sent, _ in self.results_of(uploads).values())
        self.store.delete_all(uploads, bucket)
        return {
            "per_second": (len(times) - 1) / max(times[-1] - times[0], 1e-3),
            "cpu_ms": {name: 1000 * (used[name] - before[name]) / len(uploads) for name in used},
        }

    def paced(self, uploads: list[Upload], per_second: float) -> list[float]:
        """Milliseconds from the end of each upload to its result."""
        begun = time.time()

        def upload(s3: Any, entry: tuple[int, Upload]) -> tuple[str, float]:
            number, one = entry
            time.sleep(max(0.0, begun + number / per_second - time.time()))
            self.store.put(s3, one, self.bucket)
            return one.key, time.time()

        ended = dict(self.store.in_threads("s3", upload, enumerate(uploads), UPLOADERS))
        self.store.wait_until_full(self.results, len(uploads), self.is_alive)
        self.store.wait_until_empty(self.uploads, self.is_alive)
        results = self.results_of(uploads)
        for one in uploads:
            self.store.s3.delete_object(Bucket=self.bucket, Key=one.key)
        return [max(0.0, 1000 * (sent - ended[key])) for key, (sent, _) in results.items()]

    def results_of(self, uploads: list[Upload]) -> dict[str, tuple[float, dict[str, Any]]]:
        """The result of each upload by its key, with the time at which it was sent. Random bytes are clean."""
        results = {}
        for sent, body in self.store.take(self.results, len(uploads)):
            results[body["target"]["key"] if self.name == OURS else body["key"]] = (sent, body)
        for upload in uploads:
            if upload.key not in results:
                raise RuntimeError(f"{self.name}: two results on an object, and none on {upload.key}")
            status = results[upload.key][1]["status"]
            if isinstance(upload.content, Path):
                self.is_clean[str(upload.content)] = status in ("CLEAN", "OK")
            elif status not in ("CLEAN", "OK"):
                raise RuntimeError(f"{self.name}: random bytes are {status}")
        return results


def ours(setting: Setting, stack: ExitStack, store: Store) -> Contender:
    contender = Contender(store, OURS)
    urls = {"QUEUE__URL": contender.uploads, "REPORT__QUEUE_URL": contender.results}
    urls["QUEUE__MAX_IN_FLIGHT"] = str(in_flight(setting))
    serve = Serve(setting, stack, urls, store.aws)
    contender.pids, contender.is_alive = {"clamgate": serve.pid}, serve.check
    return contender


def plain(setting: Setting, stack: ExitStack, store: Store) -> Contender:
    contender, port = Contender(store, PLAIN), free_port()
    clamd = Clamd(setting, stack, port)
    script = str(Path(__file__).with_name("plain_consumer.py"))
    command = [sys.executable, "-B", script, "--endpoint", store.aws.endpoint, "--queue", contender.uploads]
    command += ["--results", contender.results, "--clamd-port", str(port), "--threads", str(in_flight(setting))]
    process = subprocess.Popen(command, env=setting.environment, start_new_session=True)
    stack.callback(stop, process, 5)

    def is_alive() -> None:
        if process.poll() is not None or clamd.process.poll() is not None:
            raise RuntimeError("the plain consumer or its clamd has ended")

    contender.pids, contender.is_alive = {"consumer": process.pid, "clamd": clamd.process.pid}, is_alive
    return contender


def in_flight(setting: Setting) -> int:
    """As many objects at once as clamgate works on by default (`queue.max_in_flight`), for both: the same chance to wait for S3 and SQS."""
    return min(max(16 * setting.threads, 32), 256)


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """Backlogs in alternating order, then latencies."""
    store = Store(setting, stack)
    say("  loading clamgate serve, and clamd for the plain consumer")
    contenders = [ours(setting, stack, store), plain(setting, stack, store)]
    count = 100 if setting.quick else 1000

    def uploads(workload: str, name: str, seed: int, most: int) -> list[Upload]:
        is_corpus = workload == CORPUS
        everything = file_uploads(name, setting) if is_corpus else random_uploads(name, most, SMALL_BYTES, seed)
        wanted = min(most, len(everything))
        return [everything[n * len(everything) // wanted] for n in range(wanted)]

    runs: dict[str, dict[str, list[Any]]] = {workload: {OURS: [], PLAIN: []} for workload in (SMALL, VERSIONED, CORPUS)}
    for contender in contenders:  # connections, threads and page tables are there afterwards
        contender.backlog(uploads(SMALL, f"warm-{contender.short}", 0, 30))
    for first_seed, (workload, results) in zip(range(1000, 10_000, 1000), runs.items()):
        turns = setting.rounds * (1 if workload == CORPUS or setting.quick else SMALL_TURNS)
        for number in range(turns):
            for contender in contenders[:: 1 if number % 2 == 0 else -1]:
                say(f"  {workload}, turn {number + 1} of {turns}: {contender.name}")
                most = len(setting.files) if workload == CORPUS else count
                some = uploads(workload, f"{contender.short}-{number}", first_seed + number, most)
                bucket = Store.VERSIONED if workload == VERSIONED else Store.BUCKET
                results[contender.name].append(contender.backlog(some, bucket))
    latencies: dict[str, dict[str, list[float]]] = {SMALL: {}, CORPUS: {}}
    pace = {}
    for workload in latencies:
        slower = min(statistics.median(run["per_second"] for run in of) for of in runs[workload].values())
        pace[workload] = slower / 2
        for contender in contenders:
            say(f"  {workload}, {pace[workload]:.1f} uploads a second: {contender.name}")
            some = uploads(workload, f"paced-{contender.short}", 100, 40 if setting.quick else 400)
            latencies[workload][contender.name] = contender.paced(some, pace[workload])
    ours_clean, plain_clean = (contender.is_clean for contender in contenders)
    both = ours_clean.keys() & plain_clean.keys()
    return {
        "runs": runs,
        "latencies": latencies,
        "pace": pace,
        "count": count,
        "in_flight": in_flight(setting),
        "compared": len(both),
        "only_ours_clean": sum(ours_clean[path] and not plain_clean[path] for path in both),
        "only_theirs_clean": sum(plain_clean[path] and not ours_clean[path] for path in both),
    }


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    lines = [
        f"Both work on up to {result['in_flight']} objects at once, tag each, and send a message with the result. clamgate "
        "keeps an object's other tags, and in a bucket without versions it asks before and after whether the object is still "
        "what was scanned: five calls to S3 for each object, three with versions. The plain consumer makes two. No two "
        "objects of 10 KB have the same content, and neither side remembers verdicts. Backlogs, for each in turns: "
        f"{len(result['runs'][SMALL][OURS])} of {result['count']} objects of 10 KB in each kind of bucket, and "
        f"{len(result['runs'][CORPUS][OURS])} of the corpus. Latency is from the end of the upload to the result, at a pace of "
        "half the slower one's throughput.",
        "",
    ]
    throughput, latency, bars, cpu = [], [], {}, {}
    for workload, results in result["runs"].items():
        rates = {name: [run["per_second"] for run in of] for name, of in results.items()}
        ratios = [a / b for a, b in zip(rates[OURS], rates[PLAIN])]
        throughput.append([workload, spread(rates[OURS]), spread(rates[PLAIN]), spread(ratios)])
        for name, of in results.items():
            bars[f"{name.split(' and')[0]}: {workload}"] = rates[name]
            cpu[workload, name] = [run["cpu_ms"] for run in of]
    for workload, results in result["latencies"].items():
        for name, values in results.items():
            at = [digits(percentile(values, share)) for share in (0.5, 0.95, 0.99)]
            latency.append([f"{workload}: {name}", digits(result["pace"][workload]), *at, str(len(values))])
    lines += [
        f"The verdicts on {result['compared']} files of the corpus: {result['only_ours_clean']} are clean for clamgate alone, "
        f"{result['only_theirs_clean']} for the plain consumer alone (which takes clamd's word).",
        "",
    ]
    svg.bars(plots / "end-to-end.svg", "A backlog of objects", "objects per second (longer is better)", bars)
    lines += table(["objects per second", OURS, PLAIN, "ratio"], throughput)
    lines += ["![objects per second](benchmarks/end-to-end.svg)", ""]
    lines += table(["upload to verdict, ms", "uploads a second", "p50", "p95", "p99", "uploads"], latency)
    rows = []
    for (workload, name), turns in cpu.items():
        own = [parts["clamgate"] - parts["scan threads"] if name == OURS else parts["consumer"] for parts in turns]
        scan = [parts["scan threads" if name == OURS else "clamd"] for parts in turns]
        rows.append([f"{workload}: {name}", spread(own), spread(scan), spread([parts["S3 and SQS"] for parts in turns])])
    head = ["processor time per object, ms", "its own", "scanning (clamgate's scan threads, or clamd)"]
    lines += table([*head, "the local S3 and SQS"], rows)
    lines += [
        "clamgate's own time is that of its process less that of its scan threads: fetching, hashing, the protocols of S3 "
        "and SQS, reports, the log. The local S3 and SQS are a Python program on the same processors; where their time is a "
        "large part of what there is, the ratio of objects per second says less about the two than it would on AWS. Their "
        "long poll looks only every tenth of a second, which both latencies contain.",
        "",
    ]
    return lines
