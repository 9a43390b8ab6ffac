"""Options about labelled data that no file answers, and the manifest that is made with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from medmaskrcnn.cli.console import print_status
from medmaskrcnn.cli.options import assignments
from medmaskrcnn.cli.train_display import count_bar

if TYPE_CHECKING:
    from medmaskrcnn.data.manifest import Manifest
    from medmaskrcnn_datasets.convert import ConversionOptions
    from medmaskrcnn_datasets.objects import Rule


def about_labels(
    metavar: str, text: str, default: str, *, panel: str = "Labelled data", least: int | None = None
) -> Any:
    """An option that says something of labels: what is given, its help, and what holds without it."""
    return typer.Option(metavar=metavar, help=text, show_default=default, rich_help_panel=panel, min=least)


RuleOption = Annotated[
    list[str] | None,
    about_labels(
        "[CLASS=]RULE",
        "What one object is: components (each connected part), whole (all of a case) or instances (each label "
        "value); 'tumour=components', once for each class.",
        "by the class's name, else as the labels show",
    ),
]
WithinOption = Annotated[
    list[str] | None,
    about_labels(
        "INNER=OUTER",
        "Objects of one class lie in those of another, whose masks include them: 'tumour=liver'.",
        "none",
    ),
]
IgnoreOption = Annotated[
    list[int] | None,
    about_labels(
        "VALUE",
        "Label value whose voxels are neither object nor background: --ignore 255; once for each.",
        "nnU-Net's 'ignore'; 255 beside small numbers",
        least=1,
    ),
]
NewNameOption = Annotated[
    list[str] | None,
    about_labels(
        "A=B",
        "Class A of the data is called B: 'Anterior=anterior hippocampus'; once for each. Two classes of one name "
        "are one class.",
        "none",
    ),
]
LabelOption = Annotated[
    list[str] | None,
    about_labels(
        "VALUE=CLASS",
        "Class of a label value where no file says it, '1=liver'; once for each.",
        "label 1, label 2, ...",
    ),
]
ClassNameOption = Annotated[
    str,
    typer.Option(metavar="CLASS", help="Class of the objects of masks: 'nucleus'.", rich_help_panel="Labelled data"),
]
PatientOption = Annotated[
    str,
    about_labels(
        "REGEX",
        "What it matches in a case's name (its first group) is the patient: '^(P[0-9]+)_'.",
        "cases.csv, else names such as P01_003",
    ),
]


def label_options(
    rule: list[str] | None,
    within: list[str] | None,
    ignore: list[int] | None,
    rename: list[str] | None,
    label: list[str] | None,
    class_name: str,
    patient: str,
) -> ConversionOptions:
    """What the options say of the data.

    Raises:
        typer.BadParameter: if one is not of its form.
    """
    from medmaskrcnn_datasets.convert import ConversionOptions
    from medmaskrcnn_datasets.objects import ClassRules

    alone = [text.strip() for text in rule or () if "=" not in text]
    if len(alone) > 1:
        raise typer.BadParameter(f"one rule for all other classes, got {', '.join(alone)}", param_hint="--rule")
    by_class = assignments([text for text in rule or () if "=" in text], "--rule")
    values = assignments(label, "--label")
    wrong = next((value for value in values if not value.isdigit() or not int(value)), None)
    if wrong is not None:
        raise typer.BadParameter(f"a label value is a whole number of 1 or more, got {wrong}", param_hint="--label")
    rules = ClassRules(
        _rule(alone[0]) if alone else "auto",
        {name: _rule(text) for name, text in by_class.items()},
        assignments(rename, "--rename"),
        assignments(within, "--within"),
        ignore=tuple(ignore or ()),
    )
    return ConversionOptions(rules, {int(value): name for value, name in values.items()}, class_name, patient)


def labelled_manifest(
    data: Sequence[Path], out: Path, options: ConversionOptions | None = None, *, shown: bool
) -> Manifest:
    """The manifest at ``data``, or one made of the labelled data there; of several, one for all together.

    Args:
        data: Manifests or data sets.
        out: Folder of what is made with them; conversions go beside it, ``run-data/``.
        options: What the data does not say itself.
        shown: Show progress.

    Raises:
        typer.BadParameter: if an option cannot be followed.
        ReadError: if the data cannot be read.
    """
    from dataclasses import replace

    from medmaskrcnn.data.manifest import read_manifest
    from medmaskrcnn_datasets.convert import AS_IT_SAYS, detect_format, to_manifest
    from medmaskrcnn_datasets.join import join_datasets

    options = options or AS_IT_SAYS
    tell = partial(print_status, "note")
    place = out.with_name(f"{out.name}-data")
    if len(data) == 1:
        if options != AS_IT_SAYS and detect_format(data[0]) == "manifest":
            raise typer.BadParameter(
                f"{data[0]} is a manifest, whose objects are settled: give the data set that it was made from"
            )
        with count_bar("convert", shown=shown) as progress:
            return read_manifest(to_manifest(data[0], place, options=options, on_event=tell, progress=progress))
    own = replace(options, rules=replace(options.rules, rename={}, strict=False))
    made = []
    for number, one in enumerate(data, start=1):
        with count_bar("convert", shown=shown) as progress:
            folder = place / f"{number}-{one.resolve().stem}"
            made.append(to_manifest(one, folder, options=own, on_event=tell, progress=progress))
    return read_manifest(join_datasets(made, place / "manifest.json", rename=options.rules.rename, on_event=tell))


def _rule(text: str) -> Rule:
    from medmaskrcnn_datasets.objects import Rule

    known = next((one for one in get_args(Rule) if one == text), None)
    if known is None:
        raise typer.BadParameter(f"a rule is components, whole or instances, got {text!r}", param_hint="--rule")
    return known  # type: ignore[no-any-return]
