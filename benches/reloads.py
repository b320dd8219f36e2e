"""Throughput before, during and after a reload of the definitions."""

from __future__ import annotations

import os
import socket
import statistics
import threading
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import svg
from figures import digits, size, spread, table
from serve import Serve
from setting import Setting, say

TITLE = "Reload under load"


class Load(threading.Thread):
    """A client that has one file scanned over and over, by clamd's protocol. It passes the open file, which costs it nothing."""

    def __init__(self, address: Path, sample: Path, ended: threading.Event) -> None:
        super().__init__(daemon=True)
        self.address, self.sample, self.ended = str(address), sample, ended
        self.done: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            while not self.ended.is_set():
                self.scan()
                self.done.append(time.monotonic())
        except Exception as error:  # told by the main thread
            self.error = error

    def scan(self) -> None:
        with socket.socket(socket.AF_UNIX) as connection, self.sample.open("rb") as sample:
            connection.settimeout(300)
            connection.connect(self.address)
            connection.sendall(b"zFILDES\0")
            socket.send_fds(connection, [b"\0"], [sample.fileno()])
            answer = b""
            while not answer.endswith(b"\0"):
                received = connection.recv(4096)
                if not received:
                    raise RuntimeError(f"the service ended the connection after {answer!r}")
                answer += received
            if not answer.endswith((b" OK\0", b" FOUND\0")):
                raise RuntimeError(f"the service answered {answer!r}")


def sample_of(files: list[Path]) -> Path:
    """A file of the corpus that is larger than three quarters of the others, and no larger than 4 MiB."""
    sizes = sorted((path.stat().st_size, path) for path in files)
    small = [entry for entry in sizes if entry[0] <= 4 << 20] or sizes[:1]
    return small[3 * (len(small) - 1) // 4][1]


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """One processor is left to the reload, if there is more than one."""
    threads = max(1, (os.cpu_count() or 1) - 1)
    address = setting.scratch / "clamgate.sock"
    own = {"CLAMD__SOCKET": str(address), "SCAN__THREADS": str(threads)}
    serve = Serve(replace(setting, threads=threads), stack, own)
    sample, ended = sample_of(setting.files), threading.Event()
    clients = [Load(address, sample, ended) for _ in range(threads + 1)]
    stack.callback(ended.set)
    for client in clients:
        client.start()
    window = 5.0 if setting.quick else 20.0

    def rate(begin: float, end: float) -> float:
        for client in clients:
            if client.error:
                raise client.error
        return sum(begin <= at < end for client in clients for at in list(client.done)) / (end - begin)

    def wait() -> tuple[float, float]:
        begin = time.monotonic()
        time.sleep(window)
        return begin, time.monotonic()

    time.sleep(2)
    begun, rows = time.monotonic(), []
    for number in range(setting.rounds):
        say(f"  reload {number + 1} of {setting.rounds}")
        before = wait()
        began = time.monotonic()
        took = serve.reload()
        during = (began, time.monotonic())
        after = wait()
        rows.append({"took": took, "span": [at - begun for at in during], "before": rate(*before), "during": rate(*during)})
        rows[-1]["after"] = rate(*after)
    last = time.monotonic()
    ended.set()
    for client in clients:
        client.join()
    step = 1.0
    starts = [begun + n * step for n in range(int((last - begun) / step))]
    per_second = [(start - begun, rate(start, start + step)) for start in starts]
    sample_bytes, load = sample.stat().st_size, serve.load_seconds
    return {"rows": rows, "per_second": per_second, "sample_bytes": sample_bytes, "threads": threads, "load_seconds": load}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    rows = result["rows"]
    marks = {f"reload {n}": row["span"][0] for n, row in enumerate(rows, 1)}
    marks |= {f"done {n}": row["span"][1] for n, row in enumerate(rows, 1) if row["took"] >= 1}
    series = {"scans per second": result["per_second"]}
    svg.lines(plots / "reload.svg", "Scans per second across reloads", "seconds", "scans per second", series, marks=marks)
    cells = []
    for number, row in enumerate(rows, 1):
        share = row["during"] / row["before"] if row["before"] else 0.0
        rates = [digits(row[name]) for name in ("before", "during", "after")]
        cells.append([str(number), digits(row["took"]), *rates, f"{100 * share:.0f}%"])
    took = [row["took"] for row in rows]
    lines = [
        f"Scan threads: {result['threads']}, so that the reload has a processor of its own where there is one to spare. One "
        f"file of {size(result['sample_bytes'])} is scanned over and over for {result['threads'] + 1} clients. The first load "
        f"took {digits(result['load_seconds'])} s, a reload {spread(took)} s.",
        "",
    ]
    if statistics.median(took) < 1:
        lines += ["With so few signatures a reload is over too soon for a rate during it to mean anything.", ""]
    lines += table(["reload", "seconds", "scans/s before", "during", "after", "during / before"], cells)
    return lines + ["![scans per second](benchmarks/reload.svg)", ""]
