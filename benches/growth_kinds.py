"""Corpora of one kind of file each, as far as the corpus has kinds."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import svg
from figures import digits, spread, table
from peers import Clamd
from processes import run
from serve import Serve
from setting import Setting, say

TITLE = "Corpora of one kind of file each"
FEWEST_FILES, MOST_KINDS = 3, 14
OTHERS = "others"


def kind(path: Path) -> str:
    """The ending of its name; without one, what `file` says, if there is `file`."""
    if path.suffix:
        return path.suffix.removeprefix(".").lower()
    if not shutil.which("file"):
        return OTHERS
    done = subprocess.run(["file", "--brief", "--mime-type", str(path)], capture_output=True, text=True)
    return done.stdout.strip().rpartition("/")[2] or OTHERS


def kinds(files: list[Path]) -> dict[str, list[Path]]:
    """The kinds with the most bytes; what is left is one kind, too."""
    groups: dict[str, list[Path]] = {}
    for path in files:
        groups.setdefault(kind(path), []).append(path)
    weight = {name: sum(path.stat().st_size for path in group) for name, group in groups.items()}
    large = [name for name in sorted(weight, key=weight.__getitem__, reverse=True) if len(groups[name]) >= FEWEST_FILES]
    chosen = {name: groups[name] for name in large[:MOST_KINDS] if name != OTHERS}
    rest = [path for name, group in groups.items() if name not in chosen for path in group]
    return chosen | ({OTHERS: rest} if rest else {})


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """The same client, `clamdscan --stream -m`, asks clamgate and clamd in turns."""
    socket = setting.scratch / "clamgate.sock"
    clamd, serve = Clamd(setting, stack), Serve(setting, stack, {"CLAMD__SOCKET": str(socket)})
    confs = {"clamgate serve": serve.clamd_conf(setting, socket), "clamd": clamd.conf}
    rows = []
    for number, (name, files) in enumerate(kinds(setting.files).items()):
        directory = setting.scratch / "kinds" / str(number)
        directory.mkdir(parents=True)
        for n, path in enumerate(files):
            shutil.copyfile(path, directory / f"{n:05}{path.suffix}")
        seconds: dict[str, list[float]] = {server: [] for server in confs}
        for turn in range(setting.rounds):
            for server, conf in list(confs.items())[:: 1 if turn % 2 == 0 else -1]:
                say(f"  {name} ({len(files)} files), round {turn + 1} of {setting.rounds}: {server}")
                command = ["clamdscan", "-c", str(conf), "--no-summary", "--stream", "-m", str(directory)]
                seconds[server].append(run(command, setting.scratch / "kinds.out").seconds)
        total = sum(path.stat().st_size for path in files)
        rows.append({"kind": name, "files": len(files), "bytes": total, "seconds": seconds})
        shutil.rmtree(directory)
    return {"rows": rows}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    cells, ratios = [], {}
    for row in result["rows"]:
        both = {server: [row["bytes"] / 1e6 / value for value in values] for server, values in row["seconds"].items()}
        ratios[row["kind"]] = [b / a for a, b in zip(row["seconds"]["clamgate serve"], row["seconds"]["clamd"])]
        ours_ms = 1000 * statistics.median(row["seconds"]["clamgate serve"]) / row["files"]
        rates = [spread(both[server]) for server in ("clamgate serve", "clamd")]
        amount = [str(row["files"]), digits(row["bytes"] / 1e6)]
        cells.append([row["kind"], *amount, *rates, digits(ours_ms), spread(ratios[row["kind"]])])
    svg.bars(plots / "kinds.svg", "clamgate's speed as a multiple of clamd's", "times as fast", ratios)
    lines = ["Both are asked by `clamdscan --stream -m`, definitions loaded.", ""]
    head = ["kind", "files", "MB", "clamgate serve, MB/s", "clamd, MB/s", "clamgate, ms per file"]
    lines += table([*head, "clamgate is so many times as fast"], cells)
    return lines + ["![clamgate's speed by kind](benchmarks/kinds.svg)", ""]
