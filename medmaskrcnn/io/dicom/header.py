"""The header of one DICOM file: all that grouping, sorting and describing need, without decoding pixels.

Nothing that identifies a patient is read. The declared length of the pixel data is compared with the bytes in the file,
so that a truncated file is detected before it is decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import FileDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom import nuclear, scale_2d
from medmaskrcnn.io.dicom.deflated import check_deflated
from medmaskrcnn.io.dicom.fragments import find_fragments, is_encapsulated
from medmaskrcnn.io.dicom.numbers import number
from medmaskrcnn.io.dicom.quick_header import HEAD_BYTES, quick_attributes, wanted_tags
from medmaskrcnn.io.dicom.sop_classes import non_image_kind, sop_class_name
from medmaskrcnn.io.guard import convert_read_errors

DIMENSION_KEYWORDS = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "DiffusionBValue",
    "DiffusionDirectionality",
    "DiffusionGradientOrientation",
    "TriggerTime",
    "NominalCardiacTriggerDelayTime",
    "NominalPercentageOfCardiacPhase",
    "InversionTime",
    "FlipAngle",
    "AcquisitionNumber",
    "TemporalPositionTimeOffset",
    "AcquisitionTime",
    "ContentTime",
    "ConvolutionKernel",
    "KVP",
    "ComplexImageComponent",
    "FrameType",
    "ImageType",
)
"""Attributes that distinguish slices at the same position (times, echoes, b-values), the most specific first."""

_TEXT_TAGS = {
    "SOPClassUID": "sop_class_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "SeriesInstanceUID": "series_uid",
    "StudyInstanceUID": "study_uid",
    "FrameOfReferenceUID": "frame_of_reference_uid",
    "Modality": "modality",
    "SeriesDescription": "description",
    "Manufacturer": "manufacturer",
    "PhotometricInterpretation": "photometric",
    "TransferSyntaxUID": "transfer_syntax",
}
_HEADER_TAGS = (
    *_TEXT_TAGS,
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "InstanceNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "WindowCenter",
    "WindowWidth",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
    "StackID",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    *scale_2d.KEYWORDS,
    *nuclear.KEYWORDS,
    *DIMENSION_KEYWORDS,
    "SpecificCharacterSet",
)
_GRID_TAGS = {0x0019100A: "siemens", 0x00651050: "uih"}
"""Private tags: number of images tiled into one mosaic, and the beginning of the manufacturer's name."""
_WANTED = {**wanted_tags(_HEADER_TAGS), **{tag: (maker, "US") for tag, maker in _GRID_TAGS.items()}}
_ALL_TAGS = [*(int(tag_for_keyword(keyword) or 0) for keyword in _HEADER_TAGS), *_GRID_TAGS]
_MAX_FRAMES = 1_000_000


