"""Child processes: running one to its end, and what the kernel says that a running one has used."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True)
class Run:
    """One finished command."""

    seconds: float
    peak_mib: float
    code: int
    errors: str


def run(command: list[str], output: Path, environment: dict[str, str] | None = None) -> Run:
    """Run to its end; time and peak memory of this process alone. 0, 1 and 2 are what scanners end with."""
    stderr = output.with_suffix(".stderr")
    with output.open("wb") as out, stderr.open("wb") as err:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    errors = stderr.read_text(errors="replace")
    if process.returncode not in (0, 1, 2):
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}:\n{errors[-2000:]}")
    return Run(seconds, usage.ru_maxrss / 1024, process.returncode, errors)


def memory_mib(pid: int, entry: str = "VmRSS") -> float:
    """`VmRSS`, the resident memory now, or `VmHWM`, its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not say {entry} of process {pid}")


def own_mib(pid: int) -> float:
    """Resident memory that the system cannot take back: without the pages of files, which are its cache."""
    return memory_mib(pid, "RssAnon") + memory_mib(pid, "RssShmem")


class Peak:
    """The most memory of its own that a process had since this began, looked at every hundredth of a second: the kernel
    keeps a peak of all resident memory only."""

    def __init__(self, pid: int) -> None:
        self.pid, self.mib, self.ended = pid, 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def watch(self) -> None:
        while not self.ended.is_set():
            with contextlib.suppress(OSError, RuntimeError):  # it has ended
                self.mib = max(self.mib, own_mib(self.pid))
            time.sleep(0.01)

    def __enter__(self) -> Peak:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


def forget_peak(pid: int) -> None:
    """Let `VmHWM` begin again at what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def cpu_seconds(pid: int) -> float:
    """Processor time of a running process, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def scan_thread_seconds(pid: int) -> float:
    """Processor time of clamgate's scan threads (`scan-0`, `scan-1`, …), which is libclamav's but for very little."""
    seconds, found = 0.0, 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if name.startswith("scan-") and name.removeprefix("scan-").isdigit():
            seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
            found += 1
    if not found:
        raise RuntimeError(f"process {pid} has no thread that is named scan-0")
    return seconds
