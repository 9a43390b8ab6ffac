"""What all adapter commands share: options for patients and splits, a progress bar, error handling."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Protocol

import typer

from medmaskrcnn_datasets.assemble import CountProgress, OnEvent
from medmaskrcnn_datasets.console import bar, report_errors, tell
from medmaskrcnn_datasets.patients import patient_by
from medmaskrcnn_datasets.splits import SplitRule, read_splits

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]


class Adapter(Protocol):
    """Writes a manifest; its other arguments are already bound."""

    def __call__(
        self,
        *,
        splits: SplitRule,
        patient_of: Callable[[str], str] | None,
        on_event: OnEvent,
        progress: CountProgress,
    ) -> Path:
        """Write it with these splits; ``patient_of`` gives a case's patient, ``None`` means the adapter's own rule."""


def adapter_command(what: str) -> Callable[[Callable[..., Adapter]], Callable[..., None]]:
    """Turn a function that builds an adapter from its options into a command.

    The command has the function's options followed by those of :func:`_splits_and_patients`, and passes the latter to
    the adapter. A bar shows the progress, the manifest's path is printed, and file errors end with exit code 1.

    Args:
        what: What the bar counts, ``"cases"``.
    """

    def decorate(prepare: Callable[..., Adapter]) -> Callable[..., None]:
        own = inspect.signature(prepare, eval_str=True).parameters
        shared = inspect.signature(_splits_and_patients, eval_str=True).parameters

        @wraps(prepare)
        def command(**options: Any) -> None:
            with report_errors(), bar(what) as progress:
                splits, patient_of = _splits_and_patients(**{name: options.pop(name) for name in shared})
                write = prepare(**options)
                manifest = write(splits=splits, patient_of=patient_of, on_event=tell, progress=progress)
            typer.echo(manifest)

        command.__signature__ = inspect.Signature([*own.values(), *shared.values()])  # type: ignore[attr-defined]
        return command

    return decorate


def names_in(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _splits_and_patients(
    test: Annotated[str, typer.Option(help="Patients for testing, separated by commas.")] = "",
    val: Annotated[str, typer.Option(help="Patients for validation, separated by commas.")] = "",
    train: Annotated[str, typer.Option(help="Patients that no share and no fold takes away from training.")] = "",
    test_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the patients for testing.")] = 0.0,
    val_share: Annotated[float, typer.Option(min=0, max=1, help="Share of the patients for validation.")] = 0.0,
    folds: Annotated[int, typer.Option(min=0, help="Deal the patients left for training into so many folds.")] = 0,
    fold: Annotated[int, typer.Option(min=0, help="The fold for validation, from 0.")] = 0,
    split: Annotated[
        Path | None,
        typer.Option(
            help="JSON with lists of patients, test and val, instead of the options above: --split splits.json."
        ),
    ] = None,
    patient: Annotated[
        str, typer.Option(help="Regular expression; what it matches in a case's name (its first group) is the patient.")
    ] = "",
) -> tuple[SplitRule, Callable[[str], str] | None]:
    """The split rule and the patient function given by the options.

    Raises:
        ValueError: if they contradict each other.
        ReadError: if the file of splits cannot be read.
    """
    patient_of = patient_by(patient) if patient else None
    rule = SplitRule(names_in(test), names_in(val), names_in(train), test_share, val_share, folds, fold)
    if split is None:
        return rule, patient_of
    if rule != SplitRule():
        raise ValueError("give either --split or the other options about splits, not both")
    return read_splits(split), patient_of