@dataclass(frozen=True, eq=False)
class DicomHeader:
    """The header of one SOP instance, that is, of one DICOM file; missing text is "".

    Attributes:
        non_image: A key of :data:`~medmaskrcnn.io.dicom.sop_classes.NOT_IMAGES`, or ``None`` for an image.
        is_mosaic: True for a mosaic or grid (Siemens, United Imaging): the slices of a volume, tiled into one image.
        is_truncated: True if the file ends before its pixel data does.
        pixel_data_offset: Byte offset of the value of Pixel Data in the file, if known.
        native_dtype: Type of the stored pixels, ``"<i2"``, if they are uncompressed and grey, so that they can be
            read from the file without a decoder; else ``None``.
        matrix: Rows and columns of the whole picture of which the frames are tiles (whole-slide image), Total Pixel
            Matrix Rows and Columns (0048,0007), (0048,0006); else ``None``.
        mosaic_side: Number of slices along each side of a mosaic whose slices are the frames; else 0.
        is_encapsulated: True if the pixel data consists of fragments, whatever the transfer syntax says.
        bits_stored: Number of a pixel's lower bits that are used: Bits Stored (0028,0101).
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_uid: str
    study_uid: str
    frame_of_reference_uid: str
    modality: str
    description: str
    manufacturer: str
    photometric: str
    transfer_syntax: str
    image_type: tuple[str, ...]
    non_image: str | None
    is_mosaic: bool
    is_truncated: bool
    rows: int
    columns: int
    samples: int
    n_frames: int
    instance_number: int | None
    pixel_data_offset: int | None
    native_dtype: str | None
    bits_stored: int
    is_encapsulated: bool = False
    matrix: tuple[int, int] | None = None
    mosaic_side: int = 0


def read_header(path: Path) -> DicomHeader:
    """Read the header of a DICOM file, with or without the 128-byte preamble.

    Raises:
        ReadError: if it is not DICOM, or its header is cut short.
    """
    return read_attributes(path)[0]


def read_attributes(path: Path) -> tuple[DicomHeader, dict[str, Any]]:
    """As :func:`read_header`, with the attributes by keyword from which the frames are made."""
    with convert_read_errors(path, "DICOM"), path.open("rb") as stream:
        attributes, offset = quick_attributes(stream.read(HEAD_BYTES), _WANTED) or _parsed_by_pydicom(path, stream)
        header = make_header(path, attributes, pixel_data_offset=offset)
        if header.non_image is None:
            header = _with_pixel_data(header, attributes, stream)
        return header, attributes


def make_header(path: Path, attributes: Mapping[str, Any], *, pixel_data_offset: int | None = None) -> DicomHeader:
    """Make the header of a file from its attributes by keyword.

    Raises:
        ReadError: if it is an image without rows and columns, or with an impossible number of frames.
    """
    text: dict[str, Any] = {field: _text(attributes.get(keyword)) for keyword, field in _TEXT_TAGS.items()}
    text["sop_class_uid"] = text["sop_class_uid"] or _text(attributes.get("MediaStorageSOPClassUID"))
    non_image = non_image_kind(text["sop_class_uid"], text["modality"])
    rows, columns = _whole(attributes, "Rows"), _whole(attributes, "Columns")
    if non_image is None and not (rows and columns):
        non_image = _kind_without_pixels(path, text["sop_class_uid"])
    n_frames = _whole(attributes, "NumberOfFrames") or 1
    if non_image is None and n_frames > _MAX_FRAMES:
        raise ReadError(f"{path}: the header claims {n_frames} frames; the file is damaged")
    image_type = tuple(str(v) for v in _many(attributes.get("ImageType")))
    return DicomHeader(
        path=path,
        **text,
        image_type=image_type,
        non_image=non_image,
        is_mosaic="MOSAIC" in image_type or _tiles(attributes, text["manufacturer"]) > 1,
        is_truncated=False,
        rows=rows,
        columns=columns,
        samples=_whole(attributes, "SamplesPerPixel") or 1,
        n_frames=n_frames,
        instance_number=_instance_number(attributes),
        pixel_data_offset=pixel_data_offset,
        native_dtype=None if non_image or pixel_data_offset is None else _native_dtype(attributes),
        bits_stored=_whole(attributes, "BitsStored"),
        matrix=_matrix(attributes, rows, columns),
    )


def _instance_number(attributes: Mapping[str, Any]) -> int | None:
    """Instance Number (0020,0013); ``None`` if it is none: it only orders slices that nothing else distinguishes."""
    try:
        return None if attributes.get("InstanceNumber") is None else _whole(attributes, "InstanceNumber")
    except ValueError:
        return None


def _matrix(attributes: Mapping[str, Any], rows: int, columns: int) -> tuple[int, int] | None:
    height, width = _whole(attributes, "TotalPixelMatrixRows"), _whole(attributes, "TotalPixelMatrixColumns")
    return (height, width) if height and width and (height, width) != (rows, columns) else None


def _parsed_by_pydicom(path: Path, stream: BinaryIO) -> tuple[dict[str, Any], int | None]:
    """The same as :func:`~medmaskrcnn.io.dicom.quick_header.quick_attributes`, for files that it cannot parse."""
    # Files without preamble have no "DICM" mark; io.formats has recognised them by their first element.
    check_deflated(path)
    stream.seek(0)
    dataset = dcmread(stream, stop_before_pixels=True, specific_tags=_ALL_TAGS, force=True)
    attributes = attributes_of(dataset)
    syntax = attributes["TransferSyntaxUID"]
    if syntax == DeflatedExplicitVRLittleEndian:
        return attributes, None  # parsed from an inflated copy, whose offsets are not those of the file
    return attributes, stream.tell() + (8 if syntax == ImplicitVRLittleEndian else 12)


def attributes_of(dataset: FileDataset) -> dict[str, Any]:
    """The attributes, by keyword, that headers and frames need, from a dataset read by pydicom."""
    values = {keyword: value for keyword in _HEADER_TAGS if (value := _value_of(dataset, keyword)) is not None}
    values |= {maker: dataset[tag].value for tag, maker in _GRID_TAGS.items() if tag in dataset}
    values["MediaStorageSOPClassUID"] = _text(dataset.file_meta.get("MediaStorageSOPClassUID"))
    syntax = _text(dataset.file_meta.get("TransferSyntaxUID"))
    if not syntax:
        implicit, little = dataset.original_encoding
        syntax = "" if not little else ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return values | {"TransferSyntaxUID": syntax}


def _tiles(attributes: Mapping[str, Any], manufacturer: str) -> int:
    """Number of slices in a mosaic; 0 if it is none. Other manufacturers use the same private tags differently."""
    counts = [attributes.get(maker) for maker in _GRID_TAGS.values() if manufacturer.lower().startswith(maker)]
    try:
        return max((int(float(str(count))) for count in counts if count is not None), default=0)
    except ValueError:
        return 0  # another meaning, or not decoded


def _value_of(dataset: FileDataset, keyword: str) -> Any:
    """The value of an attribute; its text where that is none of the attribute's value representation."""
    try:
        return _stripped(dataset.get(keyword))
    except (ValueError, TypeError, OverflowError):
        raw = dataset.get_item(keyword).value
        return raw.decode("latin-1") if isinstance(raw, bytes) else raw


