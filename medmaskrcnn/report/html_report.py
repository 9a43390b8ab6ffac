"""``report.html``: a readable report of one scan's result, in one self-contained file that works offline.

It shows a table of the instances, a montage with their outlines and the provenance, below a banner, visible on every
screen, that it is not for clinical use. It names no patient, path or date; images are embedded; there is no script.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import IO, Any

from PIL import Image

from medmaskrcnn.report.colours import Colour, class_colours
from medmaskrcnn.report.html_page import html_page
from medmaskrcnn.report.preview import caption, draw_montage_panels
from medmaskrcnn.report.result_document import result_document
from medmaskrcnn.report.units import intensity_unit, volume_text
from medmaskrcnn.structures.case_result import CaseResult, Measurement
from medmaskrcnn.structures.result_table import OUT_OF_DOMAIN
from medmaskrcnn.structures.volume import Volume

NOT_CLINICAL = "Not for clinical use. Research software, not a medical device; no person has checked this result."
_DASH = "\N{EN DASH}"

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --faint: #57606a; --paper: #ffffff; --line: #d8dee4; --soft: #f3f5f7 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --faint: #9aa4ae; --paper: #14171a; --line: #343a41; --soft: #1d2126 }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 0 1.5rem 2rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif }
.stamp { margin: 0 -1.5rem; padding: .6rem 1.5rem; background: #7a4b00; color: #fff; font-weight: 600;
  position: sticky; top: 0; z-index: 1 }
.alarm { background: #b3151b }
h1 { font-size: 1.5rem; margin: 1.4rem 0 .2rem } h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
.lead { color: var(--faint); margin: 0 }
.wide { overflow-x: auto }
table { border-collapse: collapse; width: 100% }
th, td { padding: .35rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--faint); font-weight: 600 }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums }
.dot { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em;
  border: 1px solid #0003 }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem }
figure { margin: 0; background: #000; border-radius: 4px; overflow: hidden; display: flex; flex-direction: column }
figure img { width: 100%; display: block; margin: auto 0 } figcaption { background: var(--soft); color: var(--faint);
  padding: .3rem .6rem; font-size: .85rem }
.warning { border-left: 4px solid #c77700; background: var(--soft); padding: .5rem .8rem; margin: .5rem 0 }
.origin th { width: 14rem } .origin td { overflow-wrap: anywhere }
code { font-size: .88em }
@media print { .stamp { position: static } body { max-width: none } figure, tr { break-inside: avoid } }
"""
"""Style sheet of every report."""


def write_report(result: CaseResult, volume: Volume, stream: IO[bytes]) -> None:
    """Write the result's report; the same result gives the same bytes.

    Args:
        result: The result.
        volume: The scan it belongs to.
        stream: Binary stream to write to.
    """
    stream.write(report_html(result, volume).encode())


def report_html(result: CaseResult, volume: Volume) -> str:
    """The report as HTML text; see the module docstring."""
    record, n = result.record, len(result.kept)
    title = f"{n} instance{'' if n == 1 else 's'} found by {escape(record.model_name)}"
    alarm = f'<p class="stamp alarm" role="alert">{escape(OUT_OF_DOMAIN)}.</p>' if record.out_of_domain else ""
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in record.warnings)
    body = f"""{alarm}
<h1>{title}</h1>
<p class="lead">{escape(_lead(result, volume))}</p>
{warnings}
<h2>What was found</h2>
{_counts(result)}
{_table(result, volume.modality)}
<h2>Where</h2>
{_pictures(result, volume)}
<h2>How it came about</h2>
{_origin(result, volume)}
<p class="lead">{NOT_CLINICAL}</p>"""
    return html_page(title, body, style=STYLE, stamp=NOT_CLINICAL)


def _lead(result: CaseResult, volume: Volume) -> str:
    d, h, w = volume.grid.shape
    size = f"{w} x {h} x {d} voxels"
    if volume.spacing_mm is not None:
        size += " of {2:.3g} x {1:.3g} x {0:.3g} mm".format(*volume.spacing_mm)
    modality = volume.modality or volume.provenance.format
    return f"{modality}, {size}; instances with a score of {result.score_threshold:.3g} or more"


