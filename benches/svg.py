"""Plots as SVG: lines on linear or logarithmic axes, and bars with whiskers."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import Callable
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 400, 76, 20, 56, 52
COLOURS = ["#1f6feb", "#d1622b", "#2d8a4e", "#8250df", "#9a6700", "#57606a"]
Points = list[tuple[float, float]]


def nice_steps(most: float) -> list[float]:
    """About five round numbers from 0 to the greatest value."""
    rough = (most or 1) / 5
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    return [step * n for n in range(math.ceil(most / step) + 1)]


def number(value: float) -> str:
    """Short enough for an axis."""
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= bound:
            return f"{value / bound:g}{unit}"
    return f"{value:.3g}"


def axis(values: list[float], logarithmic: bool, begin: float, end: float) -> tuple[list[float], Callable[[float], float]]:
    """The ticks, and the function from a value to its place between `begin` and `end`."""
    if logarithmic:
        low, high = (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
        high = max(high, low + 1)
        ticks = [10.0**power for power in range(low, high + 1)]
        return ticks, lambda value: begin + (math.log10(value) - low) / (high - low) * (end - begin)
    ticks = nice_steps(max(values))
    return ticks, lambda value: begin + value / ticks[-1] * (end - begin)


def text(x: float, y: float, content: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def write(path: Path, title: str, body: list[str], height: float = HEIGHT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">'
    back = f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
    heading = text(LEFT, 20, title, "start", 'font-size="15" font-weight="bold"')
    path.write_text("\n".join([head, back, heading, *body, "</svg>"]) + "\n")


def lines(
    path: Path, title: str, x_label: str, y_label: str, series: dict[str, Points], *, log: bool = False,
    marks: dict[str, float] | None = None,
) -> None:
    """A line for each series; `marks` are vertical lines with a name. With `log`, both axes are logarithmic."""
    points = [point for values in series.values() for point in values if not log or min(point) > 0]
    x_ticks, x = axis([point[0] for point in points], log, LEFT, WIDTH - RIGHT)
    y_ticks, y = axis([point[1] for point in points], log, HEIGHT - BOTTOM, TOP)
    grid = 'stroke="#d0d7de"'
    body = [line(x(tick), TOP, x(tick), HEIGHT - BOTTOM, grid) for tick in x_ticks]
    body += [line(LEFT, y(tick), WIDTH - RIGHT, y(tick), grid) for tick in y_ticks]
    body += [text(x(tick), HEIGHT - BOTTOM + 16, number(tick)) for tick in x_ticks]
    body += [text(LEFT - 6, y(tick) + 4, number(tick), "end") for tick in y_ticks]
    turned = f'transform="rotate(-90 18 {HEIGHT / 2})"'
    body += [text((LEFT + WIDTH) / 2, HEIGHT - 12, x_label), text(18, HEIGHT / 2, y_label, "middle", turned)]
    for name, value in (marks or {}).items():
        body += [line(x(value), TOP, x(value), HEIGHT - BOTTOM, 'stroke="#57606a" stroke-dasharray="4 3"')]
        body += [text(x(value) - 4, HEIGHT - BOTTOM - 6, name, "end", 'fill="#57606a"')]
    for n, (name, values) in enumerate(series.items()):
        colour, drawn = COLOURS[n % len(COLOURS)], [point for point in values if point in points]
        path_points = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in drawn)
        body += [f'<polyline points="{path_points}" fill="none" stroke="{colour}" stroke-width="2"/>']
        body += [f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="3" fill="{colour}"/>' for a, b in drawn if len(drawn) < 50]
        body += [f'<rect x="{LEFT + 170 * n}" y="34" width="12" height="4" fill="{colour}"/>']
        body += [text(LEFT + 170 * n + 18, 40, name, "start")]
    write(path, title, body)


def bars(path: Path, title: str, label: str, rows: dict[str, list[float]]) -> None:
    """A bar as long as the median for each row, with a whisker from the least to the greatest value."""
    left, step, has_clamgate = 300, 30, any(name.startswith("clamgate") for name in rows)
    height = TOP + step * len(rows) + BOTTOM
    ticks, x = axis([max(values) for values in rows.values()], False, left, WIDTH - 60)
    body = [line(x(tick), TOP - 8, x(tick), height - BOTTOM, 'stroke="#d0d7de"') for tick in ticks]
    body += [text(x(tick), height - BOTTOM + 16, number(tick)) for tick in ticks]
    body += [text((left + WIDTH) / 2, height - 12, label)]
    for n, (name, values) in enumerate(rows.items()):
        top, middle = TOP + step * n, statistics.median(values)
        colour = COLOURS[0] if name.startswith("clamgate") or not has_clamgate else COLOURS[5]
        body += [text(left - 8, top + 14, name, "end")]
        body += [f'<rect x="{left}" y="{top}" width="{x(middle) - left:.1f}" height="20" fill="{colour}" opacity="0.85"/>']
        body += [line(x(min(values)), top + 10, x(max(values)), top + 10, 'stroke="#24292f" stroke-width="2"')]
        body += [text(x(max(values)) + 6, top + 14, f"{middle:.3g}", "start")]
    write(path, title, body, height)
