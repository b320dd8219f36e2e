"""All measurements of clamgate's speed and memory, and the page about them.

Each part measures, puts its results into results.json in place of its earlier ones, and the page is written from all of them.
Exits with 1 when clamgate's verdicts differ from clamd's, other than by being the stricter, and with 2 when a part failed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from setting import TEST_FILES, TEST_SIGNATURES, Setting, say

import end_to_end
import engine
import growth_depth
import growth_kinds
import growth_size
import growth_threads
import memory
import reloads
import results_page
import switches

PARTS: dict[str, ModuleType] = {
    "engine": engine,
    "switches": switches,
    "end-to-end": end_to_end,
    "size": growth_size,
    "depth": growth_depth,
    "threads": growth_threads,
    "kinds": growth_kinds,
    "reload": reloads,
    "memory": memory,
}
GROUPS = {"all": list(PARTS), "growth": ["size", "depth", "threads", "kinds"]}


def parts(text: str) -> list[str]:
    """The parts that are named, in their order on the page."""
    named = [part for name in text.replace(",", " ").split() for part in GROUPS.get(name, [name])]
    if unknown := set(named) - set(PARTS):
        known = " ".join([*GROUPS, *PARTS])
        raise argparse.ArgumentTypeError(f"there is no part {', '.join(sorted(unknown))}; there are: {known}")
    return [name for name in PARTS if name in named]


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One part with a scratch directory of its own. What it starts has ended when this returns."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clamgate-bench-"))).resolve()
        setting = Setting(
            clamgate=arguments.clamgate.resolve(),
            corpus=arguments.corpus.resolve(),
            db=arguments.db.resolve(),
            rounds=arguments.rounds,
            threads=arguments.threads,
            quick=arguments.quick,
            max_size_mib=arguments.max_size_mib or (64 if arguments.quick else 1024),
            reloads=arguments.reloads or (5 if arguments.quick else 20),
            scratch=scratch,
        )
        if not setting.files:
            raise RuntimeError(f"there is no file in {setting.corpus}")
        context = setting.context()
        begun = time.monotonic()
        result = PARTS[name].measure(setting, stack)
        context |= {"seconds": round(time.monotonic() - begun), "load_average_after": round(os.getloadavg()[0], 2)}
    return {"context": context, "result": result}


def main() -> int:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clamgate", type=Path, required=True, help="the program, built for release")
    parser.add_argument("--parts", type=parts, default=list(PARTS), help=f"which of: {' '.join([*GROUPS, *PARTS])}")
    parser.add_argument("--corpus", type=Path, default=TEST_FILES, help="a directory of files to scan")
    parser.add_argument("--db", type=Path, default=TEST_SIGNATURES, help="a database directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="smaller sizes and numbers, to see that it works")
    parser.add_argument("--max-size-mib", type=int, help="the largest object (default 1024, quick 64)")
    parser.add_argument("--reloads", type=int, help="how many reloads memory is watched over (default 20, quick 5)")
    parser.add_argument("--out", type=Path, required=True, help="where benchmarks.md and benchmarks/ are")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up then, too
    store = arguments.out / "benchmarks" / "results.json"
    store.parent.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for name in arguments.parts:
        say(f"{name} ...")
        try:
            results[name] = measure(name, arguments)
        except KeyboardInterrupt:
            say("interrupted")
            return 130
        except (RuntimeError, OSError, subprocess.CalledProcessError, BotoCoreError, ClientError) as error:
            say(f"error: {name}: {error}")
            return 2
        say(f"{name}: {results[name]['context']['seconds']} s")
        store.write_text(json.dumps(results, indent=1) + "\n")
        results_page.write(arguments.out, results, PARTS)
    results_page.write(arguments.out, results, PARTS)
    print(f"results are in {arguments.out / 'benchmarks.md'}")
    return 1 if "engine" in arguments.parts and engine.is_wrong(results["engine"]["result"]) else 0


if __name__ == "__main__":
    sys.exit(main())
