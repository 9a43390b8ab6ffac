"""The HTML page: frame, style and building blocks (section, figure, table).

One self-contained file: no script, no font, no external address. It follows the reader's light or dark setting and
uses a single column on a phone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from medmaskrcnn.report.html_page import html_page

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #57606a; --paper: #fff; --line: #d8dee4; --soft: #f3f5f7;
  --accent: #0b6bcb }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --faint: #9aa4ae; --paper: #14171a; --line: #343a41; --soft: #1d2126; --accent: #6db3f8 }
}
* { box-sizing: border-box }
html { scroll-padding-top: 3.5rem }
body { margin: 0 auto; padding: 0 1.25rem 4rem; max-width: 74rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; overflow-wrap: break-word }
.stamp { max-width: none; margin: 0 -1.25rem; padding: .5rem 1.25rem; background: #7a4b00; color: #fff;
  font-weight: 600; font-size: .9rem; position: sticky; top: 0; z-index: 1 }
.alarm { background: #b3151b; position: static }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 1.5rem 0 .3rem }
h2 { font-size: 1.3rem; margin: 3.2rem 0 .5rem; padding-top: .6rem; border-top: 1px solid var(--line) }
h2 .n { color: var(--faint); font-weight: 400; margin-right: .5em }
p { max-width: 46rem; margin: .6rem 0 }
.faint, figcaption { color: var(--faint) }
.chips { display: flex; flex-wrap: wrap; gap: .4rem; margin: .5rem 0 .9rem; padding: 0; list-style: none }
.chips li { background: var(--soft); border: 1px solid var(--line); border-radius: 1rem; padding: .05rem .7rem;
  font-size: .85rem; font-variant-numeric: tabular-nums }
a { color: var(--accent) }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: .93rem; margin: .6rem 0 }
th, td { padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--faint); font-weight: 600 }
td.num, th.num { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.figures { display: grid; gap: 1.1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(var(--least), var(--each)), 1fr));
  margin: 1rem 0 }
figure { margin: 0 }
figure > .canvas, figure > .frame { display: block; width: 100%; height: auto; background: #000; border-radius: 4px }
figcaption { font-size: .88rem; line-height: 1.4; padding: .35rem 0 }
.chart { display: block; width: 100%; height: 9rem; background: var(--soft); border-radius: 4px }
.chart line { stroke: var(--line); vector-effect: non-scaling-stroke }
.chart polyline { fill: none; stroke: var(--accent); stroke-width: 2; vector-effect: non-scaling-stroke }
.chart .raw { stroke-width: 1; opacity: .3 }
.canvas { overflow: hidden } .canvas rect, .canvas line, .canvas path { fill: none; vector-effect: non-scaling-stroke }
.key { padding: 0 .45em; font-size: .6em; border-radius: 2px; margin-right: .6em; border: 1px solid #0004;
  vertical-align: .15em }
.bar { display: grid; grid-template-columns: minmax(6.5rem, 10rem) 1fr 3.2rem; gap: .6rem; align-items: center;
  font-size: .9rem; max-width: 40rem; line-height: 1.5 }
.bar i { display: block; height: .8rem; border-radius: 2px; min-width: 1px }
.bar b { font-weight: 400; text-align: right; font-variant-numeric: tabular-nums }
details { border-left: 3px solid var(--line); padding: .1rem 0 .1rem .9rem; margin: .9rem 0; max-width: 46rem }
summary { cursor: pointer; color: var(--faint) }
code { font-size: .9em }
@media (max-width: 32rem) { table.fold thead { display: none }
  table.fold tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line) }
  table.fold td { display: block; border: 0; padding: .05rem 0; text-align: left; white-space: normal }
  table.fold td:empty { display: none }
  table.fold td[data-of]::before { content: attr(data-of) ": "; color: var(--faint) } }
@media print { .stamp { position: static } figure, tr { break-inside: avoid } }
"""

_TIP = (
    '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" markerHeight="5" orient="auto">'
    '<path d="M0 0L8 4L0 8z" style="fill:#ffee58;stroke:none"/></marker>'
)


