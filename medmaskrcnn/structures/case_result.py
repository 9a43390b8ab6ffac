"""The end of the walk: instances of one scan, their measurements, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medmaskrcnn.structures.instances import Instances


@dataclass(frozen=True)
class Measurement:
    """Size, place and intensity of one instance.

    Lengths are mm, volumes mm3 and areas in world coordinates where the scan's spacing is known; otherwise they
    are pixels (``unit == "px"``), never an invented millimetre. Intensities are in the scan's own units
    (HU for CT). A value that cannot be computed (a mask without voxels) is ``None``.
    """

    unit: str
    volume: float
    longest_axial_diameter: float | None
    perpendicular_diameter: float | None
    centroid: tuple[float, float, float] | None
    mean_intensity: float | None
    min_intensity: float | None
    max_intensity: float | None


@dataclass(frozen=True)
class RunRecord:
    """What made a result; everything here is the same when the same work is done again.

    Attributes:
        software: Name and version, ``"medmaskrcnn 0.1.0"``.
        model_name: Name of the model.
        model_sha256: Hash of the model file.
        model_licence: Licence of the model's weights.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"`` or ``"bf16"``.
        settings: Everything else that decides the result, JSON-able (score threshold, classes, tile, ...).
        source: What the result says of its scan, JSON-able: format, modality, UIDs, notes. No paths, no patient.
        warnings: Sentences for the user, e.g. that an MR model was given a CT.
        out_of_domain: True if the model was run on a scan it refuses by default; every export is stamped so.
    """

    software: str
    model_name: str
    model_sha256: str
    model_licence: str
    device: str
    precision: str
    settings: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    out_of_domain: bool = False


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Instances of one scan with measurements and provenance.

    Attributes:
        candidates: Every instance the model reported, those below the threshold too, by falling score.
        score_threshold: Candidates with a score at or above it are the result.
        measurements: One per candidate, in the same order.
        record: See :class:`RunRecord`.
        run: What varies from run to run: times in seconds, host, paths. Goes into ``run.json`` alone.
    """

    candidates: Instances
    score_threshold: float
    measurements: tuple[Measurement, ...]
    record: RunRecord
    run: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.measurements) != len(self.candidates):
            raise ValueError(
                f"{len(self.candidates)} instances need as many measurements, got {len(self.measurements)}"
            )

    @property
    def kept(self) -> list[int]:
        """Indices into ``candidates`` of the result's instances, ordered by class, then falling score.

        The position in this list plus one is the instance's ``id``: its value in the label map. Candidates
        without a voxel are left out.
        """
        found = [
            i
            for i in range(len(self.candidates))
            if self.candidates.scores[i] >= np.float32(self.score_threshold) and self.candidates.masks[i].size
        ]
        return sorted(found, key=lambda i: (int(self.candidates.labels[i]), -float(self.candidates.scores[i]), i))

    @property
    def instances(self) -> Instances:
        """The result's instances, in the order of their ids 1..n."""
        return self.candidates.select(self.kept)
