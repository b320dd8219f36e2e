"""The code on the pages of docs/: the demos run what the pages show, so that the pages stay right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import DemoError

DOCS = Path(__file__).resolve().parent.parent / "docs"


@dataclass(frozen=True)
class Block:
    """A block of code."""

    heading: str
    # What stands behind the fence: `toml`, `sh`, `sql join`.
    kind: str
    text: str


def blocks(page: str, kind: str) -> list[Block]:
    """The page's blocks of this kind, in their order."""
    heading, opened, lines, found = "", None, [], []
    for line in (DOCS / page).read_text().splitlines(keepends=True):
        if line.startswith("```"):
            if opened is None:
                opened, lines = line.strip().removeprefix("```"), []
            else:
                found.append(Block(heading, opened, "".join(lines)))
                opened = None
        elif opened is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.strip("# \n")
    return [block for block in found if block.kind == kind]


def block(page: str, kind: str, heading: str | None = None) -> str:
    """The page's only block of this kind, or the only one under this heading."""
    found = [block.text for block in blocks(page, kind) if heading in (None, block.heading)]
    if len(found) != 1:
        raise DemoError(f"docs/{page} has {len(found)} blocks {kind!r} under {heading!r}: the demo runs one")
    return found[0]


def function(page: str, name: str, heading: str | None = None) -> Any:
    """A function that the page's block of Python defines."""
    scope: dict[str, Any] = {}
    exec(compile(block(page, "python", heading), page, "exec"), scope)
    return scope[name]
