"""What the plugin asks of the library, as messages to the process that does it; no napari, no Qt, no torch here."""

from __future__ import annotations

from dataclasses import dataclass

from medmaskrcnn.errors import Remedy
from medmaskrcnn.settings.segment_options import AS_THE_MODEL_SAYS, SegmentOptions
from medmaskrcnn.structures.volume import Volume


@dataclass(frozen=True, eq=False)
class SegmentJob:
    """Find, outline and measure: the arguments of :func:`medmaskrcnn.segment`. Answered with a ``CaseResult``.

    Attributes:
        volume: The scan; ``None`` on its way to a process that has it already.
        model: Name of a shipped model, or a model file.
        options: Where and how.
    """

    volume: Volume | None
    model: str
    options: SegmentOptions = AS_THE_MODEL_SAYS


@dataclass(frozen=True, eq=False)
class OutlineJob:
    """Outline the object in a box: the arguments of :func:`medmaskrcnn.inference.segment_box.segment_box`.

    Answered with ``Instances`` of one. Attributes as of :class:`SegmentJob`; ``box_vox`` holds minima D, H, W, then
    maxima in voxel coordinates.
    """

    volume: Volume | None
    model: str
    box_vox: tuple[float, ...]
    class_name: str
    options: SegmentOptions = AS_THE_MODEL_SAYS


Job = SegmentJob | OutlineJob


@dataclass(frozen=True)
class Ready:
    """The first message of a process: what it can compute on."""

    devices: tuple[str, ...]


@dataclass(frozen=True)
class JobProgress:
    """How far a job is: a stage and the share of it that is done, 0..1."""

    stage: str
    share: float


@dataclass(frozen=True)
class Failed:
    """A job that came to nothing.

    Attributes:
        message: What to tell the user.
        details: The traceback, ``""`` where the message says all there is to say.
        remedy: What the user may ask for to get on.
    """

    message: str
    details: str = ""
    remedy: Remedy | None = None


@dataclass(frozen=True, eq=False)
class Done:
    """A job's answer."""

    answer: object
