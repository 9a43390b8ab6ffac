"""Suggest what to label next: look at each unlabelled scan several times, and rank the scans.

scan -> looks (folds, changed images) -> agreement -> uncertainty
-> features of the network       -> variety      -> order
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.hub.loaded_model import LoadedModel, load_as_asked
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.io.discover import FoundScan, find_scans
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import write_bytes
from medmaskrcnn.system.tables import TableWriter
from medmaskrcnn.training.suggest.agreement import SeenObject, agreement
from medmaskrcnn.training.suggest.rank import order
from medmaskrcnn.training.suggest.views import PooledFeatures, looks

_VERSION = 1  # of the JSON file
_UNSURE = 0.5  # uncertainty from which an object is counted as unsure

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suggestion:
    """A scan to label.

    Attributes:
        rank: 1 is the first to label.
        scan: Path of the scan as it was found.
        uncertainty: Sum of the uncertainties of its objects: what a label would teach about it.
        distance: Distance to the nearest scan that is labelled or ranked before it, 0 to 1.
        objects: Objects that at least one look saw.
        unsure: Those of them whose uncertainty is a half or more.
    """

    rank: int
    scan: str
    uncertainty: float
    distance: float
    objects: int
    unsure: int


@dataclass(frozen=True)
class Suggestions:
    """The ranked scans.

    Attributes:
        model: Name of the model.
        looks: Number of looks at each scan.
        cases: The scans, the first to be labelled first.
        failed: Scans that could not be used, with the reason.
    """

    model: str
    looks: int
    cases: tuple[Suggestion, ...]
    failed: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        """As a JSON document: ``version``, ``model``, ``looks``, ``cases`` (a list by rank) and ``failed``."""
        failed = [{"scan": scan, "error": error} for scan, error in self.failed]
        document = {"version": _VERSION, "model": self.model, "looks": self.looks}
        return json.dumps({**document, "cases": [asdict(case) for case in self.cases], "failed": failed}, indent=1)

    def to_csv(self) -> str:
        """As a table with a row for each scan by rank."""
        text = io.StringIO()
        writer = TableWriter(text)
        writer.writerow(Suggestion.__dataclass_fields__)
        writer.writerows([_cell(value) for value in asdict(case).values()] for case in self.cases)
        return text.getvalue()

    def write(self, path: Path) -> None:
        """Write it as JSON or CSV, as the file's name ends.

        Raises:
            OutputError: if it cannot be written.
        """
        text = self.to_json() if path.suffix.lower() == ".json" else self.to_csv()
        write_bytes(path, text.encode())


@dataclass(frozen=True, eq=False)
class _Looked:
    scan: str
    objects: list[SeenObject]
    features: Tensor


def suggest(
    model: str | os.PathLike[str] | LoadedModel,
    unlabelled: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    labelled: Sequence[str | os.PathLike[str]] = (),
    options: SegmentOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Suggestions:
    """Rank unlabelled scans by what labelling them would teach.

    Args:
        model: Name of a shipped model, a model file, or a loaded model. Folds in one file are looks of their own.
        unlabelled: A folder of scans, or scans.
        labelled: Folders or files of scans that are labelled already; scans like them come late.
        options: How to read and to run; ``flips`` adds mirrored looks.
        progress: Called with the number of scans done and their total.

    Returns:
        The ranking; scans that could not be read or segmented are listed in ``failed``.

    Raises:
        ReadError: if there is no scan.
        ModelFileError: if the model cannot be read.
        MedMaskRCNNError: if not a single scan could be used.

    Example:
        >>> found = medmaskrcnn.suggest("run/best.safetensors", "unlabelled/")  # doctest: +SKIP
        >>> found.cases[0].scan  # doctest: +SKIP
        'unlabelled/patient12.nii.gz'
    """
    asked = options or SegmentOptions()
    loaded = load_as_asked(model, asked)
    models = looks(loaded)
    paths = [unlabelled] if isinstance(unlabelled, str | os.PathLike) else list(unlabelled)
    scans, known = _scans(paths), _scans(labelled)
    if not scans:
        raise ReadError(f"there is no scan in {', '.join(map(str, paths)) or 'what was named'}")
    tell = progress or (lambda done, total: None)
    total = len(scans) + len(known)
    failed: list[tuple[str, str]] = []

    def looked_at(found: Sequence[FoundScan], views: Sequence[LoadedModel], before: int) -> list[_Looked]:
        done = []
        for number, scan in enumerate(found):
            tell(before + number, total)
            try:
                done.append(_look(scan.info.path, scan.read(), views, asked))
            except Exception as error:  # any error; the other scans are still ranked
                log.exception("%s could not be used", scan.info.path)
                failed.append((str(scan.info.path), str(error)))
        return done

    cases, others = looked_at(scans, models, 0), looked_at(known, models[:1], len(scans))
    tell(total, total)
    if not cases:
        raise MedMaskRCNNError(f"none of {len(scans)} scans could be used; {failed[0][1]}")
    return Suggestions(loaded.settings.card.name, len(models), _ranked(cases, others), tuple(failed))


def _scans(paths: Sequence[str | os.PathLike[str]]) -> list[FoundScan]:
    """The scans at some paths; pictures where a path holds nothing else."""
    found = []
    for path in paths:
        there = find_scans(Path(path))
        scans = [one for one in there if one.role == "scan"]
        found += scans or [one for one in there if one.role == "picture"]
    return found


def _look(name: str, volume: Volume, models: Sequence[LoadedModel], options: SegmentOptions) -> _Looked:
    features = PooledFeatures()
    first = replace(models[0], watch=features)
    seen = [segment(volume, one, options=options).candidates.without_removed() for one in (first, *models[1:])]
    return _Looked(str(name), agreement(seen), features.of_scan())


def _ranked(cases: Sequence[_Looked], others: Sequence[_Looked]) -> tuple[Suggestion, ...]:
    sums = np.array([sum(item.uncertainty for item in case.objects) for case in cases])
    own = np.stack([case.features.double().numpy() for case in cases])
    known = np.stack([case.features.double().numpy() for case in others]) if others else None
    ranking, distances = order(sums, own, known)
    return tuple(
        Suggestion(
            rank,
            cases[i].scan,
            round(float(sums[i]), 4),
            round(float(distances[i]), 4),
            len(cases[i].objects),
            sum(item.uncertainty >= _UNSURE for item in cases[i].objects),
        )
        for rank, i in enumerate(ranking, start=1)
    )


def _cell(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
