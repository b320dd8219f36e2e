"""How throughput grows with the scan threads."""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import svg
from engine import ClamgateScan
from figures import digits, spread, table
from setting import Setting, say

TITLE = "Throughput by the number of scan threads"


def counts() -> list[int]:
    """1, 2, 4 … and all processors."""
    most = os.cpu_count() or 1
    return sorted({2**power for power in range(most.bit_length()) if 2**power <= most} | {most})


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """`clamgate scan` over the corpus, in rounds."""
    setting.warm_page_cache()
    scans = {}
    for threads in counts():
        scans[threads] = ClamgateScan(setting, setting.environment | {"CLAMGATE_SCAN__THREADS": str(threads)})
    seconds: dict[str, list[float]] = {str(threads): [] for threads in scans}
    for number in range(setting.rounds):
        for threads, scan in scans.items():
            say(f"  round {number + 1} of {setting.rounds}: {threads} threads")
            seconds[str(threads)].append(scan.scan(setting.corpus))
    return {"seconds": seconds, "bytes": setting.corpus_bytes, "processors": os.cpu_count()}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    rates = {int(n): [result["bytes"] / 1e6 / value for value in values] for n, values in result["seconds"].items()}
    medians = {threads: statistics.median(values) for threads, values in rates.items()}
    series = {
        "clamgate scan": [(float(threads), rate) for threads, rate in medians.items()],
        "in proportion": [(float(threads), medians[1] * threads) for threads in medians],
    }
    svg.lines(plots / "threads.svg", "The corpus, by scan threads", "scan threads", "MB/s", series)
    rows = [[str(n), spread(result["seconds"][str(n)]), spread(rates[n]), digits(medians[n] / medians[1])] for n in medians]
    lines = [f"`clamgate scan` over the corpus, without loading, on {result['processors']} processors.", ""]
    lines += table(["threads", "seconds", "MB/s", "times one thread"], rows)
    return lines + ["![MB/s by threads](benchmarks/threads.svg)", ""]