def _stripped(value: Any) -> Any:
    """The texts of a list without their padding spaces (PS3.5, 6.2); pydicom strips only single texts."""
    if isinstance(value, MultiValue) and all(isinstance(part, str) for part in value):
        return [part.strip() for part in value]
    return value


def _native_dtype(attributes: Mapping[str, Any]) -> str | None:
    """Type of pixels that can be read without a decoder; ``None`` if they need one."""
    bits, used = _whole(attributes, "BitsAllocated"), _whole(attributes, "BitsStored")
    native = (
        attributes.get("TransferSyntaxUID") in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        and (_whole(attributes, "SamplesPerPixel") or 1) == 1
        and attributes.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and bits in (8, 16, 32)
        and 0 < used <= bits
        and _whole(attributes, "HighBit") == used - 1
        and attributes.get("ModalityLUTSequence") is None
    )
    if not native:
        return None
    return f"<{'i' if _whole(attributes, 'PixelRepresentation') else 'u'}{bits // 8}"


def _kind_without_pixels(path: Path, sop_class_uid: str) -> str:
    """Kind of an object without rows and columns: a truncated image, or no image at all."""
    name = sop_class_name(sop_class_uid)
    if sop_class_uid and "Image" not in name:
        return "OTHER"
    raise ReadError(f"{path}: {name} without rows and columns; it is damaged or cut short. Copy or export it again")


def _with_pixel_data(header: DicomHeader, attributes: Mapping[str, Any], stream: BinaryIO) -> DicomHeader:
    """Note how the pixel data is stored, and whether the file ends before it does."""
    start = header.pixel_data_offset
    if start is None:
        return header  # deflated; decoding detects it
    end = stream.seek(0, 2)
    # In YBR_FULL_422 two pixels share two chroma samples.
    samples = 2 if header.photometric == "YBR_FULL_422" else header.samples
    n_samples = header.rows * header.columns * header.n_frames * samples
    needed = (n_samples * _whole(attributes, "BitsAllocated") + 7) // 8
    stream.seek(start - 4)
    length = int.from_bytes(stream.read(4), "little")
    if is_encapsulated(stream, start, length, header.transfer_syntax, needed):
        fragments = find_fragments(stream, start, length)
        is_video = any(word in UID(header.transfer_syntax).name for word in ("MPEG", "HEVC"))
        too_few = len(fragments.places) < header.n_frames and not is_video  # a frame has one fragment at least
        is_truncated = not fragments.is_complete or too_few
        return replace(header, is_encapsulated=True, native_dtype=None, is_truncated=is_truncated)
    return replace(header, is_truncated=end - start < needed)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).strip() if not isinstance(value, list) else "\\".join(str(v) for v in value)


def _whole(attributes: Mapping[str, Any], keyword: str) -> int:
    value = number(attributes.get(keyword))
    if value is not None and not value.is_integer():
        raise ValueError(f"{keyword} must be a whole number, got {value}")
    return 0 if value is None else int(value)


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)
