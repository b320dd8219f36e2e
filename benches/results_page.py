"""benchmarks.md, written from the results alone."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from figures import table

HEAD = """\
# Benchmarks

This page and the plots are written by `make bench` from [benchmarks/results.json](benchmarks/results.json); please do not \
edit it. `make bench CORPUS=dir DB=dir ROUNDS=n` measures on files and definitions of your own; `PARTS="engine memory"` \
repeats some parts, and `QUICK=1` shows in some minutes that it works, in another directory. Without options it scans \
ClamAV's test files with the signatures of the tests, which says little about speed.

How to read the figures:

- Machines are noisy, more so when they are shared. What is compared was run in turns, so look at the ratios and at their \
spread (the median, then the least and the greatest), not at single seconds. The load average before and after each part is \
below.
- All programs have the same definitions, limits, alerts, and number of scan threads, and none remembers verdicts: clamd and \
clamscan run with `DisableCache`, clamgate with `scan.cached_verdicts = 0`. The contents of objects are distinct besides.
- S3 and SQS are ministack on the same machine, a server in Python. It is slow, and takes processor time from what is \
measured; so it is served by uvicorn, whose parser is in C: with its own server a call costs about twice as much.
"""
COLUMNS = {
    "when": "when",
    "clamgate": "clamgate",
    "clamd": "ClamAV",
    "machine": "machine",
    "threads": "threads",
    "corpus": "corpus",
    "database": "database",
    "options": "`make bench` with",
}


def write(out: Path, results: dict[str, Any], parts: dict[str, ModuleType]) -> None:
    """The page and its plots."""
    done = [name for name in parts if name in results]
    lines = [HEAD]
    if any(results[name]["context"]["quick"] for name in done):
        lines += ["**Some of this comes from a run with `QUICK=1`: it shows that the benchmark works, and nothing else.**", ""]
    lines += ["## What was run", "", *conditions({name: results[name]["context"] for name in done})]
    for name in done:
        lines += [f"## {parts[name].TITLE}", "", *parts[name].describe(results[name]["result"], out / "benchmarks")]
    (out / "benchmarks.md").write_text("\n".join(lines).rstrip() + "\n")


def conditions(contexts: dict[str, dict[str, Any]]) -> list[str]:
    """What is the same for all parts once, what differs for each."""
    same, differs = [], []
    for key, title in COLUMNS.items():
        values = {str(context[key]) for context in contexts.values()}
        (same if len(values) == 1 else differs).append((key, title))
    first = next(iter(contexts.values()))
    lines = table(["the same for all parts", ""], [[title, str(first[key])] for key, title in same]) if same else []
    rows = []
    for name, context in contexts.items():
        load = f"{context['load_average']} / {context['load_average_after']}"
        rows.append([name, *(str(context[key]) for key, _ in differs), load, str(context["seconds"])])
    lines += table(["part", *(title for _, title in differs), "load average before / after", "seconds"], rows)
    if not all(context["cache_off"] for context in contexts.values()):
        lines += ["The clamgate that was measured in some part has no cache of verdicts that could be turned off.", ""]
    return lines
