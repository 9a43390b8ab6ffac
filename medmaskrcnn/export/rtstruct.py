"""DICOM RT Structure Set (PS3.3 A.19): every instance is a region of interest, contoured on its image planes.

Written with pydicom alone. Decimal strings have at most 16 characters, and the file is Implicit VR Little Endian,
because contours of many points exceed the 65,534 bytes that an explicit VR of type DS can hold. Holes are kept as
keyholes (:mod:`medmaskrcnn.export.contours`).

A result without instances becomes one ROI without contours for each class that the model detects.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage

from medmaskrcnn.export.codes import Term
from medmaskrcnn.export.contours import outlines
from medmaskrcnn.export.dicom_object import (
    MANUFACTURER,
    SERIES_NUMBERS,
    AlgorithmType,
    SegmentDescriptor,
    character_set,
    content_date_time,
    content_description,
    printable,
    segment_descriptors,
    serial_number,
    series_description,
    set_fixed_timestamps,
    software_version,
    uids_of,
)
from medmaskrcnn.export.source_series import SourceSeries
from medmaskrcnn.export.uids import ResultUIDs, uid_of
from medmaskrcnn.io.dicom.frames import Frame
from medmaskrcnn.report.colours import class_colours
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.instances import Instances

_DETACHED_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # SOP class by which PS3.3 C.8.8.5 refers to a study
_CONTOUR_DATA = Tag("ContourData")  # (3006,0050)
_SHORT = 16  # characters of VR SH
_DECIMALS = 4  # of a coordinate in mm
_PATIENT_AND_STUDY = (
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate",
    "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
    "PositionReferenceIndicator", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
)  # fmt: skip


def make_rtstruct(result: CaseResult, source: SourceSeries, *, algorithm: AlgorithmType = "AUTOMATIC") -> Dataset:
    """The result's instances as an RTSTRUCT; the same result gives the same bytes.

    Args:
        result: The result; ROI numbers are its ids 1..n.
        source: Headers of the scan that it belongs to.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.
    """
    uids = uids_of(result, source, algorithm)
    dataset = _frame_of_file(uids)
    regions = segment_descriptors(result, uids)
    dataset.SpecificCharacterSet = character_set(source, [item.label for item in regions])
    for keyword in _PATIENT_AND_STUDY:
        if keyword in source.first:
            dataset[keyword] = source.first[keyword]
    _add_series_and_equipment(dataset, result, source, uids)
    _add_structure_set(dataset, result, source)
    dataset.StructureSetROISequence = []
    dataset.ROIContourSequence = []
    dataset.RTROIObservationsSequence = []
    names = result.candidates.class_names
    colours = dict(zip(names, class_colours(names), strict=True))
    for number, item in enumerate(regions, start=1):
        dataset.StructureSetROISequence.append(_region(number, item, source, algorithm))
        dataset.ROIContourSequence.append(_contours(number, item.index, result.instances, source, colours[item.name]))
        dataset.RTROIObservationsSequence.append(_observation(number, item))
    set_fixed_timestamps(dataset, source)
    return dataset


def decimal(value: float) -> str:
    """A coordinate in mm as a decimal string of at most 16 characters (PS3.5 6.2).

    Example:
        >>> decimal(-123.456789), decimal(2.0), decimal(-0.00001)
        ('-123.4568', '2', '0')
    """
    text = f"{value:.{_DECIMALS}f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def _frame_of_file(uids: ResultUIDs) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID = RTStructureSetStorage
    dataset.SOPInstanceUID = uids.instance("RTSTRUCT")
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.file_meta.ImplementationClassUID = UID(uid_of(MANUFACTURER, "implementation"))
    dataset.file_meta.ImplementationVersionName = MANUFACTURER.upper()
    return dataset


def _add_series_and_equipment(dataset: Dataset, result: CaseResult, source: SourceSeries, uids: ResultUIDs) -> None:
    """RT Series (C.8.8.1) and General Equipment (C.7.5.1) modules."""
    dataset.Modality = "RTSTRUCT"
    dataset.SeriesInstanceUID = uids.series("RTSTRUCT")
    dataset.SeriesNumber = SERIES_NUMBERS["RTSTRUCT"]
    dataset.InstanceNumber = 1
    dataset.SeriesDescription = series_description(result, "contours")
    dataset.SeriesDate, dataset.SeriesTime = content_date_time(source)
    dataset.OperatorsName = ""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = printable(result.record.model_name)[:64]
    dataset.SoftwareVersions = software_version(result)
    dataset.DeviceSerialNumber = serial_number(result)


def _add_structure_set(dataset: Dataset, result: CaseResult, source: SourceSeries) -> None:
    """Structure Set (C.8.8.5) and Approval (C.8.8.16) modules: the images that contours were drawn on."""
    dataset.StructureSetLabel = "RESEARCH"
    dataset.StructureSetDescription = content_description(result)
    dataset.StructureSetDate, dataset.StructureSetTime = content_date_time(source)
    dataset.ApprovalStatus = "UNAPPROVED"
    series = Dataset()
    series.SeriesInstanceUID = source.series_uid
    series.ContourImageSequence = [_image(frame) for frame in source.frames]
    study = Dataset()
    study.ReferencedSOPClassUID = _DETACHED_STUDY_MANAGEMENT
    study.ReferencedSOPInstanceUID = source.first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = source.first.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]


def _image(frame: Frame) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = frame.header.sop_class_uid
    item.ReferencedSOPInstanceUID = frame.header.sop_instance_uid
    if frame.header.n_frames > 1:
        item.ReferencedFrameNumber = frame.index + 1
    return item


def _region(number: int, descriptor: SegmentDescriptor, source: SourceSeries, algorithm: AlgorithmType) -> Dataset:
    """One item of the Structure Set module's ROI sequence (C.8.8.5)."""
    item = Dataset()
    item.ROINumber = number
    item.ReferencedFrameOfReferenceUID = source.first.FrameOfReferenceUID
    item.ROIName = descriptor.label
    item.ROIDescription = descriptor.description
    item.ROIGenerationAlgorithm = algorithm
    return item


