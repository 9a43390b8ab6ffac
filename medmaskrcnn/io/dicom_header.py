"""One DICOM file's header: all that grouping, sorting and describing need, without a decoded pixel.

Nothing that identifies a patient is read. Whether the file is complete is found out too: the pixel data's
announced length is compared with the bytes that are there, so a cut file is known before it is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from medmaskrcnn.dicom.frames import FRAME_TAGS, Frame, frames_of
from medmaskrcnn.dicom.sop_classes import SECONDARY_CAPTURE_CLASSES, non_image_kind, sop_class_name
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.guard import reading

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
_NUMBER_TAGS = ("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "InstanceNumber")
_HEADER_TAGS = [*_TEXT_TAGS, *_NUMBER_TAGS, *FRAME_TAGS, "SpecificCharacterSet"]
_ITEM = b"\xfe\xff\x00\xe0"
_SEQUENCE_END = b"\xfe\xff\xdd\xe0"
_MAX_FRAMES = 1_000_000


@dataclass(frozen=True, eq=False)
class DicomFile:
    """What one DICOM object is; text is "" where the file says nothing.

    Attributes:
        non_image: A key of :data:`~medmaskrcnn.dicom.sop_classes.NOT_IMAGES`, or ``None`` for an image.
        frames: Its frames; empty for what is no image.
        cut_short: True if the file ends before its pixel data does.
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
    rows: int
    columns: int
    samples: int
    instance_number: int | None
    non_image: str | None
    frames: tuple[Frame, ...]
    cut_short: bool

    @property
    def is_screenshot(self) -> bool:
        """True for a secondary capture without a place in the patient: screenshot, scanned paper, dose page."""
        return self.sop_class_uid in SECONDARY_CAPTURE_CLASSES and all(f.plane is None for f in self.frames)


def read_header(path: Path) -> DicomFile:
    """Read the header of a DICOM file, with or without the 128-byte preamble.

    Raises:
        ReadError: if it is no DICOM, its header is cut short, or it is an image whose geometry is wrong.
    """
    with reading(path, "DICOM"), path.open("rb") as stream:
        # Files without preamble have no "DICM" mark; io.formats has recognised them by their first element.
        header = dcmread(stream, stop_before_pixels=True, specific_tags=_HEADER_TAGS, force=True)
        text = {field: _text(header.get(keyword)) for keyword, field in _TEXT_TAGS.items()}
        if not text["sop_class_uid"]:
            text["sop_class_uid"] = _text(header.file_meta.get("MediaStorageSOPClassUID"))
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
            rows=rows,
            columns=columns,
            samples=_whole(header, "SamplesPerPixel") or 1,
            instance_number=_whole(header, "InstanceNumber") if header.get("InstanceNumber") is not None else None,
            non_image=non_image,
            frames=() if non_image else tuple(_frames(path, header, n_frames)),
            cut_short=non_image is None and _is_cut_short(header, stream, n_frames),
        )


def _kind_without_pixels(path: Path, sop_class_uid: str) -> str:
    """An object without rows and columns: an image that is cut short, or something that never was an image."""
    name = sop_class_name(sop_class_uid)
    if sop_class_uid and "Image" not in name:
        return "OTHER"
    raise ReadError(f"{path}: {name} without rows and columns; it is damaged or cut short. Copy or export it again")


def _frames(path: Path, header: FileDataset, n_frames: int) -> list[Frame]:
    try:
        return frames_of(header, n_frames)
    except ReadError as error:
        raise ReadError(f"{path}: {error}. Export the scan again") from error


def _is_cut_short(header: FileDataset, stream: BinaryIO, n_frames: int) -> bool:
    """Whether the file ends before its pixel data; ``stream`` stands at the pixel data element's tag."""
    syntax = UID(_text(header.file_meta.get("TransferSyntaxUID")))
    start = stream.tell()
    end = stream.seek(0, 2)
    if syntax == DeflatedExplicitVRLittleEndian:
        return False  # the header came from an inflated copy; decoding finds out
    stream.seek(start)
    if syntax.is_transfer_syntax and syntax.is_compressed:
        return not _fragments_complete(stream, end)
    bits = _whole(header, "BitsAllocated")
    samples = _whole(header, "SamplesPerPixel") or 1
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        samples = 2  # two colour samples are shared by two pixels
    needed = (_whole(header, "Rows") * _whole(header, "Columns") * n_frames * samples * bits + 7) // 8
    return end - start - 8 < needed


def _fragments_complete(stream: BinaryIO, end: int) -> bool:
    """Walk the items of encapsulated pixel data to their end mark (DICOM PS3.5, A.4)."""
    stream.seek(12, 1)  # tag, OB, reserved, undefined length
    while True:
        head = stream.read(8)
        if len(head) < 8 or head[:4] == _SEQUENCE_END:
            return len(head) == 8
        if head[:4] != _ITEM or stream.seek(int.from_bytes(head[4:], "little"), 1) > end:
            return False


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).strip() if not isinstance(value, list) else "\\".join(str(v) for v in value)


def _whole(header: FileDataset, keyword: str) -> int:
    value = header.get(keyword)
    return 0 if value is None or value == "" else int(value)


def _many(value: Any) -> list[Any]:
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else list(value)
