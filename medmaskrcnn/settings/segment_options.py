"""Options of a segmentation, shared by all interfaces.

``medmaskrcnn.segment``, the command line, batches, the PACS watch, the trace, napari and MONAI bundles all take these
options; :class:`OutputOptions` are those of writing a result.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.settings.base import Settings, what_is_wrong

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Engine = Literal["auto", "torch", "openvino", "torch-compile"]

PRECISIONS = get_args(Precision)
ENGINES = get_args(Engine)

Region = tuple[tuple[int, int, int], tuple[int, int, int]]
"""Half-open voxel indices of a part of the scan: low D, H, W, then high D, H, W."""

FORMATS = ("nifti", "csv", "json", "png")
"""Formats written by default; ``instances.npz`` and ``run.json`` are always written."""

ALL_FORMATS = (*FORMATS, "seg", "rtstruct", "sr", "coco", "stl", "html")
"""All formats. ``"sr"`` also writes ``"seg"``, whose segments it refers to."""


def _whole_numbers(region: Any) -> Any:
    """A region with numpy integers converted to Python's."""
    return region if region is None else tuple(tuple(map(int, corner)) for corner in region)


def _pairs(channels: Any) -> Any:
    """Names and selections as pairs, whether they come as a dict or as pairs."""
    return tuple(channels.items()) if isinstance(channels, Mapping) else channels


class SegmentOptions(Settings):
    """How a scan is read and segmented.

    Attributes:
        device: Where the network runs; ``auto`` uses a GPU if there is one.
        precision: Numeric precision; ``auto`` is the model's setting, else the rule of
            :mod:`medmaskrcnn.models.runtime.precision`; ``int8`` requires engine ``openvino``.
        engine: What runs the network's layers; ``auto`` is the model's setting, else torch.
        flips: Axes of the network to mirror, ``("W",)``, with the mean of what is found; the model's setting if
            ``None``.
        score: Score threshold 0..1; the model's default if ``None``.
        classes: Names of the classes to report; all by default.
        series: Which series of a folder: its UID, its number in the listing, or ``"largest"``.
        allow_out_of_domain: Segment a scan outside the model's domain; the result is marked so.
        region: Part of the scan to segment, in voxel indices; all of it by default.
        resample_irregular: Resample a DICOM series with irregular slice spacing; the result is marked so.
        suv: Read PET as standardised uptake values by body weight (g/ml).
        channels: Of a model of several sequences: the name of each and which scan of a folder it is, by series UID,
            number of the listing, or a pattern of its description or file name, ``(("T1", "*t1*"), ("FLAIR", "2"))``.
        merge_series: Read slices that are one even stack as one series, although their UIDs differ.
        drop_duplicates: Leave out images of a series that repeat another pixel for pixel.
        track: Read a cine series as one volume over time and link its instances along time.
    """

    device: Device = "auto"
    precision: Precision = "auto"
    engine: Engine = "auto"
    flips: tuple[Literal["D", "H", "W"], ...] | None = None
    score: float | None = None
    classes: tuple[str, ...] | None = None
    series: str | None = None
    allow_out_of_domain: bool = False
    region: Annotated[Region | None, BeforeValidator(_whole_numbers)] = None
    resample_irregular: bool = False
    suv: bool = False
    channels: Annotated[tuple[tuple[str, str], ...], BeforeValidator(_pairs)] = ()
    track: bool = False
    merge_series: bool = False
    drop_duplicates: bool = False

    @field_validator("score")
    @classmethod
    def _is_share(cls, score: float | None) -> float | None:
        if score is not None and not 0 <= score <= 1:
            raise ValueError("must lie in 0..1")
        return score

    def labels_among(self, class_names: Sequence[str]) -> set[int]:
        """Indices of the chosen classes among those of a model.

        Raises:
            InvalidOptionError: if the model does not know one of them.
        """
        unknown = sorted(set(self.classes or ()) - set(class_names))
        if unknown:
            what = f"the model has no class {', '.join(unknown)}; its classes are: {', '.join(class_names)}"
            raise InvalidOptionError("classes", what)
        return {i for i, name in enumerate(class_names) if self.classes is None or name in self.classes}


AS_THE_MODEL_SAYS = SegmentOptions()
"""Default options: the model's own settings."""


class OutputOptions(Settings):
    """Which files of a result are written, and what may identify the patient in them.

    Attributes:
        formats: Any of :data:`ALL_FORMATS`, in addition to ``instances.npz`` and ``run.json``.
        label_map_seg: Write the DICOM SEG as a run-length encoded LABELMAP if no two instances overlap.
        deidentify: Write no patient name, ID or date into DICOM files, hash the UIDs in every file, and omit host
            and paths from ``run.json``.
        paths_in_run: False omits the scan's paths and the host from ``run.json``.
    """

    formats: tuple[str, ...] = Field(default=FORMATS)
    label_map_seg: bool = False
    deidentify: bool = False
    paths_in_run: bool = True

    @field_validator("formats", mode="before")
    @classmethod
    def _are_known(cls, formats: Any) -> tuple[str, ...]:
        names = () if isinstance(formats, str) else tuple(formats)
        if isinstance(formats, str) or not set(names) <= set(ALL_FORMATS):
            raise ValueError(f"must be a list out of {', '.join(ALL_FORMATS)}")
        return names


Options = TypeVar("Options", SegmentOptions, OutputOptions)


def options_from(options: Options | None, kind: type[Options], **keywords: Any) -> Options:
    """The options of a public function that takes either an options object or keywords.

    Args:
        options: The object, if one was given.
        kind: Its class.
        keywords: The function's keywords with their values or defaults.

    Raises:
        InvalidOptionError: if a keyword has an invalid value; it names the option.
        ValueError: if both an object and keywords were given.
    """
    with naming_the_option():
        made = kind(**keywords)
    if options is None:
        return made
    if made != kind():
        given = ", ".join(made.model_dump(exclude_defaults=True))
        raise ValueError(f"give options or single keywords, not both; got options and {given}")
    return options


@contextmanager
def naming_the_option() -> Iterator[None]:
    """Turn pydantic's error about a value into one sentence that names the option."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        context = first.get("ctx", {})
        what = what_is_wrong(first) if "error" in context else f"cannot be used: {first['msg']}"
        if "expected" in context:
            what = f"must be {context['expected']}"
        raise InvalidOptionError(name, f"{name} {what}, got {first['input']!r}") from error
