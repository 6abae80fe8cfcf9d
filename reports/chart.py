"""Curves as SVG, in the colours of the page that they are in."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from methods.base import Panel
from reports.html import COLOURS, Html, tag, text
from training.reporting.curves import HELD_OUT, Curves, limits, spans_a_decade, thinned

WIDTH, HEIGHT = 360, 210
LEFT, RIGHT, TOP, BOTTOM = 60, 10, 8, 34  # margins
TICKS = 4
Span = tuple[float, float]
Place = Callable[[float, float], Span]  # (step, value) -> where it is drawn


def ticks(low: float, high: float) -> list[float]:
    """Round numbers between two values, as near to ``TICKS`` of them as there are; never one alone."""
    size = 10 ** math.floor(math.log10((high - low) / TICKS))
    steps = [size * nice for nice in (1, 2, 5, 10)]
    return min((_multiples(step, low, high) for step in steps), key=lambda found: abs(len(found) - TICKS))


def _multiples(step: float, low: float, high: float) -> list[float]:
    return [round(number * step, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between two exponents; where there are few, those times 2 and 5 as well."""
    decades = range(math.floor(low), math.ceil(high) + 1)
    nice = (1,) if high - low > 2.5 else (1, 2, 5)
    return [10.0**k * each for k in decades for each in nice if low <= math.log10(10.0**k * each) <= high]


def number(value: float) -> str:
    """As an axis has it: 0.05, 1,200."""
    if value and abs(value) < 1e-3:
        return f"{value:.0e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def chart(panel: Panel, lines: Curves) -> Html:
    """A figure with the curves of a panel; nothing if no value is a number."""
    span = limits(lines, panel.from_zero, panel.most)
    steps = [step for xs, _ in lines.values() for step in xs]
    if span is None or not steps:
        return Html("")
    log = panel.log and spans_a_decade(lines)
    if log:
        values = [value for _, ys in lines.values() for value in thinned(ys) if math.isfinite(value)]
        span = math.log10(min(values)) - 0.05, math.log10(max(values)) + 0.05
    low, high = span
    first, last = min(steps), max(steps)
    if first == last:  # a single point stands in the middle
        first, last = first - 1, last + 1

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        height = math.log10(value) if log else value
        return x, HEIGHT - BOTTOM - (height - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    drawn = [*_axes(panel, place, (first, last), (low, high), log)]
    colours: dict[str, int] = {}
    legend = []
    for name, (xs, ys) in lines.items():
        held_out, base = name.startswith(HELD_OUT), name.removeprefix(HELD_OUT)
        colour = f"c{colours.setdefault(base, len(colours)) % len(COLOURS['light'])}"
        points = [place(x, y) for x, y in zip(thinned(xs), thinned(ys), strict=True) if math.isfinite(y)]
        drawn.append(_curve(points, colour, held_out))
        legend.append(tag("span", tag("i", class_=f"{colour}{' dashed' * held_out}"), name))
    label = f"{panel.title}: {', '.join(lines)}"
    svg = tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=label)
    return tag("figure", tag("b", panel.title), svg, tag("div", *legend, class_="legend"))


def _axes(panel: Panel, place: Place, steps: Span, span: Span, log: bool) -> list[Html]:
    """Grid, numbers and names of both axes."""
    parts = []
    low, high = span
    heights = log_ticks(low, high) if log else ticks(low, high)
    for value in heights:
        _, y = place(steps[0], value)
        parts.append(Html(f'<path class="axis" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'))
        parts.append(tag("text", number(value), x=str(LEFT - 6), y=f"{y + 4:.1f}", text_anchor="end"))
    for step in ticks(*steps):
        x = LEFT + (step - steps[0]) / (steps[1] - steps[0]) * (WIDTH - LEFT - RIGHT)
        if step == int(step):
            parts.append(tag("text", number(step), x=f"{x:.1f}", y=str(HEIGHT - BOTTOM + 15), text_anchor="middle"))
    middle = (HEIGHT - BOTTOM + TOP) / 2
    parts.append(tag("text", "step", x=str(WIDTH - RIGHT), y=str(HEIGHT - 4), text_anchor="end"))
    turn = f"rotate(-90 11 {middle:.0f})"
    parts.append(tag("text", panel.axis, x="11", y=f"{middle:.0f}", text_anchor="middle", transform=turn))
    return parts


def _curve(points: Sequence[tuple[float, float]], colour: str, held_out: bool) -> Html:
    if len(points) == 1:
        x, y = points[0]
        return Html(f'<path class="{colour} dot" d="M{x:.1f} {y:.1f}h0"/>')
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    dashed = ' stroke-dasharray="5 3"' * held_out
    return Html(f'<path class="{text(colour)}"{dashed} d="M{path}"/>') if points else Html("")
