"""What the commands of all adapters have in common: options about patients and splits, a bar, errors."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from medmaskrcnn_datasets.assemble import CountProgress, patient_by
from medmaskrcnn_datasets.console import bar, report_errors
from medmaskrcnn_datasets.splits import SplitRule, read_splits

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write to.")]


@dataclass(frozen=True)
class Common:
    """What the common options say: the splits, who the patient of a case is (``None``: by default), the bar."""

    splits: SplitRule
    patient_of: Callable[[str], str] | None
    progress: CountProgress


def adapter_command(what: str) -> Callable[[Callable[..., Path]], Callable[..., None]]:
    """Make a command of a function that writes a manifest.

    Its keyword ``common`` is filled from the options of :func:`_splits_and_patients`, which the command gets behind its
    own; a bar shows the progress, the manifest's path is printed, and errors about files end with exit code 1.

    Args:
        what: What the bar counts, ``"cases"``.
    """

    def decorate(adapter: Callable[..., Path]) -> Callable[..., None]:
        own = inspect.signature(adapter, eval_str=True).parameters
        shared = inspect.signature(_splits_and_patients, eval_str=True).parameters

        @wraps(adapter)
        def command(**options: Any) -> None:
            with report_errors(), bar(what) as progress:
                splits, patient_of = _splits_and_patients(**{name: options.pop(name) for name in shared})
                manifest = adapter(**options, common=Common(splits, patient_of, progress))
            typer.echo(manifest)

        parameters = [*(p for name, p in own.items() if name != "common"), *shared.values()]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
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
        Path | None, typer.Option(help="JSON with lists of patients, test and val, instead of the options above.")
    ] = None,
    patient: Annotated[
        str, typer.Option(help="Regular expression; what it matches in a case's name (its first group) is the patient.")
    ] = "",
) -> tuple[SplitRule, Callable[[str], str] | None]:
    """What the options say.

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