def _contours(
    number: int, i: int | None, found: Instances, source: SourceSeries, colour: tuple[int, int, int]
) -> Dataset:
    """One item of the ROI Contour module (C.8.8.6); no contours where ``i`` is ``None``."""
    item = Dataset()
    item.ROIDisplayColor = list(colour)
    item.ReferencedROINumber = number
    if i is None:
        return item
    along, rows, columns = found.masks[i].window
    item.ContourSequence = [
        _contour(np.add(polygon, [rows.start, columns.start]), source.frames[along.start + k])
        for k, plane in enumerate(found.masks[i].array)
        for polygon in outlines(plane)
    ]
    for contour_number, contour in enumerate(item.ContourSequence, start=1):
        contour.ContourNumber = contour_number
    return item


def _contour(polygon: NDArray[np.float64], frame: Frame) -> Dataset:
    """A closed polygon ``(P, 2)`` of row and column indices on its image's own plane, in LPS mm."""
    steps = np.stack([frame.column_direction_lps, frame.row_direction_lps]) * np.reshape(frame.spacing_mm, (2, 1))
    points = polygon @ steps + frame.position_lps_mm
    item = Dataset()
    item.ContourImageSequence = [_image(frame)]
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    text = "\\".join(map(decimal, points.ravel().tolist())).encode()
    # As bytes: pydicom would make an object of each of millions of coordinates and check it by a regular expression.
    text += b" " * (len(text) % 2)
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)
    return item


def _observation(number: int, descriptor: SegmentDescriptor) -> Dataset:
    """One item of the RT ROI Observations module (C.8.8.8)."""
    item = Dataset()
    item.ObservationNumber = number
    item.ReferencedROINumber = number
    if len(descriptor.name) <= _SHORT:
        item.ROIObservationLabel = printable(descriptor.name)
    item.RTROIIdentificationCodeSequence = [_code(descriptor.coding.type)]
    if descriptor.coding.modifier is not None:
        modifiers = [_code(descriptor.coding.modifier)]
        item.RTROIIdentificationCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = modifiers
    item.RTROIInterpretedType = ""
    item.ROIInterpreter = ""
    return item


def _code(term: Term) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = term.value, term.scheme, term.meaning
    return item
