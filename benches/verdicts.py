"""Whether clamgate and its peers say the same of each file of the corpus."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import Clamd
from processes import run
from setting import Setting

# How libclamav says that it did not look at everything.
INCOMPLETE = ("Heuristics.Limits.Exceeded.", "Heuristics.Encrypted.")
# No more than so many lines of one kind are worth a place on the page.
LISTED = 20


@dataclass(frozen=True)
class Found:
    """What was said about one file."""

    names: frozenset[str]
    # Why it was not fully scanned: the end of libclamav's heuristic name, or clamgate's reason and detail.
    incomplete: str

    def __str__(self) -> str:
        names = " ".join(sorted(self.names))
        return ", ".join(filter(None, [names, self.incomplete and f"not fully scanned: {self.incomplete}"])) or "nothing"


def of_clamgate(output: Path) -> dict[str, Found]:
    """What `clamgate scan --format json` printed."""
    found = {}
    for line in output.read_text().splitlines():
        report = json.loads(line)
        reason = " ".join(filter(None, [report["reason"], report["detail"]]))
        found[report["target"]["path"]] = Found(frozenset(report["signatures"]), reason)
    return found


def infected_of_clamdscan(output: Path) -> set[str]:
    """The files with a FOUND."""
    return {match[1] for match in re.finditer(r"^(.+): \S+ FOUND$", output.read_text(errors="replace"), re.MULTILINE)}


def of_clamd(setting: Setting, clamd: Clamd) -> dict[str, Found]:
    """clamd's with all matches (which neither -m nor --fdpass can give)."""
    output = setting.scratch / "allmatch.out"
    run(clamd.clamdscan(setting.corpus, "--allmatch"), output)
    names: dict[str, set[str]] = {}
    errors: dict[str, str] = {}
    for line in output.read_text(errors="replace").splitlines():
        if match := re.fullmatch(r"(.+): (\S+) FOUND", line):
            names.setdefault(match[1], set()).add(match[2])
        elif match := re.fullmatch(r"(.+): (.+) ERROR", line):
            errors[match[1]] = match[2]
    found = {}
    for path in map(str, setting.files):
        incomplete = [name.split(".", 2)[2] for name in names.get(path, ()) if name.startswith(INCOMPLETE)]
        infected = frozenset(name for name in names.get(path, ()) if not name.startswith(INCOMPLETE))
        found[path] = Found(infected, errors.get(path) or ", ".join(sorted(incomplete)))
    return found


def compare(setting: Setting, ours: dict[str, Found], theirs: dict[str, Found]) -> dict[str, Any]:
    """Every file on which the two differ: where clamgate is the stricter, and where it is not."""
    stricter, different = [], []
    for path in sorted(ours.keys() | theirs.keys()):
        a, b, name = ours.get(path), theirs.get(path), setting.anonymous(path).removeprefix("$CORPUS/")
        if a is None or b is None:
            different.append(f"{name}: {'not scanned by clamgate' if a is None else 'not known to clamd'}")
        elif a.names != b.names or (b.incomplete and not a.incomplete):
            different.append(f"{name}: clamgate {a}, clamd {b}")
        elif a.incomplete and not b.incomplete:
            stricter.append(f"{name}: clamgate {a}, clamd {b}")
    infected = sum(bool(found.names) for found in ours.values())
    return {"files": len(theirs), "infected": infected, "stricter": stricter, "different": different}


def describe(result: dict[str, Any]) -> list[str]:
    """For the page."""
    stricter, different = result["stricter"], result["different"]
    same = result["files"] - len(stricter) - len(different)
    lines = [
        f"Verdicts, signature for signature, clamgate's and clamd's (`--allmatch`): {same} of {result['files']} files the "
        f"same. Something was found in {result['infected']}. clamgate is the stricter in {len(stricter)}, other in "
        f"{len(different)}.",
        "",
    ]
    for title, entries in (("Stricter", stricter), ("Different", different)):
        if entries:
            shown = entries[:LISTED] + [f"… and {len(entries) - LISTED} more"] * (len(entries) > LISTED)
            lines += [f"{title}:", "", "```", *shown, "```", ""]
    return lines
