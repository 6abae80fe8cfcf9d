"""The parts of a page: one HTML file that loads nothing, prints well, and is legible on a phone and in the dark.

What is written into a page is escaped here, once: functions take text and give :class:`Html`.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

CLONE = Path(__file__).resolve().parents[1]
PAGES = re.compile(r"((?:docs|benchmarks)/\w+\.md)")
LARGEST_PICTURE = 500_000  # bytes: a larger one is made smaller, so that pages can be sent by mail
WIDEST_PICTURE = 1100  # pixels of a picture that is made smaller
# Scripts, fonts, and whatever lies elsewhere are forbidden to the page, whatever a run's files make it hold.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
COLOURS = {  # of curves, on white and on black
    "light": ("#1f6fb4", "#c4510a", "#2a8a3c", "#8a3fb0", "#a5770a", "#0b8a8a"),
    "dark": ("#6db3f2", "#ff9a57", "#6fd083", "#c99bf0", "#e8bb4e", "#4fd1d1"),
}
STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #5f6a75; --paper: #fff; --panel: #f5f7f9; --line: #d6dde4; %s }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e7ebef; --dim: #9aa6b2; --paper: #14181c; --panel: #1d2329; --line: #38424c; %s }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.2rem clamp(.8rem, 3vw, 2.5rem) 3rem; max-width: 1180px; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .4rem 0 }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .7rem; padding-top: .5rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1rem 0 .3rem }
p, li { max-width: 75ch }
.dim, figcaption, .legend { color: var(--dim); font-size: .88rem }
.grid { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%%, 320px), 1fr)) }
.two { align-items: start; grid-template-columns: repeat(auto-fit, minmax(min(100%%, 480px), 1fr)) }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); margin: 1rem 0 }
.tile { background: var(--panel); border-radius: 8px; padding: .6rem .8rem }
.tile b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums }
figure { margin: 0; background: var(--panel); border-radius: 8px; padding: .7rem }
section > figure { width: fit-content; max-width: 100%% }
figure img { display: block; max-width: 100%%; height: auto; border-radius: 4px; background: #fff }
th img { display: block; width: 128px; max-width: 22vw; height: auto }
figure svg { display: block; width: 100%%; height: auto }
figcaption { margin-top: .4rem }
section > * + figure, section > * + .scroll, section > * + .grid { margin-top: .9rem }
svg text { fill: var(--dim); font-size: 11px; font-family: inherit }
svg .axis { stroke: var(--line); stroke-width: 1; fill: none }
svg path { fill: none; stroke-width: 1.8; stroke-linejoin: round }
svg .dot { stroke-width: 8; stroke-linecap: round }
.legend span { white-space: nowrap; margin-right: .9rem }
.legend i { display: inline-block; width: 1.3em; border-top: 3px solid; vertical-align: middle; margin-right: .35em }
.legend i.dashed { border-top-style: dashed }
.scroll { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%%, transparent) left / 3rem 100%%,
  linear-gradient(to left, var(--paper) 30%%, transparent) right / 3rem 100%%,
  linear-gradient(to right, var(--dim), transparent) left / .6rem 100%%,
  linear-gradient(to left, var(--dim), transparent) right / .6rem 100%%; background-repeat: no-repeat;
  background-attachment: local, local, scroll, scroll }  /* a shadow where there is more to scroll to */
table { border-collapse: collapse; font-size: .9rem; min-width: 50%% }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere }
th { font-weight: 600; white-space: nowrap; overflow-wrap: break-word }
pre { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere }
pre span { display: block; padding-left: 2em; text-indent: -2em }
pre code { display: inline-block; max-width: 100%%; text-indent: 0; font: inherit }  /* --b is not parted */
@media (max-width: 600px) { th { white-space: normal } td, th { padding-right: .5rem } table { min-width: 100%% } }
summary { cursor: pointer; font-weight: 600; margin: .6rem 0 }
%s
@media print {
  :root { color-scheme: light } body { max-width: none; padding: 0; font-size: 11pt }
  figure, .tile, tr, pre { break-inside: avoid } h2 { break-after: avoid }
  .scroll { background: none } .grid { grid-template-columns: 1fr 1fr } details > * { display: block }
}
"""


class Html(str):
    """Text that is HTML already, and is not escaped again."""


