"""A table in plain text."""

from __future__ import annotations


def shortened(text: str, width: int) -> str:
    """At most that wide, the middle left out."""
    half = (width - 1) // 2
    return text if len(text) <= width else f"{text[: width - 1 - half]}…{text[-half:]}"


def lines(cells: list[list[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """The rows as lines, each column as wide as its widest cell; those in `right` end where it ends."""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]

    def cell(column: int, text: str) -> str:
        return text.rjust(widths[column]) if column in right else text.ljust(widths[column])

    return ["  ".join(cell(column, text) for column, text in enumerate(row)).rstrip() for row in cells]
