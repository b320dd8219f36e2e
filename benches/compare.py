"""clamgate beside clamscan and clamd: one corpus, one database, the same limits, in one run.

Every round runs each program once, one after the other, so that whatever else the machine does hits all of them alike. Time to
load the definitions is measured apart: clamd has it behind it, the others do not. Exits with 1 when the verdicts differ, other
than by clamgate being the stricter.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "demo"))
from local_aws import LocalAws, create_queues, isolated_environment, stop  # noqa: E402

# clamgate's limits by their names in clamd.conf and on clamscan's command line.
LIMITS = {
    "max_file_size_bytes": ("MaxFileSize", "--max-filesize"),
    "max_scan_size_bytes": ("MaxScanSize", "--max-scansize"),
    "max_files": ("MaxFiles", "--max-files"),
    "max_recursion": ("MaxRecursion", "--max-recursion"),
    "max_embedded_pe_bytes": ("MaxEmbeddedPE", "--max-embeddedpe"),
    "max_html_normalize_bytes": ("MaxHTMLNormalize", "--max-htmlnormalize"),
    "max_html_no_tags_bytes": ("MaxHTMLNoTags", "--max-htmlnotags"),
    "max_script_normalize_bytes": ("MaxScriptNormalize", "--max-scriptnormalize"),
    "max_zip_typercg_bytes": ("MaxZipTypeRcg", "--max-ziptypercg"),
    "max_partitions": ("MaxPartitions", "--max-partitions"),
    "max_icons_pe": ("MaxIconsPE", "--max-iconspe"),
    "max_rec_hwp3": ("MaxRecHWP3", "--max-rechwp3"),
    "pcre_match_limit": ("PCREMatchLimit", "--pcre-match-limit"),
    "pcre_rec_match_limit": ("PCRERecMatchLimit", "--pcre-recmatch-limit"),
    "pcre_max_file_size_bytes": ("PCREMaxFileSize", "--pcre-max-filesize"),
    "bytecode_timeout_ms": ("BytecodeTimeout", "--bytecode-timeout"),
}
# How libclamav says that it did not look at everything.
INCOMPLETE = ("Heuristics.Limits.Exceeded.", "Heuristics.Encrypted.")
# Debian puts it where only root's PATH leads.
CLAMD = shutil.which("clamd", path=f"{os.environ['PATH']}:/usr/sbin") or "clamd"
BASELINE = "clamdscan --fdpass -m"
IDLE_SECONDS = 10


@dataclass
class Run:
    """One finished command."""

    seconds: float
    peak_kib: int
    code: int


@dataclass
class Series:
    """A program's results, one per round."""

    scans: list[Run] = field(default_factory=list)
    loads: list[Run] = field(default_factory=list)

    def seconds(self) -> list[float]:
        """Per round, the time of scanning alone."""
        loads = [run.seconds for run in self.loads] or [0.0] * len(self.scans)
        return [max(scan.seconds - load, 1e-3) for scan, load in zip(self.scans, loads)]


@dataclass(frozen=True)
class Found:
    """What was said about one file."""

    names: frozenset[str]
    # Why it was not fully scanned: the end of libclamav's heuristic name, or clamgate's reason and detail.
    incomplete: str


def run(command: list[str], output: Path, environment: dict[str, str] | None = None) -> Run:
    """Run to its end; time and peak memory of this process alone."""
    with output.open("wb") as stdout, output.with_suffix(".stderr").open("wb") as stderr:
        begun = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1, 2):
        errors = output.with_suffix(".stderr").read_text(errors="replace")
        raise SystemExit(f"error: {' '.join(command)} ended with {process.returncode}:\n{errors[-2000:]}")
    return Run(seconds, usage.ru_maxrss, process.returncode)


