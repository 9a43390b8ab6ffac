"""One DICOM file's header: all that grouping, sorting and describing need, without a decoded pixel.

Nothing that identifies a patient is read. Whether the file is complete is found out too: the pixel data's
announced length is compared with the bytes that are there, so a cut file is known before it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.dicom.frames import FRAME_TAGS, Frame, frames_of
from medmaskrcnn.io.dicom.quick_header import HEAD_BYTES, QuickHeader, quick_header, wanted_tags
from medmaskrcnn.io.dicom.sop_classes import SECONDARY_CAPTURE_CLASSES, non_image_kind, sop_class_name
from medmaskrcnn.io.guard import convert_read_errors

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
}
_NUMBER_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "InstanceNumber",
)
_HEADER_TAGS = [*_TEXT_TAGS, *_NUMBER_TAGS, *FRAME_TAGS, "SpecificCharacterSet"]
_GRID_TAGS = {0x0019100A: "siemens", 0x00651050: "uih"}
"""Private: number of images tiled into one picture, and how the maker's name begins."""
_WANTED = {**wanted_tags(_HEADER_TAGS), **{tag: (maker, "US") for tag, maker in _GRID_TAGS.items()}}
_ALL_TAGS = [*(int(tag_for_keyword(keyword) or 0) for keyword in _HEADER_TAGS), *_GRID_TAGS]
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_MAX_FRAMES = 1_000_000


@dataclass(frozen=True)
class StoredPixels:
    """Uncompressed grey pixels inside a file.

    Attributes:
        start: Byte of the file at which the first frame begins.
        dtype: Their type, ``"<i2"``.
        bits: How many of the type's bits count, the lower ones: Bits Stored (0028,0101).
        frame_bytes: Bytes a frame.
    """

    start: int
    dtype: str
    bits: int
    frame_bytes: int


