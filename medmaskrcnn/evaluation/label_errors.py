"""Hard cases and suspected label errors of a data set: what a trained model and the labels disagree about.

    each case -> segmented, by the fold that has not learnt from it -> suspects -> ranked over all cases
              -> its figures -> the worst cases

Written as tables and as a page with pictures: what a reader looks through to mend labels.
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, ManifestCase, read_manifest
from medmaskrcnn.evaluation.evaluate import (
    ALL_SPLITS,
    CasePair,
    Evaluation,
    FailedCase,
    choose_cases,
    evaluate_each,
    evaluate_results,
    segmented_pair,
)
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.evaluation.pictures import ROLES
from medmaskrcnn.evaluation.suspects import Suspect, ranked, suspects_of
from medmaskrcnn.hub.loaded_model import LoadedModel, load_as_asked
from medmaskrcnn.models.averaged import AveragedRCNN
from medmaskrcnn.models.mask_rcnn import MaskRCNN
from medmaskrcnn.report.html_page import html_page
from medmaskrcnn.report.html_report import STYLE, embedded
from medmaskrcnn.report.preview_panel import draw_panel, grey_range, panel_size
from medmaskrcnn.report.preview_planes import PreviewPlane
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.structures.class_names import match_class_names, nothing_shared
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.planes import axial_axis, plane_view
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.system.tables import TableWriter

SUSPECTS, HARD_CASES, PAGE = "suspects.csv", "hard_cases.csv", "suspects.html"

KINDS: Mapping[str, str] = {
    "missing": "something is predicted where no label is",
    "extra": "a label where nothing is predicted",
    "class": "another class is predicted",
    "outline": "label and prediction overlap little",
    "merged": "one label, several predictions",
    "split": "several labels, one prediction",
}
"""What each kind of suspect means."""

_LONGEST = 360  # longest side of a picture, pixels
_AROUND = 1.5  # of the object's longest side, shown on each side of it
_LEAST_AROUND = 12  # voxels
_QUICK = MetricSettings(surfaces=False, replicates=0)
_COLUMNS = ("rank", "case", "kind", "class", "predicted", "score", "iou", "loss", "suspicion", "d", "h", "w")

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class LabelErrors:
    """Suspected label errors and hard cases.

    Attributes:
        suspects: The most suspicious first.
        pictures: Pictures of the first of them, in their order.
        evaluation: Figures and pictures of the cases; ``evaluation.worst_first`` are the hard ones.
        failed: Cases that could not be used.
    """

    suspects: tuple[Suspect, ...]
    pictures: tuple[Image.Image, ...]
    evaluation: Evaluation
    failed: tuple[FailedCase, ...]

    def suspects_csv(self) -> str:
        """A row for each suspect; ``d``, ``h``, ``w`` is the voxel in the middle of it."""
        rows = [
            [rank, s.case, s.kind, s.class_name, s.predicted, *(f"{v:.4f}" for v in _figures(s)), *s.centre_vox]
            for rank, s in enumerate(self.suspects, start=1)
        ]
        return _table(_COLUMNS, rows)

    def hard_cases_csv(self) -> str:
        """A row for each case, the worst first: errors are missed and false objects, weighted by outlines."""
        count = {case.id: 0 for case in self.evaluation.cases}
        for suspect in self.suspects:
            count[suspect.case] += 1
        rows = [
            [rank, case.id, f"{case.error:.4f}", count[case.id]]
            for rank, case in enumerate(self.evaluation.worst_first, start=1)
        ]
        return _table(("rank", "case", "error", "suspects"), rows)

    def write(self, folder: Path) -> None:
        """Write both tables and the page.

        Raises:
            OutputError: if they cannot be written.
        """
        make_folder(folder)
        texts = {SUSPECTS: self.suspects_csv(), HARD_CASES: self.hard_cases_csv(), PAGE: self._page()}
        for name, text in texts.items():
            write_bytes(folder / name, text.encode())

    def _page(self) -> str:
        shown = list(zip(self.suspects, self.pictures, strict=False))
        cards = "".join(_card(rank, one, picture) for rank, (one, picture) in enumerate(shown, start=1))
        hard = "".join(
            f'<figure><img src="{embedded(self.evaluation.pictures[case.id])}" alt="{escape(case.id)}">'
            f"<figcaption>{escape(case.id)}</figcaption></figure>"
            for case in self.evaluation.worst_first
            if case.id in self.evaluation.pictures
        )
        body = f"""<h1>Suspected label errors and hard cases</h1>