def output_of(command: list[str]) -> str:
    """The first line that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=isolated_environment())
    return (done.stdout.splitlines() or [""])[0]


def memory_kib(process: subprocess.Popen[bytes], entry: str) -> int:
    """`VmRSS` (now) or `VmHWM` (the peak) of a running process."""
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1])
    raise SystemExit(f"error: no {entry} for {process.args}")


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Processor time of a running process."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Bench:
    """The programs, told to do the same."""

    def __init__(self, arguments: argparse.Namespace, scratch: Path) -> None:
        self.clamgate = str(arguments.clamgate.resolve())
        self.corpus, self.db = arguments.corpus.resolve(), arguments.db.resolve()
        self.rounds, self.threads, self.scratch = arguments.rounds, arguments.threads, scratch
        self.environment = isolated_environment() | {
            "CLAMGATE_SCAN__THREADS": str(self.threads),
            "CLAMGATE_SCAN__SCRATCH_DIR": str(scratch),
            "TMPDIR": str(scratch),
        }
        self.empty = scratch / "empty"
        self.empty.touch()
        printed = subprocess.run([self.clamgate, "check-config"], env=self.environment, capture_output=True, text=True, check=True)
        self.config: dict[str, Any] = tomllib.loads(printed.stdout)
        unknown = set(self.config["limits"]) ^ set(LIMITS)
        if unknown:
            raise SystemExit(f"error: limits that this benchmark does not know: {', '.join(sorted(unknown))}")
        self.clamd_conf = self.write_clamd_conf()
        self.series: dict[str, Series] = {}

    def write_clamd_conf(self) -> Path:
        """clamd with clamgate's threads, limits and alerts, and without its cache."""
        limits = {LIMITS[name][0]: value for name, value in self.config["limits"].items()}
        settings = limits | {
            "LocalSocket": self.scratch / "clamd.sock",
            "DatabaseDirectory": self.db,
            "TemporaryDirectory": self.scratch,
            "LogFile": self.scratch / "clamd.log",
            "LogFileMaxSize": 0,
            "Foreground": "yes",
            "SelfCheck": 0,
            "MaxThreads": self.threads,
            "MaxQueue": 2 * self.threads + 2,
            "MaxScanTime": 1000 * self.config["scan"]["timeout_secs"],
            "StreamMaxLength": limits["MaxFileSize"],
            "DisableCache": "yes",
            "AlertExceedsMax": "yes",
            "AlertEncrypted": "yes",
        }
        path = self.scratch / "clamd.conf"
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return path

    def clamgate_scan(self, target: Path) -> list[str]:
        return [self.clamgate, "scan", "--format", "json", "--db", str(self.db), str(target)]

    def clamscan(self, target: Path) -> list[str]:
        limits = [f"{LIMITS[name][1]}={value}" for name, value in self.config["limits"].items()]
        return [
            *("clamscan", "-d", str(self.db), "-r", "--no-summary", "--disable-cache=yes", "--allmatch=yes"),
            *("--alert-exceeds-max=yes", "--alert-encrypted=yes", f"--tempdir={self.scratch}"),
            *(f"--max-scantime={1000 * self.config['scan']['timeout_secs']}", *limits, str(target)),
        ]

    def clamdscan(self, *options: str) -> list[str]:
        return ["clamdscan", "-c", str(self.clamd_conf), "--no-summary", *options, str(self.corpus)]

    def start_clamd(self) -> tuple[subprocess.Popen[bytes], float]:
        """clamd, loaded and answering, and how long that took."""
        begun = time.perf_counter()
        with (self.scratch / "clamd.out").open("wb") as output:
            command = [CLAMD, "-c", str(self.clamd_conf)]
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        ping = ["clamdscan", "-c", str(self.clamd_conf), "--ping", "1"]
        while subprocess.run(ping, capture_output=True).returncode != 0:
            if process.poll() is not None:
                raise SystemExit(f"error: clamd ended:\n{(self.scratch / 'clamd.out').read_text(errors='replace')}")
            time.sleep(0.02)
        return process, time.perf_counter() - begun

    def round(self, with_clamscan: bool) -> None:
        """Each program once."""
        warm = {BASELINE: self.clamdscan("--fdpass", "-m"), "clamdscan --stream -m": self.clamdscan("--stream", "-m")}
        cold = {"clamgate scan": self.clamgate_scan}
        if with_clamscan:
            cold["clamscan"] = self.clamscan
        for name, command in cold.items():
            series = self.series.setdefault(name, Series())
            series.loads.append(run(command(self.empty), self.scratch / "load.out", self.environment))
            series.scans.append(run(command(self.corpus), self.scratch / f"{name}.out", self.environment))
        for name, plain in warm.items():
            self.series.setdefault(name, Series()).scans.append(run(plain, self.scratch / f"{name}.out"))

    def verdicts(self) -> tuple[dict[str, Found], dict[str, Found]]:
        """clamgate's of the last round, and clamd's with all matches (which neither -m nor --fdpass can give)."""
        ours: dict[str, Found] = {}
        for line in (self.scratch / "clamgate scan.out").read_text().splitlines():
            report = json.loads(line)
            reason = " ".join(filter(None, [report["reason"], report["detail"]]))
            ours[report["target"]["path"]] = Found(frozenset(report["signatures"]), reason)
        run(self.clamdscan("--allmatch"), self.scratch / "allmatch.out")
        names: dict[str, set[str]] = {}
        errors: dict[str, str] = {}
        for line in (self.scratch / "allmatch.out").read_text(errors="replace").splitlines():
            if match := re.fullmatch(r"(.+): (\S+) FOUND", line):
                names.setdefault(match[1], set()).add(match[2])
            elif match := re.fullmatch(r"(.+): (.+) ERROR", line):
                errors[match[1]] = match[2]
        theirs = {}
        for path in (str(file) for file in self.corpus.rglob("*") if file.is_file()):
            incomplete = [name.split(".", 2)[2] for name in names.get(path, ()) if name.startswith(INCOMPLETE)]
            found = frozenset(name for name in names.get(path, ()) if not name.startswith(INCOMPLETE))
            theirs[path] = Found(found, errors.get(path) or ", ".join(sorted(incomplete)))
        return ours, theirs

    def service_at_rest(self) -> tuple[int, float]:
        """`clamgate serve` with the same database on an empty queue: resident memory, and processor time while idle."""
        aws = LocalAws(self.scratch)
        try:
            aws.wait_until_ready()
            queues = create_queues(aws.client("sqs"))
            environment = self.environment | aws.environment() | {
                "CLAMGATE_DEFINITIONS__DIR": str(self.db),
                "CLAMGATE_QUEUE__URL": queues.uploads,
                "CLAMGATE_SERVICE__HEALTH_SOCKET": str(self.scratch / "health.sock"),
            }
            with (self.scratch / "serve.out").open("wb") as output:
                serve = [self.clamgate, "serve"]
                process = subprocess.Popen(serve, env=environment, stdout=output, stderr=output, start_new_session=True)
            try:
                while subprocess.run([self.clamgate, "health"], env=environment, capture_output=True).returncode != 0:
                    if process.poll() is not None:
                        raise SystemExit(f"error: clamgate serve ended:\n{(self.scratch / 'serve.out').read_text()[-2000:]}")
                    time.sleep(0.1)
                time.sleep(2)
                before = cpu_seconds(process)
                time.sleep(IDLE_SECONDS)
                return memory_kib(process, "VmRSS"), cpu_seconds(process) - before
            finally:
                stop(process, 35)
        finally:
            aws.stop()


