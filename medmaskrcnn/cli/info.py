"""``medmaskrcnn info``: what is in a file or folder, and what of it can be segmented. Never imports torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from medmaskrcnn.cli.cards import card_json, print_card
from medmaskrcnn.cli.console import echo, print_json
from medmaskrcnn.cli.failures import failing_as_one, logging_to
from medmaskrcnn.cli.tables import print_instances, print_scans
from medmaskrcnn.hub.model_file import SUFFIX, read_model_settings, shipped_models
from medmaskrcnn.io.discover import FoundScan, find_scans
from medmaskrcnn.report.result_document import result_document
from medmaskrcnn.settings import ModelCard
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.store import load_case
from medmaskrcnn.structures.volume import Volume

RESULT_FILE = "instances.npz"


EXAMPLES = (
    "medmaskrcnn info study/",
    "medmaskrcnn info scan.nii.gz --json",
    "medmaskrcnn info result/",
    "medmaskrcnn info my-model.safetensors",
)


def info_command(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A scan, a folder, a result or a model file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    merge_series: Annotated[
        bool, typer.Option("--merge-series", help="As of segment: slices that make one even stack are one series.")
    ] = False,
) -> None:
    """Show what is in a file or folder: geometry, what can be segmented, and what not and why.

    Reads headers alone, so it is quick. Understands scans and folders of scans, the folders that segment writes,
    and model files. With --json: a list of scans, a result (a list, if the folder holds several) or a model's card.
    """
    with logging_to(None), failing_as_one(str(path)):
        results = result_files(path)
        if path.suffix == SUFFIX:
            _show_model(path, as_json)
        elif results:
            _show_results(results, as_json)
        else:
            _show_scans(path, as_json, merge_series)


def result_files(path: Path) -> list[Path]:
    """The results that ``path`` is or holds: the file itself, that of a result folder, or those of its cases."""
    if path.suffix == ".npz":
        return [path]
    if (path / RESULT_FILE).is_file():
        return [path / RESULT_FILE]
    return sorted(path.glob(f"*/{RESULT_FILE}"))


def fitting_models(modality: str | None, cards: Sequence[ModelCard]) -> list[str]:
    """Names of the models made for a modality; those that take phantoms alone say so."""
    fitting = [card for card in cards if card.modality in (None, modality)]
    return [f"{card.name} (only scans from: {card.domain})" if card.domain else card.name for card in fitting]


def _show_model(path: Path, as_json: bool) -> None:
    settings = read_model_settings(path)
    if as_json:
        print_json({"kind": "model", **card_json(settings, path)})
    else:
        print_card(settings, path)


def _show_results(files: Sequence[Path], as_json: bool) -> None:
    results = [load_case(file) for file in files]
    if as_json:
        documents = [result_document(result, _blank_scan(result)) for result in results]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    for file, result in zip(files, results, strict=True):
        record = result.record
        made_by = f"{record.model_name}, {record.software}, {record.device} {record.precision}"
        print_instances(f"{file} (made by {made_by})", result)
        for warning in record.warnings:
            echo(f"  warning: {warning}")


def _blank_scan(result: CaseResult) -> Volume:
    """What a result remembers of its scan: grid and modality, without voxels (a view of a single zero)."""
    grid = result.candidates.grid
    modality = result.record.source.get("modality")
    return Volume(np.broadcast_to(np.int8(0), (1, *grid.shape)), grid, modality=modality)


def _show_scans(path: Path, as_json: bool, merge_series: bool) -> None:
    found = find_scans(path, merge_series=merge_series)
    numbers = series_numbers(found)
    scans = [one.info for one in found]
    cards = [read_model_settings(file).card for file in shipped_models().values()]
    if as_json:
        fitting = [fitting_models(scan.modality, cards) if scan.segmentable else [] for scan in scans]
        rows = zip(numbers, scans, fitting, strict=True)
        print_json([{"number": number, **asdict(scan), "models": models} for number, scan, models in rows])
        return
    print_scans(path, scans, numbers)
    for modality in sorted({scan.modality or "" for scan in scans if scan.segmentable}):
        names = ", ".join(fitting_models(modality or None, cards)) or "none of those that ship"
        echo(f"models for {modality or 'scans of unknown modality'}: {names}")


def series_numbers(found: Sequence[FoundScan]) -> list[int | None]:
    """What ``--series`` calls each: scans are counted from 1, pictures where there are no scans, nothing else."""
    counted = "scan" if any(one.role == "scan" for one in found) else "picture"
    numbers = count(1)
    return [next(numbers) if one.role == counted else None for one in found]
