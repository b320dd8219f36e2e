"""clamgate's engine beside clamd, clamscan and plain libclamav: one corpus, one database, the same limits and threads.

Every round has each program scan the whole corpus once, one after the other and beginning with another one each time, so that
whatever else the machine does hits all of them alike. Loading is measured apart.
"""

from __future__ import annotations

import re
import statistics
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Callable

import svg
import verdicts
from figures import digits, spread, table
from peers import Clamd, PlainLibclamav, clamscan
from processes import memory_mib, run
from serve import Serve
from setting import Setting, say

TITLE = "Engine: clamgate beside clamd, clamscan and plain libclamav"
OURS, SERVE = "clamgate scan", "clamgate serve, clamdscan --stream -m"
SERVE_FDPASS = "clamgate serve, clamdscan --fdpass -m"
STREAM, FDPASS = "clamd, clamdscan --stream -m", "clamd, clamdscan --fdpass -m"
OWN_LIMITS = "clamd with its own default limits, clamdscan --stream -m"
# The summary says the time of the scan to a tenth of a second. When loading takes longer than this, that is more exact than the
# difference to a scan of nothing.
LONG_LOAD_SECONDS = 2.0


class ClamgateScan:
    """`clamgate scan`, which loads the definitions each time."""

    def __init__(self, setting: Setting, environment: dict[str, str] | None = None) -> None:
        self.setting, self.environment = setting, environment or setting.environment
        self.empty = setting.scratch / "empty"
        self.empty.touch()
        self.output = setting.scratch / "clamgate-scan.out"
        self.peak_mib = 0.0
        self.loads: list[float] = []

    def command(self, target: Path) -> list[str]:
        return [str(self.setting.clamgate), "scan", "--format", "json", "--db", str(self.setting.db), str(target)]

    def scan(self, target: Path) -> float:
        """Seconds of scanning alone."""
        done = run(self.command(target), self.output, self.environment)
        self.peak_mib = max(self.peak_mib, done.peak_mib)
        said = re.search(r"in ([\d.]+) s \(definitions loaded in ([\d.]+) s\)", done.errors)
        if not said:
            raise RuntimeError(f"clamgate scan did not say how long it took:\n{done.errors[-2000:]}")
        if float(said[2]) >= LONG_LOAD_SECONDS:
            self.loads.append(float(said[2]))
            return float(said[1])
        nothing = run(self.command(self.empty), self.output.with_name("empty.out"), self.environment)
        self.loads.append(nothing.seconds)
        return max(done.seconds - nothing.seconds, 1e-3)


def clamdscan_seconds(setting: Setting, name: str, command: list[str]) -> float:
    return run(command, setting.scratch / f"{name}.out").seconds