def spread(values: list[float], digits: int) -> str:
    """Least, median and greatest."""
    return "–".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def mib(kib: int) -> str:
    return f"{kib / 1024:.0f} MiB"


def print_speed(bench: Bench, clamd_load: float, clamd_peak: int) -> None:
    """Seconds and peak memory of each program, and clamgate's time as a share of each other's."""
    print(f"\nseconds over {bench.rounds} rounds, least–median–greatest\n")
    print(f"{'':24}{'scan alone':>24}{'load':>24}{'load and scan':>24}{'peak memory':>14}")
    for name, series in bench.series.items():
        cold = bool(series.loads)
        load = spread([run.seconds for run in series.loads], 2) if cold else f"{clamd_load:.2f}"
        both = spread([run.seconds for run in series.scans], 2) if cold else "-"
        peak = max(run.peak_kib for run in series.scans) if cold else clamd_peak
        print(f"{name:24}{spread(series.seconds(), 2):>24}{load:>24}{both:>24}{mib(peak):>14}")
    print("\ntime of clamgate scan (scan alone) as a share of, per round\n")
    ours = bench.series["clamgate scan"].seconds()
    for name, series in bench.series.items():
        if name != "clamgate scan":
            print(f"{name:24}{spread([a / b for a, b in zip(ours, series.seconds())], 3):>24}")
    print("\nclamgate and clamscan look for all matches; clamdscan -m cannot, and stops at a file's first")
    if "clamscan" in bench.series:
        print("clamscan has one thread only; the others have as many as given above")


