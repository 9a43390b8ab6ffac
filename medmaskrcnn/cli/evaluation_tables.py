"""An evaluation as tables for people: the classes' detection, their outlines, and the worst cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medmaskrcnn.cli.console import echo
from medmaskrcnn.cli.tables import print_table

if TYPE_CHECKING:
    from medmaskrcnn.evaluation.evaluate import Evaluation
    from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
    from medmaskrcnn.evaluation.metrics.summary import ClassFigures

DETECTION = (
    ("AP", "mask", "ap"),
    ("AP50", "mask", "ap50"),
    ("AP75", "mask", "ap75"),
    ("AP10", "mask", "ap10"),
    ("box AP", "box", "ap"),
    ("box AP50", "box", "ap50"),
    ("CPM", "mask", "cpm"),
    ("found", "mask", "recall"),
    ("precision", "mask", "precision"),
    ("false/case", "mask", "false_positives_per_case"),
    ("DSB50", "mask", "dsb50"),
    ("DSB75", "mask", "dsb75"),
    ("DSB90", "mask", "dsb90"),
)
OUTLINES = (
    ("Dice", "outline", "dice"),
    ("Dice, missed 0", "outline", "dice_with_missed"),
    ("class Dice", "outline", "class_dice"),
    ("HD95", "outline", "hd95"),
    ("NSD", "outline", "nsd"),
    ("volume error", "outline", "median_volume_error"),
    ("|volume error|", "outline", "median_absolute_volume_error"),
    ("PQ", "mask", "pq"),
    ("SQ", "mask", "sq"),
    ("RQ", "mask", "rq"),
)
SUBGROUPS = (
    ("found", "mask", "recall"),
    ("false/case", "mask", "false_positives_per_case"),
    ("false/empty case", "mask", "false_positives_per_empty_case"),
    ("AP50", "mask", "ap50"),
    ("Dice, missed 0", "outline", "dice_with_missed"),
)
_WORST = 10
_MOST_NAMES = 10

Columns = tuple[tuple[str, str, str], ...]


def print_evaluation(evaluation: Evaluation) -> None:
    """Print all tables; what is undefined is a dash."""
    from medmaskrcnn.evaluation.metrics.summary import length_unit

    settings, unit = evaluation.settings, length_unit(evaluation.cases) or "mixed units"
    level = f"{100 * settings.level:g} %"
    name = evaluation.model[0] if evaluation.model else "results"
    data = f" of {evaluation.dataset[0]}, {evaluation.dataset[1]}" if evaluation.dataset else ""
    _print_classes(
        f"{name} on {len(evaluation.cases)} cases{data}: what is found "
        f"(score >= {evaluation.score:.3g}, IoU >= {settings.match_iou:g}; FROC at IoU {settings.froc_iou:g})",
        evaluation,
        DETECTION,
        level,
    )
    _print_classes(
        f"how well it is outlined (HD95 in {unit}, NSD within {settings.tolerance:g} {unit})",
        evaluation,
        OUTLINES,
        level,
    )
    _print_empty_cases(evaluation, level)
    for label in dict.fromkeys(one.label for one in evaluation.subgroups):
        _print_subgroups(label, evaluation)
    if evaluation.spelt_otherwise:
        echo("classes of one name: " + ", ".join(f"{a} = {b}" for a, b in evaluation.spelt_otherwise.items()))
    for whose, names in (("predictions", evaluation.only_predicted), ("reference", evaluation.only_reference)):
        if names:
            echo(f"not judged, since only the {whose} knows them: {', '.join(names)}")
    for note in evaluation.notes:
        echo(note)
    if evaluation.missing:
        many = len(evaluation.missing)
        first = ", ".join(evaluation.missing[:_MOST_NAMES]) + (", ..." if many > _MOST_NAMES else "")
        echo(f"no prediction for {many} of {len(evaluation.cases)} cases, counted as nothing found: {first}")
    _print_cases(evaluation)


def _print_classes(title: str, evaluation: Evaluation, columns: Columns, level: str) -> None:
    """A row for each class, then all classes with their interval."""
    heads = [head for head, _, _ in columns]
    rows = [_row(name, table, columns, "value") for name, table in evaluation.classes.items()]
    if len(rows) > 1:
        rows.append(_row("all classes", evaluation.overall, columns, "value"))
    for bound, words in (("low", f"{level} from"), ("high", f"{level} to")):
        row = _row(words, evaluation.overall, columns, bound)
        rows.append([words, "", *row[2:]])
    print_table(title, ["class", "objects", *heads], rows, numbers=("objects", *heads))


def _print_empty_cases(evaluation: Evaluation, level: str) -> None:
    """False findings on cases without an object: of each class, then of any; nothing if there is no such case."""
    tables = [(name, table) for name, table in evaluation.classes.items() if table.empty_cases]
    if evaluation.overall.empty_cases and len(evaluation.classes) > 1:
        tables.append(("any class", evaluation.overall))
    if not tables:
        return
    heads = ["cases without it", "false/case", f"{level} interval", "without false", f"{level} interval "]
    rows = []
    for name, table in tables:
        cells = []
        for figure in (table.mask["false_positives_per_empty_case"], table.mask["specificity"]):
            cells += [_figure(figure, "value"), _interval(figure)]
        rows.append([name, str(table.empty_cases), *cells])
    print_table("false findings on cases without an object", ["class", *heads], rows, numbers=heads)


def _print_subgroups(label: str, evaluation: Evaluation) -> None:
    """A row for each value and class, each figure with its interval."""
    heads = [head for head, _, _ in SUBGROUPS]
    rows = []
    for one in evaluation.subgroups:
        tables = [*one.classes.items(), *([("all classes", one.overall)] if len(one.classes) > 1 else [])]
        for name, table in tables if one.label == label else []:
            parts = {"mask": table.mask, "outline": table.outline}
            cells = []
            for _, part, figure in SUBGROUPS:
                estimate = parts[part][figure]
                cells.append(f"{_figure(estimate, 'value')} {_interval(estimate)}".strip())
            rows.append([one.value, name, f"{one.cases} ({one.patients})", str(table.references), *cells])
    print_table(f"by {label}", [label, "class", "cases (patients)", "objects", *heads], rows, numbers=heads)


def _interval(estimate: Estimate) -> str:
    return "" if estimate.low is None or estimate.high is None else f"[{estimate.low:.2f}, {estimate.high:.2f}]"


def _row(name: str, table: ClassFigures, columns: Columns, which: str) -> list[str]:
    parts = {"mask": table.mask, "box": table.box, "outline": table.outline}
    return [name, str(table.references), *(_figure(parts[part][figure], which) for _, part, figure in columns)]


def _figure(estimate: Estimate, which: str) -> str:
    value = {"value": estimate.value, "low": estimate.low, "high": estimate.high}[which]
    return "-" if value is None else f"{value:.3f}"


def _print_cases(evaluation: Evaluation) -> None:
    rows = []
    for case in evaluation.worst_first[:_WORST]:
        outcomes = [one.outcome for one in case.objects]
        dice = [one.dice for one in case.objects if one.outcome != "false positive"]
        mean = f"{sum(dice) / len(dice):.3f}" if dice else "-"
        counts = [outcomes.count(kind) for kind in ("found", "missed", "false positive")]
        seconds = "-" if case.seconds is None else f"{case.seconds:.1f}"
        rows.append([case.id, *map(str, counts), mean, seconds])
    heads = ["found", "missed", "false", "Dice, missed 0", "seconds"]
    print_table("the worst cases first", ["case", *heads], rows, numbers=heads)