def _counts(result: CaseResult) -> str:
    """The number of instances of each class, including classes without any."""
    found = result.candidates
    labels = [int(found.labels[i]) for i in result.kept]
    classes = enumerate(zip(found.class_names, class_colours(found.class_names), strict=True))
    entries = (f"{_dot(rgb)}{escape(name)}: {labels.count(label) or 'none'}" for label, (name, rgb) in classes)
    return f"<p>{' &emsp; '.join(entries)}</p>"


def _table(result: CaseResult, modality: str | None) -> str:
    if not result.kept:
        return "<p>Nothing was found at this score.</p>"
    unit = "mm" if result.candidates.grid.spacing_known else "px"
    head = ["id", "class", "score", "volume", f"longest axial diameter, {unit}", f"perpendicular, {unit}"]
    unit_of_values = intensity_unit(modality or result.record.source.get("modality"))
    intensity = [f"{name}, {unit_of_values}" if unit_of_values else name for name in ("mean", "minimum", "maximum")]
    rows = (_row(result, number, i) for number, i in enumerate(result.kept, start=1))
    return (
        f'<div class="wide"><table><thead><tr>{_cells("th", head, figures_from=2)}'
        f"{_cells('th', intensity, figures_from=0)}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(result: CaseResult, number: int, i: int) -> str:
    found, m = result.candidates, result.measurements[i]
    label = int(found.labels[i])
    name = f"{_dot(class_colours(found.class_names)[label])}{escape(found.class_names[label])}"
    figures = [f"{found.scores[i]:.2f}", volume_text(m.volume_unit3, m.unit), *(_figure(v) for v in _values(m))]
    return f"<tr><td>{number}</td><td>{name}</td>{_cells('td', figures, figures_from=0)}</tr>"


def _values(m: Measurement) -> tuple[float | None, ...]:
    diameters = (m.longest_axial_diameter, m.perpendicular_diameter)
    return (*diameters, m.mean_intensity, m.min_intensity, m.max_intensity)


def _figure(value: float | None) -> str:
    return _DASH if value is None else f"{value:.1f}"


def _cells(tag: str, texts: Sequence[str], *, figures_from: int) -> str:
    return "".join(
        f"<{tag}{' class=figure' if k >= figures_from else ''}>{escape(text)}</{tag}>" for k, text in enumerate(texts)
    )


def _dot(colour: Colour) -> str:
    return '<span class="dot" style="background:#{:02x}{:02x}{:02x}"></span>'.format(*colour)


def _pictures(result: CaseResult, volume: Volume) -> str:
    figures = (
        f'<figure><img src="{embedded(panel)}" width="{panel.width}" height="{panel.height}" '
        f'alt="{escape(words)}, with the outlines of what was found"><figcaption>{escape(words)}</figcaption></figure>'
        for panel, words in ((p, caption(volume, plane)) for p, plane in draw_montage_panels(result, volume))
    )
    return f'<div class="pictures">{"".join(figures)}</div>'


def embedded(picture: Image.Image) -> str:
    """An image as a data URL for an ``img`` element."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _origin(result: CaseResult, volume: Volume) -> str:
    """Provenance: the model, the software, the settings and the scan, as ``result.json`` has them."""
    document = result_document(result, volume)
    entries = [
        ("software", document["software"]),
        ("model", document["model"]["name"]),
        ("model file, SHA-256", document["model"]["sha256"]),
        ("licence of the weights", document["model"]["licence"]),
        ("device, precision", f"{document['device']}, {document['precision']}"),
        *((f"setting {name}", value) for name, value in sorted(document["settings"].items())),
        *((f"scan: {name.replace('_', ' ')}", value) for name, value in sorted(document["source"].items())),
        ("overlapping instances", [f"{a} and {b}" for a, b in (o["ids"] for o in document["overlaps"])]),
    ]
    rows = (f"<tr><th>{escape(name)}</th><td>{_value(value)}</td></tr>" for name, value in entries)
    return f'<table class="origin"><tbody>{"".join(rows)}</tbody></table>'


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "<br>".join(f"{escape(str(k))}: <code>{escape(str(v))}</code>" for k, v in sorted(value.items()))
    if isinstance(value, (list, tuple)):
        return _listed(str(v) for v in value)
    return _DASH if value is None or value == "" else escape(str(value))


def _listed(texts: Iterable[str]) -> str:
    """A list on one line; a long one is cut and the number of remaining items given."""
    items = list(texts)
    shown = ", ".join(escape(text) for text in items[:8])
    return (f"{shown} and {len(items) - 8} more" if len(items) > 8 else shown) or _DASH