@dataclass(frozen=True, eq=False)
class DicomFile:
    """What one DICOM object is; text is "" where the file says nothing.

    Attributes:
        non_image: A key of :data:`~medmaskrcnn.io.dicom.sop_classes.NOT_IMAGES`, or ``None`` for an image.
        frames: Its frames; empty for what is no image.
        cut_short: True if the file ends before its pixel data does.
        stored: Where its pixels can be read without a decoder; ``None`` where they need one.
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
    image_type: tuple[str, ...]
    n_tiles: int
    rows: int
    columns: int
    samples: int
    instance_number: int | None
    transfer_syntax: str
    non_image: str | None
    frames: tuple[Frame, ...]
    cut_short: bool
    stored: StoredPixels | None

    @property
    def is_mosaic(self) -> bool:
        """True for a mosaic or grid (Siemens, United Imaging): the slices of a volume, tiled into one picture."""
        return "MOSAIC" in self.image_type or self.n_tiles > 1

    @property
    def is_screenshot(self) -> bool:
        """True for a secondary capture without a place in the patient: screenshot, scanned paper, dose page."""
        return self.sop_class_uid in SECONDARY_CAPTURE_CLASSES and all(f.plane is None for f in self.frames)


def read_header(path: Path) -> DicomFile:
    """Read the header of a DICOM file, with or without the 128-byte preamble.

    Raises:
        ReadError: if it is no DICOM, its header is cut short, or it is an image whose geometry is wrong.
    """
    with convert_read_errors(path, "DICOM"), path.open("rb") as stream:
        header = quick_header(stream.read(HEAD_BYTES), _WANTED) or _full_header(stream)
        text = {field: _text(header.get(keyword)) for keyword, field in _TEXT_TAGS.items()}
        if not text["sop_class_uid"]:
            text["sop_class_uid"] = header.media_class
        non_image = non_image_kind(text["sop_class_uid"], text["modality"])
        rows, columns = _whole(header, "Rows"), _whole(header, "Columns")
        if non_image is None and not (rows and columns):
            non_image = _kind_without_pixels(path, text["sop_class_uid"])
        n_frames = _whole(header, "NumberOfFrames") or 1
        if non_image is None and n_frames > _MAX_FRAMES:
            raise ReadError(f"{path}: the header claims {n_frames} frames; the file is damaged")
        return DicomFile(
            path=path,
            **text,
            image_type=tuple(str(v) for v in _many(header.get("ImageType"))),
            n_tiles=_tiles(header, text["manufacturer"]),
            rows=rows,
            columns=columns,
            samples=_whole(header, "SamplesPerPixel") or 1,
            instance_number=_whole(header, "InstanceNumber") if header.get("InstanceNumber") is not None else None,
            transfer_syntax=header.transfer_syntax,
            non_image=non_image,
            frames=() if non_image else tuple(_frames(path, header, n_frames)),
            cut_short=non_image is None and _is_cut_short(header, stream, n_frames),
            stored=None if non_image else _stored_pixels(header, rows, columns),
        )


def _full_header(stream: BinaryIO) -> QuickHeader:
    """The same by pydicom, for files that are not plain."""
    # Files without preamble have no "DICM" mark; io.formats has recognised them by their first element.
    stream.seek(0)
    header = dcmread(stream, stop_before_pixels=True, specific_tags=_ALL_TAGS, force=True)
    syntax = _text(header.file_meta.get("TransferSyntaxUID"))
    if not syntax:
        implicit, little = header.original_encoding
        syntax = "" if not little else ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    # The header of a deflated file came from an inflated copy, whose positions are not the file's.
    at = None if syntax == DeflatedExplicitVRLittleEndian else stream.tell()
    values = {keyword: _stripped(value) for keyword in _HEADER_TAGS if (value := header.get(keyword)) is not None}
    values |= {maker: header[tag].value for tag, maker in _GRID_TAGS.items() if tag in header}
    data_at = (at or 0) + (8 if syntax == ImplicitVRLittleEndian else 12)
    return QuickHeader(values, syntax, _text(header.file_meta.get("MediaStorageSOPClassUID")), at, data_at)


def _tiles(header: QuickHeader, manufacturer: str) -> int:
    """How many slices a mosaic says it holds; 0 where it is none. Other makers use the same tags for other things."""
    counts = [header.get(maker) for maker in _GRID_TAGS.values() if manufacturer.lower().startswith(maker)]
    try:
        return max((int(float(str(count))) for count in counts if count is not None), default=0)
    except ValueError:
        return 0  # of another meaning, or not decoded


def _stripped(value: Any) -> Any:
    """Texts of a list without the spaces that pad them (PS3.5, 6.2); pydicom strips single ones only."""
    if isinstance(value, MultiValue) and all(isinstance(part, str) for part in value):
        return [part.strip() for part in value]
    return value


def _stored_pixels(header: QuickHeader, rows: int, columns: int) -> StoredPixels | None:
    """Where to read pixels without a decoder; ``None`` for whatever needs one."""
    bits, used = _whole(header, "BitsAllocated"), _whole(header, "BitsStored")
    plain = (
        header.transfer_syntax in (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
        and header.pixels_at is not None
        and (_whole(header, "SamplesPerPixel") or 1) == 1
        and header.get("PhotometricInterpretation") in ("MONOCHROME1", "MONOCHROME2")
        and bits in (8, 16, 32)
        and 0 < used <= bits
        and _whole(header, "HighBit") == used - 1
        and header.get("ModalityLUTSequence") is None
    )
    if not plain:
        return None
    kind = "i" if _whole(header, "PixelRepresentation") else "u"
    return StoredPixels(header.data_at, f"<{kind}{bits // 8}", used, rows * columns * bits // 8)


def _kind_without_pixels(path: Path, sop_class_uid: str) -> str:
    """An object without rows and columns: an image that is cut short, or something that never was an image."""
    name = sop_class_name(sop_class_uid)
    if sop_class_uid and "Image" not in name:
        return "OTHER"
    raise ReadError(f"{path}: {name} without rows and columns; it is damaged or cut short. Copy or export it again")


def _frames(path: Path, header: QuickHeader, n_frames: int) -> list[Frame]:
    try:
        return frames_of(header, n_frames)
    except ReadError as error:
        raise ReadError(f"{path}: {error}. Export the scan again") from error


def _is_cut_short(header: QuickHeader, stream: BinaryIO, n_frames: int) -> bool:
    """Whether the file ends before its pixel data."""
    end = stream.seek(0, 2)
    if header.pixels_at is None:
        return False  # deflated; decoding finds out
    stream.seek(header.pixels_at)
    syntax = UID(header.transfer_syntax)
    if syntax.is_transfer_syntax and syntax.is_compressed:
        return not _fragments_complete(stream, end)
    bits = _whole(header, "BitsAllocated")
    samples = _whole(header, "SamplesPerPixel") or 1
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2  # two colour samples are shared by two pixels
    needed = (_whole(header, "Rows") * _whole(header, "Columns") * n_frames * samples * bits + 7) // 8
    return end - header.pixels_at - 8 < needed


def _fragments_complete(stream: BinaryIO, end: int) -> bool:
    """Walk the items of encapsulated pixel data to their end mark (DICOM PS3.5, A.4).

    Some writers leave the end mark out; a file that ends with an item's last byte is taken as whole. If frames are
    missing, decoding finds out.
    """
    stream.seek(12, 1)  # tag, OB, reserved, undefined length
    n_items = 0
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[:4] == _SEQUENCE_END:
            return len(head) == 8 or (not head and n_items > 1)
        n_items += 1
        if head[:4] != _ITEM or stream.seek(int.from_bytes(head[4:], "little"), 1) > end:
            return False


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).strip() if not isinstance(value, list) else "\\".join(str(v) for v in value)


def _whole(header: QuickHeader, keyword: str) -> int:
    value = header.get(keyword)
    return 0 if value is None or value == "" else int(value)


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)
