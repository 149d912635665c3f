"""The frame of an HTML report: style, and small pieces of markup that escape every text given to them.

A page is one file: style and pictures stand inside it, there is no script, and nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import NewType

Html = NewType("Html", str)
CLIP, MOST = 420, 20_000  # characters of a text shown at once, and at all

STYLE = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1c2127; --muted: #646c76; --line: #dfe2e6; --panel: #f4f5f5;
  --accent: #17697f; --warm: #b9552a; --band: #8f7a2e;
  --font: ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
@media screen and (prefers-color-scheme: dark) { :root { --paper: #15181b; --ink: #e4e7ea; --muted: #98a1ab;
  --line: #30363c; --panel: #1c2024; --accent: #5bb3cb; --warm: #e58c60; --band: #cbb35f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 var(--font); }
main { max-width: 900px; margin: 0 auto; padding: 48px 30px 72px; }
h1 { font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -.015em; margin: 0 0 10px; }
h2 { font-size: 20px; font-weight: 650; letter-spacing: -.01em; margin: 56px 0 6px; padding-top: 18px;
  border-top: 1px solid var(--line); }
p { margin: 0 0 12px; max-width: 70ch; }
.kicker { color: var(--muted); font-size: 14px; margin-bottom: 6px; overflow-wrap: anywhere; }
.lead { font-size: 18px; }
.note { color: var(--muted); }
.tiles { display: grid; grid-template-columns: repeat(4, 1fr); gap: 1px; background: var(--line); margin: 26px 0;
  border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.tiles div { background: var(--paper); padding: 14px 16px; }
.tiles dt { color: var(--muted); font-size: 13.5px; }
.tiles dd { margin: 2px 0 0; font-size: 25px; font-weight: 600; letter-spacing: -.01em; white-space: nowrap; }
.tiles dd small { display: block; font-size: 13px; font-weight: 400; letter-spacing: 0; color: var(--muted);
  white-space: normal; }
ul.advice { list-style: none; padding: 0; margin: 0; }
ul.advice li { padding: 7px 0 7px 14px; border-left: 3px solid var(--accent); margin-bottom: 8px; max-width: 78ch; }
ul.advice li.warn { border-color: var(--warm); }
figure { margin: 20px 0 0; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; overflow: visible; stroke-linejoin: round; }
figcaption { color: var(--muted); font-size: 14.5px; line-height: 1.5; margin-top: 8px; max-width: 78ch; }
.flag { white-space: nowrap; }
.scroll { overflow-x: auto; } .scroll svg { min-width: 640px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px 20px; align-items: start; }
h3 { font-size: 15px; font-weight: 650; margin: 22px 0 -10px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px; font-variant-numeric: tabular-nums; margin: 14px 0; }
th { text-align: left; font-weight: 500; color: var(--muted); }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
th.number, td.number { text-align: right; white-space: nowrap; }
article { border: 1px solid var(--line); border-radius: 8px; margin: 16px 0; overflow: hidden; font-size: 14.5px; }
article header { display: flex; justify-content: space-between; gap: 16px; padding: 9px 16px; color: var(--muted);
  background: var(--panel); font-size: 13.5px; }
article header span { overflow-wrap: anywhere; } article header b { color: var(--ink); white-space: nowrap; }
article > section { padding: 12px 16px; } article .pair { gap: 0; border-top: 1px solid var(--line);
  align-items: stretch; }
article .pair > section { padding: 12px 16px; min-width: 0; }
article .pair > section + section { border-left: 1px solid var(--line); }
article h4 { margin: 0 0 4px; font-size: 13px; font-weight: 600; color: var(--muted); display: flex;
  justify-content: space-between; font-variant-numeric: tabular-nums; }
.chosen h4 { color: var(--accent); } .rejected h4 { color: var(--warm); }
.asked { color: var(--muted); border-left: 2px solid var(--line); padding-left: 10px; margin: 6px 0 8px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; }
details summary { cursor: pointer; color: var(--muted); font-size: 13px; margin-top: 4px; }
@media (max-width: 700px) { main { padding: 28px 18px 48px; } .pair { grid-template-columns: 1fr; }
  .tiles { grid-template-columns: 1fr 1fr; }
  .tiles dd { font-size: 21px; white-space: normal; }
  article .pair > section + section { border-left: 0; border-top: 1px solid var(--line); } }
@media print { body { font-size: 11pt; } main { padding: 0; max-width: none; }
  figure, article, li, tr, .tiles { break-inside: avoid; } h2, h3 { break-after: avoid; } h2 { margin-top: 32px; } }
"""


