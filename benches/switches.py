"""What each of the things that make libclamav faster is worth: `clamgate scan` with it switched off."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import svg
from engine import ClamgateScan
from figures import spread, table
from setting import Setting, say

TITLE = "What is switched off, and what that costs"
NO_JIT, NO_EXPRESSIONS = {"CLAMGATE_SCAN__PCRE_JIT": "false"}, {"CLAMGATE_SCAN__FAST_LOGICAL_EXPRESSIONS": "false"}
ALL_ON = "nothing switched off"
VARIANTS = {
    ALL_ON: {},
    "`scan.pcre_jit = false`": NO_JIT,
    "`scan.fast_logical_expressions = false`": NO_EXPRESSIONS,
    "both": NO_JIT | NO_EXPRESSIONS,
}


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """`clamgate scan` over the corpus, in rounds that each begin with another variant."""
    setting.warm_page_cache()
    scans = {name: ClamgateScan(setting, setting.environment | variant) for name, variant in VARIANTS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in scans}
    names = list(scans)
    for number in range(setting.rounds):
        for name in names[number % len(names):] + names[: number % len(names)]:
            say(f"  round {number + 1} of {setting.rounds}: {name}")
            seconds[name].append(scans[name].scan(setting.corpus))
    return {"seconds": seconds}


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    seconds = result["seconds"]
    svg.bars(plots / "switches.svg", "The corpus, with things switched off", "seconds (shorter is better)", seconds)
    rows = []
    for name, values in seconds.items():
        times = [value / on for value, on in zip(values, seconds[ALL_ON])]
        rows.append([name, spread(values), "" if name == ALL_ON else spread(times)])
    lines = ["`clamgate scan` over the corpus, without loading. The allocator cannot be switched: see ADR 18.", ""]
    lines += table(["switched off", "seconds", "times as long"], rows)
    return lines + ["![seconds with things switched off](benchmarks/switches.svg)", ""]
