"""Validation during training: the current network, evaluated on the validation cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.evaluation.evaluate import evaluate
from medmaskrcnn.evaluation.metrics.bootstrap import Estimate
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.settings import SegmentOptions
from medmaskrcnn.system.paths import safe_name

_QUICK = MetricSettings(surfaces=False, replicates=0)
PICTURES = 4
"""Number of worst cases that are drawn."""


@dataclass(frozen=True)
class Validation:
    """Scores of the network after ``step`` updates.

    Attributes:
        step: Updates done.
        scores: ``mask_ap10``, ``mask_ap50``, ``mask_ap75``, ``box_ap50`` (COCO's average precision at one IoU) and
            ``dice`` of the objects found, mean over classes; undefined scores are left out.
        per_class: Mask AP at IoU 0.5 by class name.
        pictures: Image files of the worst cases, with prediction and reference.
        cases: Number of cases; with a time budget perhaps not all that there are.
    """

    step: int
    scores: dict[str, float]
    per_class: dict[str, float]
    pictures: tuple[Path, ...] = ()
    cases: int = 0

    @property
    def score(self) -> float | None:
        """The score by which the best model is chosen: mask AP, mean of IoU 0.5 and 0.75."""
        found = [self.scores[name] for name in ("mask_ap50", "mask_ap75") if name in self.scores]
        return sum(found) / len(found) if found else None


def validate(
    loaded: LoadedModel,
    manifest: Manifest,
    cases: Sequence[ManifestCase],
    *,
    step: int,
    folder: Path,
    pictures: int = PICTURES,
) -> Validation:
    """Segment and score cases.

    Args:
        loaded: The network, in evaluation mode.
        manifest: The manifest.
        cases: The validation cases.
        step: Updates done.
        folder: Existing folder for pictures of the worst cases.
        pictures: Number of worst cases that are drawn.

    Raises:
        MedMaskRCNNError: if none of the cases could be evaluated.
    """
    found = evaluate(
        loaded,
        manifest,
        cases=[case.id for case in cases],
        settings=_QUICK,
        pictures=pictures,
        options=SegmentOptions(allow_out_of_domain=True),
    )
    drawn = []
    for name, picture in found.pictures.items():
        drawn.append(folder / f"{step:06d}_{safe_name(name)}.png")
        picture.save(drawn[-1])
    table = found.overall
    scores = {f"mask_{name}": table.mask[name] for name in ("ap10", "ap50", "ap75")}
    scores |= {"box_ap50": table.box["ap50"], "dice": table.outline["dice"]}
    per_class = {name: figures.mask["ap50"] for name, figures in found.classes.items()}
    return Validation(step, _defined(scores), _defined(per_class), tuple(drawn), len(cases))


def _defined(estimates: dict[str, Estimate]) -> dict[str, float]:
    return {name: one.value for name, one in estimates.items() if one.value is not None}
