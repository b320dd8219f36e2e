"""Resident memory: at rest, under load, and over reloads."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import svg
from figures import digits, table
from peers import Clamd
from processes import MIB, Peak, cpu_seconds, forget_peak, memory_mib, own_mib
from serve import Serve
from setting import Setting, say
from uploads import Store, Upload, file_uploads, random_uploads

TITLE = "Resident memory"
SETTLE_SECONDS = 2.0
# Memory is bounded by the engine, the budget for objects, and this for everything else.
ALLOWANCE_MIB = 100
# The default on a large machine.
IN_FLIGHT = 256


def loads(setting: Setting) -> dict[str, list[Upload]]:
    """The corpus; objects just small enough for memory, more than fit into the budget; and objects that go to disk."""
    threshold = setting.config["scan"]["in_memory_max_bytes"]
    budget = setting.config["scan"]["memory_bytes"]
    large = 6 if setting.quick else 2 * budget // threshold
    return {
        "the corpus": file_uploads("memory-corpus", setting),
        f"{large} objects of {(threshold - MIB) // MIB} MiB": random_uploads("memory-large", large, threshold - MIB, 301),
        f"{large // 2} objects of {2 * threshold // MIB} MiB": random_uploads("memory-spooled", large // 2, 2 * threshold, 302),
    }


def measure(setting: Setting, stack: ExitStack) -> dict[str, Any]:
    """One service lives through all of it."""
    store = Store(setting, stack)
    queue = store.queue("uploads")
    serve = Serve(setting, stack, {"QUEUE__URL": queue, "QUEUE__MAX_IN_FLIGHT": str(IN_FLIGHT)}, store.aws)
    time.sleep(SETTLE_SECONDS)
    start_peak, idle_seconds = memory_mib(serve.pid, "VmHWM"), 3 if setting.quick else 10
    before = cpu_seconds(serve.pid)
    time.sleep(idle_seconds)
    result: dict[str, Any] = {
        "budget_mib": setting.config["scan"]["memory_bytes"] / MIB,
        "idle_cpu_seconds": cpu_seconds(serve.pid) - before,
        "idle_seconds": idle_seconds,
        "start_peak_mib": start_peak,
        "rest_mib": memory_mib(serve.pid),
        "rest_own_mib": own_mib(serve.pid),
        "loads": [],
        "reloads": [],
    }
    for name, uploads in loads(setting).items():
        say(f"  {name}")
        messages = store.put_all(uploads)
        forget_peak(serve.pid)
        with Peak(serve.pid) as own:
            store.send_all(queue, messages)
            store.wait_until_empty(queue, serve.check)
        peak = memory_mib(serve.pid, "VmHWM")
        store.delete_all(uploads)
        time.sleep(SETTLE_SECONDS)
        after = memory_mib(serve.pid)
        result["loads"].append({"name": name, "peak_mib": peak, "own_mib": own.mib, "after_mib": after})
    for number in range(setting.reloads):
        forget_peak(serve.pid)
        took = serve.reload()
        time.sleep(SETTLE_SECONDS)
        rss, peak = memory_mib(serve.pid), memory_mib(serve.pid, "VmHWM")
        result["reloads"].append({"seconds": took, "rss_mib": rss, "peak_mib": peak})
        say(f"  reload {number + 1} of {setting.reloads}: {rss:.0f} MiB")
    serve.stop()
    clamd = Clamd(setting, stack)
    time.sleep(SETTLE_SECONDS)
    result["clamd_rest_mib"] = memory_mib(clamd.process.pid)
    return result


def describe(result: dict[str, Any], plots: Path) -> list[str]:
    """For the page."""
    rest, budget = result["rest_mib"], result["budget_mib"]
    bound = result["rest_own_mib"] + budget + ALLOWANCE_MIB
    lines = [
        f"At rest, definitions loaded: clamgate serve {digits(rest)} MiB (loading took up to "
        f"{digits(result['start_peak_mib'])} MiB), clamd {digits(result['clamd_rest_mib'])} MiB. In {result['idle_seconds']} "
        f"idle seconds clamgate used {result['idle_cpu_seconds']:.2f} s of processor time.",
        "",
        f"Under load, with {IN_FLIGHT} objects in flight. Spooled objects are mapped: their pages count as resident, but are "
        f"the system's cache, which it takes back at need. The bound is on the rest: {digits(result['rest_own_mib'])} MiB of "
        f"that at rest + the budget for objects (`scan.memory_bytes`, {digits(budget)} MiB) + {ALLOWANCE_MIB} MiB = "
        f"{digits(bound)} MiB.",
        "",
    ]
    cells = []
    for load in result["loads"]:
        within = "yes" if load["own_mib"] <= bound else "NO"
        cells.append([load["name"], *(digits(load[name]) for name in ("peak_mib", "own_mib", "after_mib")), within])
    head = ["load", "peak, MiB", "peak without pages of files, MiB", "afterwards, MiB", "within the bound"]
    lines += table(head, cells)
    resident = [row["rss_mib"] for row in result["reloads"]]
    if resident:
        apart = 100 * (max(resident) / min(resident) - 1)
        points = {
            "after the reload": [(float(n), value) for n, value in enumerate(resident, 1)],
            "peak during it": [(float(n), row["peak_mib"]) for n, row in enumerate(result["reloads"], 1)],
        }
        svg.lines(plots / "memory.svg", "Resident memory over reloads", "reload", "MiB", points)
        lines += [
            f"Over {len(resident)} reloads: {digits(resident[0])} MiB after the first, {digits(resident[-1])} MiB after the "
            f"last, between {digits(min(resident))} and {digits(max(resident))} ({apart:.1f}% apart); at most "
            f"{digits(max(row['peak_mib'] for row in result['reloads']))} MiB during one.",
            "",
            "![resident memory over reloads](benchmarks/memory.svg)",
            "",
        ]
    return lines
