"""The result of segmentation: instances of one scan, their measurements, and how they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medmaskrcnn.errors import MissingExtraError
from medmaskrcnn.structures.instances import Instances, Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.renderer import renderer

if TYPE_CHECKING:  # what the methods give; whoever does not call them waits for none of these
    import nibabel as nib
    import pandas as pd
    import SimpleITK as sitk
    from matplotlib.figure import Figure

    from medmaskrcnn.structures.volume import Volume


@dataclass(frozen=True)
class Measurement:
    """Size, position and intensity of one instance.

    Lengths are in :attr:`unit`: mm if the scan's spacing is known, otherwise pixels; spacings are never invented.
    Intensities are in the scan's own units (HU for CT). A value that cannot be computed (a mask without voxels) is
    ``None``. Files keep the names of version 0.1.0: ``volume`` and ``centroid``.

    Attributes:
        unit: ``"mm"`` or ``"px"``.
        volume_unit3: Volume in unit³; :attr:`volume_mm3` is ``None`` if that is not mm³.
        longest_axial_diameter: In the plane in which it is longest.
        perpendicular_diameter: The longest extent perpendicular to it, in the same plane.
        centroid_ras: World coordinates (R, A, S); in pixels for a picture without spacing.
        mean_intensity, min_intensity, max_intensity: Of the voxels whose value is finite.
    """

    unit: str
    volume_unit3: Annotated[float, Field(alias="volume")]
    longest_axial_diameter: float | None
    perpendicular_diameter: float | None
    centroid_ras: Annotated[tuple[float, float, float] | None, Field(alias="centroid")]
    mean_intensity: float | None
    min_intensity: float | None
    max_intensity: float | None

    @property
    def volume_mm3(self) -> float | None:
        """Volume in mm³; ``None`` if the scan's spacing is unknown."""
        return self.volume_unit3 if self.unit == "mm" else None