def text(value: Any) -> Html:
    """Any value as text of a page."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def tag(name: str, *inside: Any, **attributes: str) -> Html:
    """An element; in the names of attributes ``_`` is a hyphen, and nothing at the end (``class_``)."""
    words = "".join(f' {key.rstrip("_").replace("_", "-")}="{text(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{words}>{''.join(text(each) for each in inside)}</{name}>")


def joined(parts: Iterable[Html]) -> Html:
    """Parts one after the other."""
    return Html("\n".join(parts))


def section(title: str, *inside: Html) -> Html:
    """A part of the page with a heading; nothing if nothing is in it."""
    body = joined(part for part in inside if part)
    return Html(f"<section>\n{tag('h2', title)}\n{body}\n</section>") if body else Html("")


def table(rows: Mapping[str, Any] | Sequence[Sequence[Any]], head: Sequence[str] = ()) -> Html:
    """Rows of cells, or names and values."""
    lines = [list(pair) for pair in rows.items()] if isinstance(rows, Mapping) else rows
    if not lines:
        return Html("")
    top = [tag("tr", *(tag("th", cell) for cell in head))] if head else []
    body = [tag("tr", tag("th", line[0]), *(tag("td", cell) for cell in line[1:])) for line in lines]
    return tag("div", tag("table", *top, *body), class_="scroll")


def tiles(values: Mapping[str, str]) -> Html:
    """Figures that one looks for first, each with what it is."""
    return tag(
        "div",
        *(tag("div", tag("b", value), name, class_="tile") for name, value in values.items() if value),
        class_="tiles",
    )


def details(summary: str, inside: Html) -> Html:
    """A part that is opened by a click."""
    return tag("details", tag("summary", summary), inside) if inside else Html("")


def commands(*lines: str) -> Html:
    """Lines for a terminal; long ones are wrapped between words, and indented then. Nothing if there are none."""
    words = [re.split("( +)", line) for line in lines if line]
    spans = [tag("span", *(each if each.isspace() else tag("code", each) for each in line)) for line in words]
    return tag("pre", *spans) if spans else Html("")


def linked(words: str, folder: Path) -> Html:
    """Text with links to the pages that it names (``docs/EVIDENCE.md``), if ``folder``, its place, is in the clone."""
    place = folder.resolve()
    if not place.is_relative_to(CLONE):
        return text(words)
    parts = PAGES.split(words)  # texts and, at odd places, names of pages
    for at, part in enumerate(parts):
        page_is_there = at % 2 and (CLONE / part).is_file()
        href = Path(os.path.relpath(CLONE / part, place)).as_posix()
        parts[at] = tag("a", part, href=href) if page_is_there else text(part)
    return Html("".join(parts))


def picture(path: Path, caption: str) -> Html:
    """A picture with its caption, kept in the page; nothing if it is not there or is no picture."""
    image = image_tag(path, caption)
    return tag("figure", image, tag("figcaption", caption)) if image else Html("")


def image_tag(path: Path, words: str) -> Html:
    """The picture alone; ``words``: for those who do not see it."""
    try:
        data = path.read_bytes()
        kind, data = ("png", data) if len(data) <= LARGEST_PICTURE else ("jpeg", _smaller(data))
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return Html("")
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return Html(f'<img src="{source}" alt="{text(words)}" width="{width}" height="{height}">')


def _smaller(data: bytes) -> bytes:
    """A picture as JPEG, at most ``WIDEST_PICTURE`` wide."""
    with Image.open(io.BytesIO(data)) as image:
        smaller = image.convert("RGB")
    smaller.thumbnail((WIDEST_PICTURE, 4 * WIDEST_PICTURE))
    buffer = io.BytesIO()
    smaller.save(buffer, "JPEG", quality=82)
    return buffer.getvalue()


def page(title: str, *body: Html) -> str:
    """A whole page."""
    light, dark = (" ".join(f"--c{i}: {c};" for i, c in enumerate(COLOURS[mode])) for mode in ("light", "dark"))
    curves = "\n".join(
        f".c{i} {{ stroke: var(--c{i}) }} .legend i.c{i} {{ border-color: var(--c{i}) }}"
        for i in range(len(COLOURS["light"]))
    )
    head = (
        '<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"{tag('title', title)}\n<style>{STYLE % (light, dark, curves)}</style>"
    )
    whole = joined(part for part in body if part)
    return f'<!doctype html>\n<html lang="en">\n<head>\n{head}\n</head>\n<body>\n{whole}\n</body>\n</html>\n'