def print_agreement(ours: dict[str, Found], theirs: dict[str, Found]) -> bool:
    """Every file on which the two differ; whether clamgate is nowhere the laxer or other."""
    stricter, different = [], []
    for path in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(path), theirs.get(path)
        if a is None or b is None:
            different.append(f"{path}: {'not scanned by clamgate' if a is None else 'not known to clamd'}")
        elif a.names != b.names or (b.incomplete and not a.incomplete):
            different.append(f"{path}: clamgate {describe(a)}, clamd {describe(b)}")
        elif a.incomplete and not b.incomplete:
            stricter.append(f"{path}: clamgate {describe(a)}, clamd {describe(b)}")
    infected = sum(bool(found.names) for found in ours.values())
    same = len(theirs) - len(stricter) - len(different)
    print(f"\nverdicts: {same} of {len(theirs)} files the same; clamgate found something in {infected}")
    for title, lines in (("stricter", stricter), ("DIFFERENT", different)):
        print(f"{title}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    return not different


def describe(found: Found) -> str:
    names = " ".join(sorted(found.names))
    return ", ".join(filter(None, [names, found.incomplete and f"not fully scanned: {found.incomplete}"])) or "nothing"


def print_machine(bench: Bench) -> None:
    """What somebody needs to do the same again."""
    cpu = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    files = [file for file in bench.corpus.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    print(f"machine   {os.cpu_count()} cores, {cpu[1] if cpu else 'unknown'}")
    print(f"versions  {output_of([bench.clamgate, '--version'])}; {output_of([CLAMD, '--version'])}")
    print(f"threads   {bench.threads}")
    print(f"corpus    {bench.corpus}: {len(files)} files, {size / 1e6:.1f} MB")
    print(f"database  {bench.db}: {sum(file.stat().st_size for file in bench.db.iterdir()) / 1e6:.1f} MB")
    commands = [bench.clamgate_scan(bench.corpus), bench.clamscan(bench.corpus)]
    commands += [bench.clamdscan("--fdpass", "-m"), bench.clamdscan("--stream", "-m")]
    for command in commands:
        print(f"command   {' '.join(command)}")
    print("clamd.conf\n" + "".join(f"          {line}\n" for line in bench.clamd_conf.read_text().splitlines()), end="")


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clamgate", type=Path, required=True, help="the program, built for release")
    parser.add_argument("--corpus", type=Path, required=True, help="a directory of files to scan")
    parser.add_argument("--db", type=Path, required=True, help="a database directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-clamscan", action="store_true", help="leave out clamscan, which takes longest")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-bench-")))
        bench = Bench(arguments, scratch)
        print_machine(bench)
        for file in bench.corpus.rglob("*"):
            if file.is_file():
                file.read_bytes()  # into the page cache, for whoever comes first
        clamd, clamd_load = bench.start_clamd()
        stack.callback(stop, clamd, 30)
        clamd_rest = memory_kib(clamd, "VmRSS")
        for number in range(bench.rounds):
            print(f"round {number + 1} of {bench.rounds} ...", file=sys.stderr)
            bench.round(not arguments.no_clamscan)
        clamd_peak = memory_kib(clamd, "VmHWM")
        ours, theirs = bench.verdicts()
        rest, idle = bench.service_at_rest()
        print_speed(bench, clamd_load, clamd_peak)
        print(f"\nresident memory at rest: clamgate serve {mib(rest)}, clamd {mib(clamd_rest)}, ratio {rest / clamd_rest:.3f}")
        print(f"clamgate serve used {idle:.2f} s of processor time in {IDLE_SECONDS} idle seconds")
        return 0 if print_agreement(ours, theirs) else 1


if __name__ == "__main__":
    sys.exit(main())
