"""How the cost of an object grows with the number of messages on the queue."""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import svg
from figures import digits, table
from processes import cpu_seconds, memory_mib
from serve import Serve
from setting import TEST_SIGNATURES, Setting, say
from uploads import Store, random_uploads

TITLE = "Cost by the depth of the queue"
OBJECT_BYTES = 1024
DEPTHS, QUICK_DEPTHS = [100, 1_000, 5_000, 20_000], [100, 300, 1_000]


def empty_receive_ms(store: Store, queue: str) -> float:
    """How long the server takes to hand out ten messages at this depth."""
    begun = time.perf_counter()
    store.sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return 1000 * (time.perf_counter() - begun)


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """Fill the queue, then start clamgate, for each depth; with the test signatures: scanning is not what is measured."""
    store = Store(setting, stack)
    rows = []
    for number, depth in enumerate(QUICK_DEPTHS if setting.quick else DEPTHS):
        say(f"  {depth} messages")
        queue = store.queue(f"depth-{depth}")
        uploads = random_uploads(f"depth-{depth}", depth, OBJECT_BYTES, 200 + number)
        store.send_all(queue, store.put_all(uploads))
        receive_ms = min(empty_receive_ms(store, queue) for _ in range(5))
        with ExitStack() as ending:
            server_before = cpu_seconds(store.aws.process.pid)
            own = {"QUEUE__URL": queue, "QUEUE__WAIT_SECS": "1"}
            serve = Serve(setting, ending, own, store.aws, TEST_SIGNATURES)
            store.wait_until_empty(queue, serve.check)
            cpu, server = cpu_seconds(serve.pid), cpu_seconds(store.aws.process.pid) - server_before
            peak = memory_mib(serve.pid, "VmHWM")
        scanned = [entry["timestamp"] for entry in serve.new_entries() if entry["message"] == "object scanned"]
        if len(scanned) != depth:
            raise RuntimeError(f"{len(scanned)} objects were scanned, {depth} should have been")
        first, last = (datetime.fromisoformat(stamp) for stamp in (min(scanned), max(scanned)))
        seconds = (last - first).total_seconds()
        rows.append({
            "depth": depth,
            "seconds": seconds,
            "ms": 1000 * seconds / depth,
            "cpu_ms": 1000 * cpu / depth,
            "server_ms": 1000 * server / depth,
            "receive_ms": receive_ms,
            "peak_mib": peak,
        })
        store.delete_all(uploads)
    return {"rows": rows}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    rows = result["rows"]
    series = {
        "seconds until empty": [(row["depth"], row["seconds"]) for row in rows],
        "clamgate, processor s": [(row["depth"], row["cpu_ms"] * row["depth"] / 1000) for row in rows],
        "server, processor s": [(row["depth"], row["server_ms"] * row["depth"] / 1000) for row in rows],
    }
    svg.lines(plots / "depth.svg", "A full queue is emptied", "messages on the queue", "seconds", series, log=True)
    names = ("seconds", "ms", "cpu_ms", "server_ms", "receive_ms", "peak_mib")
    cells = [[f"{row['depth']:,}", *(digits(row[name]) for name in names)] for row in rows]
    head = ["messages", "s until empty", "ms per object", "clamgate's processor ms per object", "the server's"]
    lines = [
        "Objects of 1 KiB, the test signatures: what is measured is everything around the scan. The local SQS looks through "
        "the whole queue at each call, so its own time grows; clamgate's processor time includes its start.",
        "",
    ]
    lines += [*table([*head, "ms for a bare receive of ten", "peak memory, MiB"], cells)]
    return lines + ["![seconds by depth](benchmarks/depth.svg)", ""]
