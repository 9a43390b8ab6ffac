"""``evaluation.html``: the evaluation report, one self-contained file with pictures of the worst cases."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from medmaskrcnn.evaluation.evaluate import Evaluation
from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
from medmaskrcnn.evaluation.metrics.summary import CaseFigures, ClassFigures, length_unit
from medmaskrcnn.report.html_page import html_page
from medmaskrcnn.report.html_report import STYLE, embedded

_STYLE = """.plot { max-width: 44rem; width: 100% } .interval { color: var(--faint); font-size: .8em;
  white-space: nowrap } .case { display: grid; grid-template-columns: minmax(16rem, 32rem) 1fr; gap: 1rem;
  margin: 1rem 0; align-items: start } .wide td:first-child, .wide th:first-child { position: sticky; left: 0;
  background: var(--paper) } .meanings { max-width: 60rem; margin: .8rem 0 }
  @media (max-width: 50rem) { .case { grid-template-columns: minmax(0, 1fr) } body { padding: 0 1rem 2rem }
  .stamp { margin: 0 -1rem; padding: .6rem 1rem } th, td { padding: .35rem .4rem } }"""

COLUMNS = (
    ("found", "mask", "recall"),
    ("false/case", "mask", "false_positives_per_case"),
    ("precision", "mask", "precision"),
    ("Dice", "outline", "dice"),
    ("Dice, missed 0", "outline", "dice_with_missed"),
    ("HD95", "outline", "hd95"),
    ("NSD", "outline", "nsd"),
)
"""Heading, part and name of the metrics at the operating score; ``evaluation.json`` has all metrics."""

CURVES = (
    ("AP", "mask", "ap"),
    ("AP50", "mask", "ap50"),
    ("AP75", "mask", "ap75"),
    ("AP at IoU 0.1", "mask", "ap10"),
    ("box AP50", "box", "ap50"),
    ("CPM", "mask", "cpm"),
    ("DSB AP50", "mask", "dsb50"),
    ("PQ", "mask", "pq"),
)
"""Heading, part and name of the metrics used for comparison with published work."""

EMPTY_CASES = (
    ("false/case without an object", "mask", "false_positives_per_empty_case"),
    ("cases without an object and false finding", "mask", "specificity"),
)
"""Heading, part and name of the figures on cases in which there is nothing to find."""

WITHOUT_ANY = "any class"

MEANINGS = """found: share of the objects that the result has. false/case: objects of the result that are none.
precision: share of the result's objects that are right. Dice: overlap of an outline with the reference, 0 to 1, of the
objects found; "missed 0" counts the others as 0. HD95: how far outlines lie apart, but for the worst 5 %. NSD: share of
the outline that lies within the tolerance of the reference."""

_DASH = "\N{EN DASH}"
_MOST_OBJECTS = 12  # maximum number of objects listed per case


def figure_of(table: ClassFigures, part: str, name: str) -> Estimate:
    """One metric of a table."""
    parts = {"mask": table.mask, "box": table.box, "outline": table.outline}
    return parts[part][name]


def evaluation_html(evaluation: Evaluation, froc_png: bytes) -> str:
    """The page as HTML text.

    Args:
        evaluation: The evaluation to show, with its pictures.
        froc_png: The FROC plot.
    """
    name = evaluation.model[0] if evaluation.model else "results"
    title = f"{name} on {len(evaluation.cases)} cases" + (
        f" of {evaluation.dataset[0]}, {evaluation.dataset[1]}" if evaluation.dataset else ""
    )
    plot = f"data:image/png;base64,{base64.b64encode(froc_png).decode()}"
    body = f"""<h1>{escape(title)}</h1>
