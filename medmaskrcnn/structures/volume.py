"""A scan as it was stored, with its position in the patient and its provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from medmaskrcnn.structures.grid import FloatArray, Grid

ChannelKind = Literal["scalar", "colour", "unknown"]

PHANTOM_GENERATOR = "medmaskrcnn phantom"
"""DICOM Manufacturer (0008,0070) and NIfTI ``descrip`` of our synthetic scans."""


@dataclass(frozen=True)
class ReadingPolicy:
    """What reading did to a scan, in machine-readable form; ``Provenance.notes`` has the same as sentences.

    Attributes:
        order: ``"as stored"``, or ``"by position"``: slices were sorted along their normal.
        step_from: Source of the distance between slices: ``"positions"`` of the slices, the ``"header"``
            of a single one, the ``"file"`` (formats that state it), or ``"unknown"``.
        values: ``"stored"``, ``"rescaled"`` (slope and intercept of each slice) or ``"SUV body weight"``.
        tilt_deg: Gantry tilt that the affine keeps as shear; 0 if there is none.
        resampled: True if irregular slices were interpolated to even spacing at the user's request.
        separated_by: What distinguishes this volume from others of its series, ``"EchoTime 4.6"``; "" if it is alone.
        slices_left_out: Number of copies, strays and slices at the same position that were not used.
        low_is_bright: True for MONOCHROME1: values are as stored, a viewer has to invert them.
    """

    order: Literal["as stored", "by position"] = "as stored"
    step_from: Literal["positions", "header", "file", "unknown"] = "file"
    values: Literal["stored", "rescaled", "SUV body weight"] = "stored"
    tilt_deg: float = 0.0
    resampled: bool = False
    separated_by: str = ""
    slices_left_out: int = 0
    low_is_bright: bool = False


@dataclass(frozen=True)
class ChannelSource:
    """Origin of one channel of a volume that was stacked of several sequences.

    Attributes:
        name: Name of the sequence.
        files: Paths read.
        series_uid: Series Instance UID, DICOM only.
        resampled: Whether it was interpolated to the grid of the first.
    """

    name: str
    files: tuple[str, ...] = ()
    series_uid: str | None = None
    resampled: bool = False


@dataclass(frozen=True)
class Provenance:
    """Origin of a scan and what was done while reading it.

    Attributes:
        format: ``"DICOM"``, ``"NIfTI"``, ``"NRRD"``, ``"MetaImage"``, ``"PNG"``, ``"TIFF"`` or ``"memory"``.
        files: Paths read, in slice order. They are written to no export but ``run.json``.
        study_uid: Study Instance UID (0020,000D), DICOM only.
        series_uid: Series Instance UID (0020,000E), DICOM only.
        frame_of_reference_uid: Frame of Reference UID (0020,0052), DICOM only.
        sop_instance_uids: SOP Instance UIDs (0008,0018) in slice order, DICOM only.
        generator: Program that made a synthetic scan, e.g. :data:`PHANTOM_GENERATOR`; ``None`` for real scans.
        notes: What the reader noticed or changed, one sentence each, for display to the user.
        policy: The same in machine-readable form.
        channels: Where each channel comes from, if several sequences were stacked; the other attributes are those of
            the first.
    """

    format: str = "memory"
    files: tuple[str, ...] = ()
    study_uid: str | None = None
    series_uid: str | None = None
    frame_of_reference_uid: str | None = None
    sop_instance_uids: tuple[str, ...] = ()
    generator: str | None = None
    notes: tuple[str, ...] = ()
    policy: ReadingPolicy = ReadingPolicy()
    channels: tuple[ChannelSource, ...] = ()


@dataclass(frozen=True)
class Film:
    """Properties of a film, whose first axis is time, that its grid cannot hold.

    Attributes:
        pixel_mm: Size of a pixel (row, column) in mm; ``None`` if unknown.
    """

    pixel_mm: tuple[float, float] | None = None


@dataclass(frozen=True, eq=False)
class Volume:
    """A 2D image or 3D scan, voxels exactly as stored.

    Attributes:
        array: ``(C, D, H, W)``, slowest axis first, never reordered or resampled on reading. Real-world values
            (HU for CT); an integer type where slope and intercept are whole numbers. 2D has ``D == 1``.
        grid: Shape and affine of the D, H, W axes.
        modality: DICOM Modality (0008,0060) such as ``"CT"`` or ``"MR"``; ``None`` if the file does not give it.
        channel_kind: ``"scalar"`` for one channel, ``"colour"`` for RGB, ``"unknown"`` for a fourth axis whose
            meaning (time, echoes, b-values) the file does not give.
        window: (centre, width) in the array's units, from the header, or ``None``.
        provenance: See :class:`Provenance`.
        film: Set if slices of several times were stacked, so that the first axis is time.
        channel_names: Names of the channels, if they are known: of the sequences that were stacked.
    """

    array: NDArray[Any]
    grid: Grid
    modality: str | None = None
    channel_kind: ChannelKind = "scalar"
    window: tuple[float, float] | None = None
    provenance: Provenance = field(default_factory=Provenance)
    film: Film | None = None
    channel_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.channel_names and len(self.channel_names) != self.array.shape[0]:
            raise ValueError(f"{self.array.shape[0]} channels need as many names, got {self.channel_names}")
        if self.array.ndim != 4 or self.array.shape[1:] != self.grid.shape:
            raise ValueError(f"array must be (C, D, H, W) on grid {self.grid.shape}, got {self.array.shape}")
        if not (np.issubdtype(self.array.dtype, np.integer) or np.issubdtype(self.array.dtype, np.floating)):
            raise ValueError(f"array must hold real numbers, got dtype {self.array.dtype}")

    @property
    def affine_vox_to_ras(self) -> FloatArray:
        """``(4, 4)``: voxel index D, H, W to R, A, S in mm."""
        return self.grid.affine_vox_to_ras

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Distance between voxel centres along D, H, W in mm, or ``None`` where unknown."""
        return self.grid.spacing_mm

    @property
    def is_planar(self) -> bool:
        """True for a single image (one slice)."""
        return self.grid.shape[0] == 1
