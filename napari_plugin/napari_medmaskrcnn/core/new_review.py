"""Results to begin a review with: of a scan alone, or of labels that another program or the user made."""

from __future__ import annotations

from collections.abc import Sequence

from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.instances import Instances, empty_instances
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.version import __version__

THRESHOLD = 0.5


def labels_as_result(labels: Instances, volume: Volume, *, name: str = "labels") -> CaseResult:
    """Labels of unknown origin as a result, measured on their scan; every score is 1."""
    record = RunRecord(
        software=f"medmaskrcnn {__version__}",
        model_name=name,
        model_sha256="",
        model_licence="",
        device="",
        precision="",
        source={"format": volume.provenance.format, "modality": volume.modality,
                "series_uid": volume.provenance.series_uid},
    )  # fmt: skip
    return CaseResult(labels, THRESHOLD, measure_instances(volume, labels), record)


def empty_result(volume: Volume, class_names: Sequence[str]) -> CaseResult:
    """A result without any instance, to which a person adds what there is.

    Args:
        volume: The scan.
        class_names: The classes that are offered; more can be added.
    """
    return labels_as_result(empty_instances(volume.grid, tuple(class_names)), volume, name="manual")