<p class="lead">{escape(_lead(evaluation))}</p>
{_failed(evaluation)}
<h2>Figures</h2>
{_summary(evaluation, COLUMNS)}
<p class="lead meanings">{MEANINGS}</p>
{_empty_cases(evaluation)}
{_subgroups(evaluation)}
<h2>Figures that other work is compared by</h2>
{_summary(evaluation, CURVES)}
<h2>FROC: what is found, and what it costs in false alarms</h2>
<img class="plot" src="{plot}" alt="share of objects found against false positives per case">
<h2>Cases, the worst first</h2>
{"".join(_case(case, evaluation) for case in evaluation.worst_first if case.id in evaluation.pictures)}
{_cases(evaluation)}"""
    return html_page(escape(title), body, style=STYLE + _STYLE)


def _lead(evaluation: Evaluation) -> str:
    settings, unit = evaluation.settings, length_unit(evaluation.cases) or "mm"
    patients = len({case.patient for case in evaluation.cases})
    words = [
        f"{patients} patients",
        f"result: score {evaluation.score:.3g} or more",
        f"found: IoU {settings.match_iou:g} or more",
        f"NSD within {settings.tolerance:g} {unit}",
        f"small figures: {100 * settings.level:g} % interval over patients",
    ]
    if settings.min_diameter:
        words.append(f"objects below {settings.min_diameter:g} {unit} need not be found")
    if evaluation.spelt_otherwise:
        words.append("classes of one name: " + ", ".join(f"{a} = {b}" for a, b in evaluation.spelt_otherwise.items()))
    for whose, names in (("predictions", evaluation.only_predicted), ("reference", evaluation.only_reference)):
        if names:
            words.append(f"not judged, known to the {whose} alone: {', '.join(names)}")
    return "; ".join(words)


def _failed(evaluation: Evaluation) -> str:
    notes = "".join(f"<p class=lead>{escape(note)}</p>" for note in evaluation.notes)
    if evaluation.missing:
        names = escape(", ".join(evaluation.missing))
        notes += f'<p class="warning">no prediction, counted as nothing found: {names}</p>'
    return notes + "".join(
        f'<p class="warning">{escape(case.id)} could not be evaluated: {escape(case.error)}</p>'
        for case in evaluation.failed
    )


def _summary(evaluation: Evaluation, columns: Sequence[tuple[str, str, str]]) -> str:
    heads = ["class", "objects", *(_distance(evaluation) if head == "HD95" else head for head, _, _ in columns)]
    tables = [*evaluation.classes.items()]
    if len(tables) > 1:
        tables.append(("all classes", evaluation.overall))
    rows = (
        [escape(name), str(table.references), *(_with_interval(figure_of(table, p, n)) for _, p, n in columns)]
        for name, table in tables
    )
    return _table(heads, rows)


def _empty_cases(evaluation: Evaluation) -> str:
    """False findings on cases without an object: of each class, and of any."""
    rows = [(name, table) for name, table in evaluation.classes.items() if table.empty_cases]
    if evaluation.overall.empty_cases and len(evaluation.classes) > 1:
        rows.append((WITHOUT_ANY, evaluation.overall))
    if not rows:
        return ""
    heads = ["class", "cases without it", *(head for head, _, _ in EMPTY_CASES)]
    cells = (
        [escape(name), str(t.empty_cases), *(_with_interval(figure_of(t, p, n)) for _, p, n in EMPTY_CASES)]
        for name, t in rows
    )
    return f"<h2>False findings on cases without an object</h2>{_table(heads, cells)}"


def _subgroups(evaluation: Evaluation) -> str:
    """For each label a table: a row for each value and class."""
    parts = []
    for label in dict.fromkeys(one.label for one in evaluation.subgroups):
        columns = [(_distance(evaluation) if n == "hd95" else h, p, n) for h, p, n in (*COLUMNS, *EMPTY_CASES)]
        rows = []
        for one in evaluation.subgroups:
            tables = [*one.classes.items(), *([("all classes", one.overall)] if len(one.classes) > 1 else [])]
            rows += [
                [
                    escape(one.value), escape(name), f"{one.cases} ({one.patients})", str(table.references),
                    *(_with_interval(figure_of(table, p, n)) for _, p, n in columns),
                ]
                for name, table in tables if one.label == label
            ]  # fmt: skip
        heads = [label, "class", "cases (patients)", "objects", *(head for head, _, _ in columns)]
        parts.append(f"<h2>By {escape(label)}</h2>{_table(heads, rows, 2)}")
    return "".join(parts)


def _distance(evaluation: Evaluation) -> str:
    """Heading of the HD95 column, with its unit if all scans share one."""
    unit = length_unit(evaluation.cases)
    return f"HD95, {unit}" if unit else "HD95"


def _with_interval(figure: Estimate) -> str:
    if figure.low is None or figure.high is None:
        return _number(figure.value)
    return f'{_number(figure.value)}<br><span class="interval">{_number(figure.low)} to {_number(figure.high)}</span>'


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.3f}"


def _case(case: CaseFigures, evaluation: Evaluation) -> str:
    """A case with its picture and its objects, errors first."""
    picture = evaluation.pictures[case.id]
    errors_first = sorted(case.objects, key=lambda one: (one.outcome == "found", one.dice))
    heads = ["object", "", "score", "Dice", _distance(evaluation), "NSD"]
    rows = [
        [escape(o.class_name), o.outcome, _number(o.score), _number(o.dice), _number(o.hd95), _number(o.nsd)]
        for o in errors_first[:_MOST_OBJECTS]
    ]
    more = len(case.objects) - len(rows)
    left = f"<p class=lead>and {more} more</p>" if more > 0 else ""
    words = f"{case.id}: reference and prediction outlined in the slice with the largest error"
    return (
        f'<div class="case"><figure><img src="{embedded(picture)}" alt="{escape(words)}">'
        f"<figcaption>{escape(case.id)}</figcaption></figure><div>{_table(heads, rows, 2)}{left}</div></div>"
    )


def _cases(evaluation: Evaluation) -> str:
    heads = ["case", "patient", "objects", "found", "missed", "false", "Dice, missed 0"]
    rows = []
    for case in evaluation.worst_first:
        outcomes = [one.outcome for one in case.objects]
        dice = [one.dice for one in case.objects if one.outcome != "false positive"]
        counts = [outcomes.count("found"), outcomes.count("missed"), outcomes.count("false positive")]
        mean = sum(dice) / len(dice) if dice else None
        rows.append([escape(case.id), escape(case.patient), str(len(dice)), *map(str, counts), _number(mean)])
    return _table(heads, rows, 2)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], first_figure: int = 1) -> str:
    """A table of cells that are already HTML; columns from ``first_figure`` on are right-aligned."""

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = ["" if k < first_figure else " class=figure" for k in range(len(cells))]
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    head = line("th", [escape(h) for h in heads])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
