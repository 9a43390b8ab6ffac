"""Requests of the plugin to the engine process, and its answers; without napari, Qt or torch."""

from __future__ import annotations

from dataclasses import dataclass

from medmaskrcnn.errors import Remedy
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume


@dataclass(frozen=True, eq=False)
class SegmentJob:
    """Segment and measure: the arguments of :func:`medmaskrcnn.segment`. Answered with a ``CaseResult``.

    Attributes:
        volume: The scan; ``None`` in a message to a process that has it already.
        model: Name of a shipped model, or a model file.
        options: How the scan is segmented.
    """

    volume: Volume | None
    model: str
    options: SegmentOptions = AS_THE_MODEL_SAYS


@dataclass(frozen=True, eq=False)
class OutlineJob:
    """Segment the object in a box: the arguments of :func:`medmaskrcnn.inference.segment_box.segment_box`.

    Answered with ``Instances`` holding one. Attributes as in :class:`SegmentJob`; ``box_vox`` holds minima D, H, W,
    then maxima in voxel coordinates.
    """

    volume: Volume | None
    model: str
    box_vox: tuple[float, ...]
    class_name: str
    options: SegmentOptions = AS_THE_MODEL_SAYS


Job = SegmentJob | OutlineJob


@dataclass(frozen=True)
class Ready:
    """The first message of a process: the devices it can compute on."""

    devices: tuple[str, ...]


@dataclass(frozen=True)
class JobProgress:
    """Progress of a job: a stage and the completed share of it, 0..1."""

    stage: str
    share: float


@dataclass(frozen=True)
class Failed:
    """A failed job.

    Attributes:
        message: The message to the user.
        details: The traceback, ``""`` where the message suffices.
        remedy: What the user can do about it.
    """

    message: str
    details: str = ""
    remedy: Remedy | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """The answer to a job."""

    answer: object