def cold_clamscan(setting: Setting) -> dict[str, Any]:
    """`clamscan` once for each of some files, evenly spread over the sizes: what it costs to start it for each upload."""
    by_size = sorted(setting.files, key=lambda path: path.stat().st_size)
    count = min(3 if setting.quick else 5, len(by_size))
    chosen = [by_size[(2 * n + 1) * len(by_size) // (2 * count)] for n in range(count)]
    runs = [run(clamscan(setting, path), setting.scratch / "clamscan.out") for path in chosen]
    sizes = [path.stat().st_size for path in chosen]
    return {"sizes": sizes, "seconds": [done.seconds for done in runs], "peak_mib": max(done.peak_mib for done in runs)}


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """Load all that stay loaded, then the rounds."""
    setting.warm_page_cache()
    say("  loading clamd, plain libclamav and clamgate serve")
    clamd, plain = Clamd(setting, stack), PlainLibclamav(setting, stack)
    by_default = Clamd(setting, stack, own_limits=True)
    socket = setting.scratch / "clamgate.sock"
    serve = Serve(setting, stack, {"CLAMD__SOCKET": str(socket)})
    ours = ClamgateScan(setting)
    corpus = setting.corpus
    conf = serve.clamd_conf(setting, socket)
    to_serve = {way: ["clamdscan", "-c", str(conf), "--no-summary", way, "-m", str(corpus)] for way in ("--stream", "--fdpass")}
    to_clamd = {STREAM: clamd.clamdscan(corpus, "--stream", "-m"), FDPASS: clamd.clamdscan(corpus, "--fdpass", "-m")}
    found_by_plain: dict[str, Any] = {}

    def in_process(all_matches: bool) -> float:
        found_by_plain.update(plain.scan(corpus, all_matches))
        return found_by_plain["seconds"]

    programs: dict[str, Callable[[], float]] = {
        OURS: lambda: ours.scan(corpus),
        SERVE: lambda: clamdscan_seconds(setting, "serve", to_serve["--stream"]),
        SERVE_FDPASS: lambda: clamdscan_seconds(setting, "serve-fdpass", to_serve["--fdpass"]),
        STREAM: lambda: clamdscan_seconds(setting, "stream", to_clamd[STREAM]),
        FDPASS: lambda: clamdscan_seconds(setting, "fdpass", to_clamd[FDPASS]),
        OWN_LIMITS: lambda: clamdscan_seconds(setting, "own-limits", by_default.clamdscan(corpus, "--stream", "-m")),
        "libclamav in process": lambda: in_process(False),
        "libclamav in process, all matches": lambda: in_process(True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(setting.rounds):
        names = list(programs)
        for name in names[number % len(names):] + names[: number % len(names)]:
            say(f"  round {number + 1} of {setting.rounds}: {name}")
            seconds[name].append(programs[name]())
    say("  verdicts, and clamscan on some files")
    compared = verdicts.compare(setting, verdicts.of_clamgate(ours.output), verdicts.of_clamd(setting, clamd))
    clamd_found = verdicts.infected_of_clamdscan(setting.scratch / "stream.out")
    return {
        "seconds": seconds,
        "files": len(setting.files),
        "bytes": setting.corpus_bytes,
        "signatures": plain.signatures,
        "load_seconds": {
            OURS: statistics.median(ours.loads),
            "clamgate serve": serve.load_seconds,
            "clamd": clamd.load_seconds,
            "libclamav in process": plain.load_seconds,
        },
        "peak_mib": {
            OURS: ours.peak_mib,
            "clamgate serve": memory_mib(serve.pid, "VmHWM"),
            "clamd": memory_mib(clamd.process.pid, "VmHWM"),
            "libclamav in process": memory_mib(plain.process.pid, "VmHWM"),
        },
        "cold": cold_clamscan(setting),
        "verdicts": compared,
        "plain_differs": sorted(map(setting.anonymous, clamd_found ^ set(found_by_plain["found"]))),
        "commands": [setting.anonymous(" ".join(command)) for command in (ours.command(corpus), *to_clamd.values())],
        "clamd_conf": [setting.anonymous(f"{name} {value}") for name, value in clamd.settings.items()],
    }


def is_wrong(result: dict[str, Any]) -> bool:
    """Whether a verdict differs, other than by clamgate being the stricter."""
    return bool(result["verdicts"]["different"])


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    seconds, rate = result["seconds"], result["bytes"] / 1e6
    svg.bars(plots / "engine.svg", "The whole corpus, definitions loaded", "seconds (shorter is better)", seconds)
    rows = []
    for name, values in seconds.items():
        ratios = [theirs / ours for theirs, ours in zip(values, seconds[OURS])]
        rows.append([name, spread(values), digits(rate / statistics.median(values)), "" if name == OURS else spread(ratios)])
    lines = [
        f"{result['signatures']:,} signatures. Seconds for the whole corpus without loading, over {len(seconds[OURS])} rounds: "
        "the median, then the least and the greatest.",
        "",
    ]
    lines += table(["program", "seconds", "MB/s", f"`{OURS}` is so many times as fast"], rows)
    same_client = {
        way: spread([theirs / ours for theirs, ours in zip(seconds[clamd], seconds[serve])])
        for way, clamd, serve in (("--stream", STREAM, SERVE), ("--fdpass", FDPASS, SERVE_FDPASS))
    }
    lines += [
        f"Asked by the same client, `clamgate serve` is {same_client['--stream']} times as fast as clamd by `--stream`, and "
        f"{same_client['--fdpass']} times by `--fdpass`.",
        "",
    ]
    lines += ["![seconds for the corpus](benchmarks/engine.svg)", ""]
    resident = [[name, digits(value), digits(result["peak_mib"][name])] for name, value in result["load_seconds"].items()]
    lines += table(["program", "load, s", "peak memory, MiB"], resident)
    cold, per_file = result["cold"], statistics.median(seconds[OURS]) / result["files"]
    lines += [
        f"A cold `clamscan` for each file: {spread(cold['seconds'])} s a file, on {len(cold['seconds'])} files that are "
        f"evenly spread over the sizes; {digits(cold['peak_mib'])} MiB each. clamgate with its definitions loaded: "
        f"{digits(per_file)} s a file.",
        "",
        "clamd has clamgate's limits, so that both look at the same; with its own, it gives up earlier, on less. clamgate, "
        "`clamscan` and \"all matches\" look for all signatures that match; `clamdscan -m` and plain libclamav "
        "stop at a file's first, which makes them faster where there is something to be found. \"In process\" is "
        "`benches/plain_libclamav.py`: load, compile, and `cl_scanfile` on as many threads; \"all matches\" also collects "
        "metadata, as clamgate does.",
        "",
    ]
    lines += verdicts.describe(result["verdicts"])
    differs = result["plain_differs"]
    lines += [f"Plain libclamav and clamd differ in whether there is anything in {len(differs)} files."]
    lines += ["", "Commands:", "", "```", *result["commands"], "```", ""]
    return lines + ["clamd.conf:", "", "```", *result["clamd_conf"], "```", ""]
