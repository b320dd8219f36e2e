"""How the cost of one object grows with its size, across the threshold from memory to disk."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import svg
from figures import digits, size, table
from processes import MIB, Peak, forget_peak, memory_mib
from serve import Serve
from setting import Setting, say
from uploads import Store, random_uploads

TITLE = "Cost by the size of an object"
# What takes so long that it is measured once.
LARGE_BYTES = 256 * MIB
TIMES = ("fetch", "scan", "act", "total")


def sizes(largest: int, threshold: int) -> list[int]:
    """From 1 KiB in steps of four to the largest, and close to the threshold on both of its sides."""
    steps = {1024 * 4**power for power in range(11)} | {threshold - MIB, threshold + MIB} | {largest}
    return sorted(value for value in steps if value <= largest)


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """One object at a time; the times are those of clamgate's report."""
    store = Store(setting, stack)
    queues = {"QUEUE__URL": store.queue("uploads"), "REPORT__QUEUE_URL": store.queue("reports")}
    serve = Serve(setting, stack, queues | {"SCAN__TIMEOUT_SECS": "600"}, store.aws)
    threshold = setting.config["scan"]["in_memory_max_bytes"]
    largest = min(setting.max_size_mib * MIB, setting.config["limits"]["max_file_size_bytes"])
    rows = []
    for count in sizes(largest, threshold):
        repeats = 1 if count > LARGE_BYTES else setting.rounds * (3 if count < MIB else 1)
        say(f"  {size(count)}")
        times: list[dict[str, float]] = []
        own_mib = 0.0
        forget_peak(serve.pid)
        for number in range(repeats):
            uploads = random_uploads(f"size-{count}-{number}", 1, count, count + number)
            messages = store.put_all(uploads)
            with Peak(serve.pid) as own:
                store.send_all(queues["QUEUE__URL"], messages)
                store.wait_until_full(queues["REPORT__QUEUE_URL"], 1, serve.check)
            own_mib = max(own_mib, own.mib)
            ((_, report),) = store.take(queues["REPORT__QUEUE_URL"], 1)
            status = " ".join(filter(None, [report["status"], report["reason"], report["detail"]]))
            times.append(report["timings_ms"])
            store.delete_all(uploads)
        medians = {name: statistics.median(entry[name] for entry in times) for name in TIMES}
        peak = memory_mib(serve.pid, "VmHWM")
        row = {"bytes": count, "times": medians, "repeats": repeats, "status": status}
        rows.append(row | {"peak_mib": peak, "own_mib": own_mib})
    return {"rows": rows, "threshold": threshold}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    rows = result["rows"]
    series = {name: [(row["bytes"], row["times"][name]) for row in rows] for name in ("fetch", "scan", "total")}
    marks = {"memory | disk": result["threshold"]}
    svg.lines(plots / "size.svg", "One object, by its size", "bytes", "milliseconds", series, log=True, marks=marks)
    cells = []
    for row in rows:
        times = row["times"]
        per_mib = times["total"] * MIB / row["bytes"]
        cells.append([size(row["bytes"]), *(digits(times[name]) for name in TIMES), digits(per_mib)])
        cells[-1] += [digits(row["peak_mib"]), digits(row["own_mib"])]
    unclean = [f"{size(row['bytes'])}: {row['status']}." for row in rows if row["status"] != "CLEAN"]
    lines = [
        "Objects of random bytes, one at a time, from the queue to the report; milliseconds by clamgate's report (median). "
        f"\"total\" begins when the message was sent. Above {size(result['threshold'])} an object goes to disk, not to memory.",
        *unclean,
        "",
    ]
    head = ["size", *TIMES, "total per MiB", "peak memory, MiB", "without pages of files"]
    lines += table(head, cells)
    return lines + ["![milliseconds by size](benchmarks/size.svg)", ""]
