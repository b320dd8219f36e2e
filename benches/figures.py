"""Figures as text: medians with their spread, percentiles, tables in Markdown."""

from __future__ import annotations

import statistics


def digits(value: float) -> str:
    """Three significant digits or so."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def spread(values: list[float]) -> str:
    """The median, and in brackets the least and the greatest."""
    middle = digits(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({digits(min(values))}–{digits(max(values))})"


def percentile(values: list[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def size(count: float) -> str:
    """Bytes in the largest unit that fits."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.0f} GiB"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table in Markdown, all columns but the first to the right."""
    marks = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)] + [""]
