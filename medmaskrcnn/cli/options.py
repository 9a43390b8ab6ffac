"""Options that several commands share, each declared once.

A command that segments says which of them it has, and is given them as one object:

    @with_segment_options(*RUNNING, *REPORTING)
    def some_command(scan: ..., options: SegmentOptions, ...) -> None: ...
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from medmaskrcnn.cli.failures import failing_as_one
from medmaskrcnn.errors import InvalidOptionError, ModelFileError
from medmaskrcnn.hub.model_file import read_model_settings, resolve_model
from medmaskrcnn.settings import ALL_FORMATS, FORMATS, OutputOptions, SegmentOptions
from medmaskrcnn.settings.segment_options import Device, Engine, Precision, options_from

DEFAULT_FORMATS = ",".join(FORMATS)

ModelOption = Annotated[
    str, typer.Option(metavar="NAME_OR_FILE", help="A model that ships (medmaskrcnn models), or a .safetensors file.")
]
DeviceOption = Annotated[Device, typer.Option(help="Where the network runs.")]
TrainDeviceOption = Annotated[Device, typer.Option(help="Where to train.")]
LabelMapSegOption = Annotated[
    bool, typer.Option("--label-map-seg", help="DICOM SEG as LABELMAP (small, new) where no two instances overlap.")
]
DeidentifyOption = Annotated[
    bool, typer.Option("--deidentify", help="No name, ID or date in DICOM files, hashed UIDs, no path in run.json.")
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A=B",
        help="Class A of one side is B of the other, 'Anterior=anterior hippocampus'; once for each.",
        show_default="none",
    ),
]
LogOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write all details, with tracebacks, here.")]

_SEGMENT: dict[str, tuple[Any, Any]] = {
    "device": (DeviceOption, "auto"),
    "precision": (
        Annotated[
            Precision,
            typer.Option(help="In what it computes; auto takes bf16 where processor and model gain from it."),
        ],
        "auto",
    ),
    "engine": (
        Annotated[
            Engine,
            typer.Option(
                help="What runs the network's layers; auto: torch unless the model says otherwise. See docs/fast.md."
            ),
        ],
        "auto",
    ),
    "flips": (
        Annotated[
            str | None,
            typer.Option(
                metavar="W|H,W|none",
                help="Mirror along these axes of the network (D, H, W) and take the mean: twice the time for each.",
                show_default="the model's own",
            ),
        ],
        None,
    ),
    "score": (
        Annotated[
            float | None,
            typer.Option(min=0.0, max=1.0, help="Report instances from this score on.", show_default="the model's own"),
        ],
        None,
    ),
    "classes": (
        Annotated[str | None, typer.Option(metavar="A,B", help="Report these classes alone.", show_default="all")],
        None,
    ),
    "series": (
        Annotated[
            str | None,
            typer.Option(metavar="UID|N|largest", help="Which series of a folder with several (medmaskrcnn info)."),
        ],
        None,
    ),
    "resample_irregular": (
        Annotated[
            bool,
            typer.Option(
                "--resample-irregular",
                help="Interpolate even slices where a series lacks, repeats or unevenly spaces some; the result says "
                "so.",
            ),
        ],
        False,
    ),
    "merge_series": (
        Annotated[
            bool,
            typer.Option(
                "--merge-series",
                help="Read slices that make one even stack as one series, although their series or frame of reference "
                "UIDs differ; the result says so.",
            ),
        ],
        False,
    ),
    "drop_duplicates": (
        Annotated[
            bool,
            typer.Option(
                "--drop-duplicates",
                help="Leave out images that repeat another of their series pixel for pixel; the result says so.",
            ),
        ],
        False,
    ),
    "suv": (
        Annotated[bool, typer.Option("--suv", help="Read PET as standardised uptake values by body weight (g/ml).")],
        False,
    ),
    "channels": (
        Annotated[
            list[str] | None,
            typer.Option(
                "--channels",
                metavar="NAME=WHAT",
                help="For a model of several sequences, once for each: a file (T1=t1.nii.gz), or which scan of a "
                "folder by series UID, number or pattern (FLAIR='*flair*').",
                show_default="files named CASE_0000, CASE_0001, ...",
            ),
        ],
        None,
    ),
    "track": (Annotated[bool, typer.Option("--track", help="Link instances along time in cine series.")], False),
    "allow_out_of_domain": (
        Annotated[
            bool,
            typer.Option("--allow-out-of-domain", help="Run a model on scans that it refuses; the result says so."),
        ],
        False,
    ),
}
_OUTPUT: dict[str, tuple[Any, Any]] = {
    "formats": (
        Annotated[
            str,
            typer.Option(
                "--format",
                metavar="LIST",
                help=f"What to write beside instances.npz and run.json, out of: {', '.join(ALL_FORMATS)}.",
            ),
        ],
        DEFAULT_FORMATS,
    ),
    "label_map_seg": (LabelMapSegOption, False),
    "deidentify": (DeidentifyOption, False),
}


DOMAIN = ("allow_out_of_domain",)
RUNNING = ("device", "precision", "engine", *DOMAIN)
REPORTING = ("score", "classes")
READING = ("resample_irregular", "merge_series", "drop_duplicates", "suv", "track")
"""How every scan is read; "series" chooses among several."""

Command = Callable[..., None]


def with_segment_options(*names: str) -> Callable[[Command], Command]:
    """Gives a command these options of a segmentation, and hands them to its parameter ``options`` as one object.

    Where ``classes`` is one of them, the command must have a parameter ``model``.
    """

    def taken(values: dict[str, Any]) -> SegmentOptions:
        asked = {name: values.pop(name) for name in names}
        if asked.get("flips") is not None:
            asked["flips"] = () if asked["flips"] == "none" else chosen(asked["flips"], ("D", "H", "W"), "--flips")
        if asked.get("classes") is not None:
            asked["classes"] = chosen(asked["classes"], _classes_of(values["model"]), "--classes")
        if "channels" in asked:
            asked["channels"] = assignments(asked["channels"], "--channels")
        with naming_the_flag():
            return options_from(None, SegmentOptions, **asked)

    return _expanding("options", {name: _SEGMENT[name] for name in names}, taken)


def with_output_options(
    *names: str, formats: str = DEFAULT_FORMATS, paths_in_run: bool = True
) -> Callable[[Command], Command]:
    """Gives a command these options of what is written, and hands them to its parameter ``output`` as one object.

    Args:
        names: Of the options beside ``--format``.
        formats: Default of ``--format``.
        paths_in_run: As of :class:`OutputOptions`; users are not asked.
    """
    declared = {"formats": (_OUTPUT["formats"][0], formats), **{name: _OUTPUT[name] for name in names}}

    def taken(values: dict[str, Any]) -> OutputOptions:
        asked = {name: values.pop(name) for name in declared}
        asked["formats"] = chosen(asked["formats"], ALL_FORMATS, "--format")
        return OutputOptions(**asked, paths_in_run=paths_in_run)

    return _expanding("output", declared, taken)


def _expanding(
    parameter: str, declared: dict[str, tuple[Any, Any]], taken: Callable[[dict[str, Any]], Any]
) -> Callable[[Command], Command]:
    """A decorator: typer sees the declared options in place of ``parameter``, the command what is taken of them."""

    def decorate(command: Command) -> Command:
        def expanded(**values: Any) -> None:
            values[parameter] = taken(values)
            command(**values)

        parameters: list[inspect.Parameter] = []
        for own in inspect.signature(command, eval_str=True).parameters.values():
            if own.name == parameter:
                for name, (annotation, default) in declared.items():
                    shared = inspect.Parameter(
                        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                    )
                    parameters.append(shared)
            else:
                parameters.append(own.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        expanded.__doc__, expanded.__name__ = command.__doc__, command.__name__
        expanded.__annotations__ = {one.name: one.annotation for one in parameters}
        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return expanded

    return decorate


def model_file(model: str) -> Path:
    """The file of a model.

    Raises:
        typer.BadParameter: if there is none.
    """
    try:
        return resolve_model(model)
    except ModelFileError as error:
        raise typer.BadParameter(str(error), param_hint="--model") from error


def _classes_of(model: str) -> tuple[str, ...]:
    """Names of a model's classes."""
    file = model_file(model)
    with failing_as_one(model):
        return read_model_settings(file).model.class_names


def chosen(text: str, known: Sequence[str], option: str) -> tuple[str, ...]:
    """The comma-separated names in ``text``, each of which must be known.

    Raises:
        typer.BadParameter: if one is not, or none is given.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        what = f"there is no {', '.join(unknown)}" if unknown else "no name given"
        raise typer.BadParameter(f"{what}; choose from: {', '.join(known)}", param_hint=option)
    return names


def assignments(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """What texts such as ``tumour=components`` assign, in their order.

    Raises:
        typer.BadParameter: if one has no equals sign, or nothing on a side of it, or two assign to one name.
    """
    assigned: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value) or name in assigned:
            twice = " has a value already" if name in assigned else " is no NAME=VALUE"
            raise typer.BadParameter(f"{text!r}{twice}", param_hint=option)
        assigned[name] = value
    return assigned


@contextmanager
def naming_the_flag() -> Iterator[None]:
    """An option that cannot be becomes wrong use, which names that option alone.

    Raises:
        typer.BadParameter: in place of the library's error.
    """
    try:
        yield
    except InvalidOptionError as error:
        raise typer.BadParameter(str(error), param_hint=f"--{error.option}") from error