@dataclass(frozen=True)
class Section:
    """One step on the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        body: HTML.
        chips: Short labels for shapes, time and memory.
    """

    name: str
    title: str
    body: str
    chips: tuple[str, ...] = ()


class HtmlPage:
    """A finished HTML page.

    Attributes:
        html: The complete page.
    """

    html: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page; returns its path.

        Raises:
            OSError: if the file cannot be written.
        """
        target = Path(path)
        target.write_text(self.html, encoding="utf-8")
        return target


def page(
    title: str, lead: str, sections: Sequence[Section], *, shared: Sequence[str] = (), warnings: Sequence[str] = ()
) -> str:
    """A complete HTML page.

    Args:
        title: Plain text.
        lead: HTML under it.
        sections: The steps.
        shared: Pictures that drawings refer to, from :func:`medmaskrcnn.explain.canvas.shared_picture`.
        warnings: Warnings as plain sentences, shown prominently.
    """
    alarms = "".join(f'<p class="stamp alarm" role="alert">{escape(text)}</p>' for text in warnings)
    body = "".join(_section(number, part) for number, part in enumerate(sections, 1))
    defs = f"<defs>{_TIP}{''.join(shared)}</defs>"
    whole = f"""{alarms}
<svg width="0" height="0" style="position:absolute" aria-hidden="true">{defs}</svg>
<h1>{escape(title)}</h1>
{lead}
{body}"""
    return html_page(escape(title), whole, style=_STYLE)


def _section(number: int, part: Section) -> str:
    chips = "".join(f"<li>{escape(chip)}</li>" for chip in part.chips)
    row = f'<ul class="chips">{chips}</ul>' if chips else ""
    heading = f'<h2><span class="n">{number}</span>{escape(part.title)}</h2>'
    return f'<section id="{part.name}">{heading}{row}{part.body}</section>'


def figure(drawing: str, caption: str) -> str:
    """A drawing with its caption (HTML)."""
    return f"<figure>{drawing}<figcaption>{caption}</figcaption></figure>"


def figures(*parts: str, each: str = "21rem", pairs: bool = False) -> str:
    """Figures side by side, each at least ``each`` wide if the screen allows; with ``pairs`` two per row on a phone."""
    return f'<div class="figures" style="--each:{each};--least:{"44%" if pairs else "100%"}">{"".join(parts)}</div>'


def table(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[str] = (), fold: bool = False
) -> str:
    """A table of HTML cells.

    Args:
        header: Plain column titles.
        rows: HTML cells.
        numbers: Titles of the numeric columns.
        fold: On a phone each row becomes a paragraph.
    """

    def kind(column: int) -> str:
        return ' class="num"' if header[column] in numbers else ""

    head = "".join(f"<th{kind(i)}>{escape(name)}</th>" for i, name in enumerate(header))
    body = "".join(
        "<tr>" + "".join(f"<td{kind(i)}{_of(header[i], i)}>{cell}</td>" for i, cell in enumerate(row)) + "</tr>"
        for row in rows
    )
    style = ' class="fold"' if fold else ""
    return f'<div class="wide"><table{style}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _of(title: str, column: int) -> str:
    return f' data-of="{escape(title)}"' if column and title else ""


def key(colour: str, text: str) -> str:
    """A legend entry: a patch of colour and its meaning (HTML)."""
    return f'<span class="key" style="background:{colour}">&nbsp;</span>{text}'


def bar(name: str, share: float, colour: str) -> str:
    """A score 0..1 as a bar."""
    filled = f'<i style="width:{100 * share:.1f}%;background:{colour}"></i>'
    return f'<div class="bar"><span>{escape(name)}</span><span>{filled}</span><b>{share:.2f}</b></div>'


def paragraph(text: str) -> str:
    """A paragraph of HTML."""
    return f"<p>{text}</p>"


def more(title: str, text: str) -> str:
    """A collapsible block."""
    return f"<details><summary>{escape(title)}</summary><p>{text}</p></details>"