@dataclass(frozen=True)
class RunRecord:
    """Everything that determines a result; it is identical if the run is repeated.

    Attributes:
        software: Name and version, ``"medmaskrcnn 0.1.0"``.
        model_name: Name of the model.
        model_sha256: Hash of the model file.
        model_licence: Licence of the model's weights.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        precision: ``"fp32"``, ``"bf16"`` or ``"int8"``.
        settings: All other settings of the run, JSON-serialisable (score threshold, classes, tile, ...).
        source: Description of the scan, JSON-serialisable: format, modality, UIDs, notes. No paths, no patient data.
        warnings: Sentences for the user, e.g. that an MR model was given a CT.
        out_of_domain: True if the model was run on a scan that it refuses by default; every export is marked so.
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


@dataclass(frozen=True)
class Review:
    """A user's decisions on the candidates, which take precedence over their scores.

    Attributes:
        accepted: Indices of candidates that are in the result whatever their score, and although they were removed.
        rejected: Indices of candidates that are not in it, whatever their score.
        changed: Indices of candidates whose mask or class the user drew or changed.
        class_thresholds: Score thresholds, by class name, that differ from that of the result.
    """

    accepted: tuple[int, ...] = ()
    rejected: tuple[int, ...] = ()
    changed: tuple[int, ...] = ()
    class_thresholds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CaseInstance:
    """One instance of a result, as iterating over the result gives it.

    Attributes:
        id: Its value in the label map, 1, 2, ...
        class_name: Name of its class.
        score: 0..1.
        box: ``(6,)`` float32, minima D, H, W, then maxima, voxel coordinates.
        mask: Its voxels.
        measurement: Its size, position and intensity.
    """

    id: int
    class_name: str
    score: float
    box: NDArray[np.float32]
    mask: Mask
    measurement: Measurement


@dataclass(frozen=True, eq=False)
class CaseResult:
    """Instances of one scan with measurements and provenance.

    Iterating over it gives each instance of the result as a :class:`CaseInstance`, in the order of their ids. A
    notebook shows it as a picture and a table.

    Attributes:
        candidates: All instances found by the model, by descending score: also those below the threshold, and those
            that were removed, each with the reason (:attr:`Instances.removed`).
        score_threshold: Candidates with a score at or above it that were not removed are the result.
        measurements: One per candidate, in the same order.
        record: See :class:`RunRecord`.
        run: What varies from run to run: times in seconds, host, paths. Written to ``run.json`` only.
        review: A user's decisions on the candidates; ``None`` if they have not been reviewed.
    """

    candidates: Instances
    score_threshold: float
    measurements: tuple[Measurement, ...]
    record: RunRecord
    run: dict[str, Any] = field(default_factory=dict)
    review: Review | None = None

    def __post_init__(self) -> None:
        if len(self.measurements) != len(self.candidates):
            raise ValueError(
                f"{len(self.candidates)} instances need as many measurements, got {len(self.measurements)}"
            )
        if self.review is not None:
            named = {*self.review.accepted, *self.review.rejected, *self.review.changed}
            if not named <= set(range(len(self.candidates))):
                raise ValueError(f"the review names candidates that are not there: {sorted(named)}")

    @property
    def kept(self) -> list[int]:
        """Indices into ``candidates`` of the result's instances, ordered by class, then descending score.

        The position in this list plus one is the instance's ``id``: its value in the label map. Candidates
        without a voxel are left out.
        """
        found = [i for i in range(len(self.candidates)) if self._is_kept(i) and not self.candidates.masks[i].is_empty]
        return sorted(found, key=lambda i: (int(self.candidates.labels[i]), -float(self.candidates.scores[i]), i))

    def _is_kept(self, i: int) -> bool:
        """Whether the candidate is in the result: by the user's decision, else by its score if it was not removed."""
        threshold, score = self.score_threshold, self.candidates.scores[i]
        if self.review is not None:
            if i in self.review.accepted or i in self.review.rejected:
                return i in self.review.accepted
            name = self.candidates.class_names[self.candidates.labels[i]]
            threshold = self.review.class_thresholds.get(name, threshold)
        return bool(self.candidates.removed[i] == Removal.NONE and score >= np.float32(threshold))

    @property
    def instances(self) -> Instances:
        """The result's instances, in the order of their ids 1..n."""
        return self.candidates.select(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    def __bool__(self) -> bool:
        return True  # a result without instances is a result

    def __iter__(self) -> Iterator[CaseInstance]:
        found = self.candidates
        for number, i in enumerate(self.kept, start=1):
            name = found.class_names[found.labels[i]]
            yield CaseInstance(
                number, name, float(found.scores[i]), found.boxes[i], found.masks[i], self.measurements[i]
            )

    def label_map(self) -> NDArray[np.integer]:
        """The instances painted into one array ``(D, H, W)`` on the scan's grid: their ids; 0 is background.

        A voxel of several instances belongs to the smallest of them. uint16, or int32 for more than 65,535 instances.
        """
        from medmaskrcnn.structures.label_maps import label_map  # here: it needs scipy

        return label_map(self.instances)

    def to_nibabel(self) -> nib.Nifti1Image:
        """The label map as a nibabel image (axes x, y, z), as ``labels.nii.gz`` has it."""
        from medmaskrcnn.structures.images import nibabel_image

        return nibabel_image(self.label_map(), self.candidates.grid)

    def to_sitk(self) -> sitk.Image:
        """The label map as a SimpleITK image with the scan's spacing, origin and direction."""
        from medmaskrcnn.structures.images import sitk_image

        return sitk_image(self.label_map(), self.candidates.grid)

    def to_dataframe(self) -> pd.DataFrame:
        """The table of ``instances.csv`` as a pandas DataFrame, one row for each instance.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        from medmaskrcnn.structures.result_table import columns, rows

        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtraError("a table for pandas needs it: pip install 'medmaskrcnn[pandas]'") from error
        return pd.DataFrame(rows(self), columns=list(columns(self.candidates.grid.spacing_known)))

    def plot(self, volume: Volume | None = None) -> Figure:
        """Draw the instances on slices of the scan, as ``preview.png`` shows them, with matplotlib.

        Args:
            volume: The scan; by default it is read again from its files. Where they are gone the instances are drawn
                alone.

        Raises:
            ValueError: if the scan has another grid than the result.
        """
        return renderer().figure(self, volume)

    def _repr_html_(self) -> str:
        return renderer().html(self)