def document(title: str, body: Iterable[Html], style: str = "", refresh: int = 0) -> str:
    """A whole page. The policy line makes the promise binding: a browser will fetch and run nothing.

    `style` is added to the common style; a page with `refresh` is loaded anew after so many seconds.
    """
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
{again}<title>{escape(title)}</title>
<style>{STYLE}{style}</style>
</head>
<body>
<main>
{"".join(f"{part}{chr(10)}" for part in body)}</main>
</body>
</html>
"""


def element(tag: str, text: str, css: str = "") -> Html:
    """One element around escaped text."""
    return Html(f"<{tag}{_css(css)}>{escape(text)}</{tag}>")


def wrap(tag: str, parts: Iterable[Html], css: str = "") -> Html:
    """One element around other elements."""
    return Html(f"<{tag}{_css(css)}>{''.join(parts)}</{tag}>")


def figure(svg: str, caption: str, wide: bool = False) -> Html:
    """A picture and the sentence that says what it means."""
    return wrap("figure", [wrap("div", [Html(svg)], "scroll" if wide else ""), _spoken("figcaption", caption)])


def grid(head: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int = 1) -> Html:
    """A table; columns from `numbers_from` on are numbers and stand to the right."""

    def line(tag: str, cells: Sequence[str]) -> Html:
        return wrap("tr", [element(tag, cell, "number" if i >= numbers_from else "") for i, cell in enumerate(cells)])

    body = [wrap("thead", [line("th", head)])] if head else []
    return wrap("table", [*body, wrap("tbody", [line("td", row) for row in rows])])


def tiles(rows: Iterable[tuple[str, str, str]]) -> Html:
    """The numbers to remember: name, value and a few words each."""
    cells = [
        wrap("div", [element("dt", name), Html(f"<dd>{element('span', value)}{element('small', note)}</dd>")])
        for name, value, note in rows
    ]
    return wrap("dl", cells, "tiles")


def findings(lines: Sequence[tuple[str, bool]]) -> Iterator[Html]:
    """What was found, a sentence or two each; those marked True are warnings. Nothing without any."""
    if lines:
        unbroken = [(text.replace(" %", "\u00a0%"), is_warning) for text, is_warning in lines]
        yield wrap("ul", [_spoken("li", text, "warn" if is_warning else "") for text, is_warning in unbroken], "advice")


def measured(facts: Mapping[str, str]) -> Iterator[Html]:
    """What to know to repeat the measurement, as the last part of a page. Nothing without facts."""
    if facts:
        yield element("h2", "What was measured")
        yield grid((), [(str(key), str(value)) for key, value in facts.items()], numbers_from=2)


def passage(text: str, tail: bool = False) -> Html:
    """A text of any length: its beginning, or with `tail` its end, in sight; the rest, up to a limit, folded."""
    if len(text) <= CLIP + 60:
        return element("div", text or "(empty)", "text")
    if tail:
        end = text[-CLIP:].split(None, 1)[-1]
        before = text[: -len(end)]
        note = f"[cut here: {len(text):,} characters in all]\n" if len(before) > MOST else ""
        hidden = element("div", note + before[-MOST:], "text")
        fold = wrap("details", [element("summary", f"show the {len(before):,} characters before"), hidden])
        return wrap("div", [fold, element("div", "… " + end, "text")])
    start = text[:CLIP].rsplit(None, 1)[0]
    rest = text[len(start) : MOST] + (f"\n[cut here: {len(text):,} characters in all]" if len(text) > MOST else "")
    fold = wrap("details", [element("summary", f"show all {len(text):,} characters"), element("div", rest, "text")])
    return wrap("div", [element("div", start + " …", "text"), fold])


def _spoken(tag: str, text: str, css: str = "") -> Html:
    """An element around a sentence whose flags, such as --seed, do not break over lines."""
    return Html(re.sub(r"(?<![\w-])--[a-z][\w-]*", r'<span class="flag">\g<0></span>', element(tag, text, css)))


def _css(name: str) -> str:
    return f' class="{name}"' if name else ""