<p class="lead">{len(self.suspects)} suspects in {len(self.evaluation.cases)} cases; the first {len(shown)} are shown.
Outlined: {ROLES[0]} and {ROLES[1]}. A suspect is a place to look at: the model may be wrong as well.</p>
<div class="cards">{cards}</div>
<h2>The worst cases</h2>
<div class="cards">{hard}</div>"""
        return html_page("Suspected label errors", body, style=STYLE + _STYLE)


_STYLE = """.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem }
.cards figure { margin: 0 } .cards img { width: 100% } figcaption { font-size: .85em; color: var(--faint) }"""


def find_label_errors(
    model: str | os.PathLike[str] | LoadedModel,
    manifest: str | os.PathLike[str] | Manifest,
    *,
    split: str = ALL_SPLITS,
    pictures: int = 40,
    options: SegmentOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> LabelErrors:
    """Compare a model's predictions with the labels that it should have learnt.

    Args:
        model: Name of a shipped model, a model file, or a loaded model. With the networks of all folds in it, a case
            that has a fold is segmented by the network that has not learnt from it.
        manifest: Labelled cases.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"all"``.
        pictures: Number of suspects, and of hard cases, to draw.
        options: How to run the model.
        progress: Called with the number of cases done and their total.

    Raises:
        ReadError, ModelFileError: if the manifest or the model cannot be read.
        MedMaskRCNNError: if not a single case could be used.
        InvalidOptionError: if model and manifest share no class.

    Example:
        >>> found = medmaskrcnn.find_label_errors("run/best.safetensors", "manifest.json")  # doctest: +SKIP
        >>> found.write(Path("suspects"))  # doctest: +SKIP
    """
    labelled = manifest if isinstance(manifest, Manifest) else read_manifest(manifest)
    chosen = choose_cases(labelled, split, None)
    asked = options or SegmentOptions(allow_out_of_domain=True)
    loaded = load_as_asked(model, asked)
    by_fold = _by_fold(loaded, labelled)
    match = match_class_names(
        loaded.settings.model.class_names, labelled.class_names, aliases=loaded.settings.card.aliases
    )
    if not match.names:
        raise nothing_shared(match, "the model", "the manifest")
    suspects: list[Suspect] = []
    count = 0

    def looked_at(case: ManifestCase) -> CasePair:
        nonlocal count
        used = loaded if case.fold is None else by_fold.get(case.fold, loaded)
        pair = segmented_pair(used, labelled, case, match, asked)
        suspects.extend(suspects_of(pair))
        count += len(pair.reference)
        return pair

    metrics_of = partial(
        evaluate_results,
        class_names=match.names,
        score=loaded.settings.inference.score,
        settings=_QUICK,
        pictures=min(pictures, len(chosen)),
    )
    evaluation = evaluate_each(chosen, looked_at, metrics_of, progress=progress)
    order = tuple(ranked(suspects, count))
    return LabelErrors(order, _pictures(order[:pictures], labelled, chosen), evaluation, evaluation.failed)


def _by_fold(loaded: LoadedModel, manifest: Manifest) -> dict[int, LoadedModel]:
    """For each fold the network that was validated on it; empty if the model does not hold one for each fold."""
    folds = sorted({case.fold for case in manifest.cases if case.fold is not None and case.split != "test"})
    network = loaded.network
    if not isinstance(network, AveragedRCNN) or len(network.members) != len(folds) or len(folds) < 2:
        return {}
    members = [one for one in network.members if isinstance(one, MaskRCNN)]
    return {fold: replace(loaded, network=one) for fold, one in zip(folds, members, strict=True)}


def _pictures(suspects: tuple[Suspect, ...], manifest: Manifest, cases: list[ManifestCase]) -> tuple[Image.Image, ...]:
    """A picture of each suspect; scans are read again, one at a time."""
    by_id = {case.id: case for case in cases}
    drawn: dict[int, Image.Image] = {}
    for name in dict.fromkeys(one.case for one in suspects):
        volume = read_case(manifest, by_id[name]).volume
        greys = grey_range(volume)
        for number, one in enumerate(suspects):
            if one.case == name:
                drawn[number] = _picture(volume, one, greys)
    return tuple(drawn[number] for number in range(len(suspects)))


def _picture(volume: Volume, suspect: Suspect, greys: tuple[float, float]) -> Image.Image:
    """The slice through the middle of a suspect, around it."""
    grid, pairs = volume.grid, enumerate((suspect.label, suspect.prediction))
    shown = [(role, mask) for role, mask in pairs if not mask.is_empty]
    both = Instances.from_masks(grid, ROLES, [role for role, _ in shown], [mask for _, mask in shown])
    view = plane_view(grid, axial_axis(grid))
    whole = shown[0][1].union(*(mask for _, mask in shown[1:]))
    areas = whole.array.sum(axis=tuple(a for a in range(3) if a != view.axis))
    around = max(_LEAST_AROUND, round(_AROUND * max(whole.array.shape[a] for a in (view.row_axis, view.column_axis))))

    def span(axis: int, *, flipped: bool) -> tuple[int, int]:
        n = grid.shape[axis]
        low, high = max(0, whole.start[axis] - around), min(n, whole.end[axis] + around)
        return (n - high, n - low) if flipped else (low, high)

    rows = span(view.row_axis, flipped=view.flip_rows)
    columns = span(view.column_axis, flipped=view.flip_columns)
    plane = PreviewPlane(view, whole.start[view.axis] + int(np.argmax(areas)), rows, columns)
    return draw_panel(volume, both, plane, panel_size(grid, plane, _LONGEST), greys, texts=[""] * len(both))


def _card(rank: int, suspect: Suspect, picture: Image.Image) -> str:
    said = f"{rank}. {suspect.case}: {suspect.kind}, {suspect.class_name}"
    if suspect.predicted not in ("", suspect.class_name):
        said += f" (predicted: {suspect.predicted})"
    text = f"{said}; {KINDS[suspect.kind]}; suspicion {suspect.suspicion:.2f}"
    return (
        f'<figure><img src="{embedded(picture)}" alt="{escape(said)}"><figcaption>{escape(text)}</figcaption></figure>'
    )


def _figures(suspect: Suspect) -> tuple[float, float, float, float]:
    return suspect.score, suspect.iou, suspect.loss, suspect.suspicion


def _table(columns: tuple[str, ...], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO()
    TableWriter(text).writerows([columns, *rows])
    return text.getvalue()
