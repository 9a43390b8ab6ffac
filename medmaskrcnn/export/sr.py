"""DICOM Structured Report of the measurements (TID 1500), each referring to its segment in the SEG.

Volume, long and short axis and intensity per instance, with UCUM units and the coded terms of the instance; tracking
identifier and tracking UID are those of the segment. The report is UNVERIFIED and preliminary: nobody has read it.
Sizes are left out where the scan's spacing is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    MeasurementReport,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from highdicom.sr import (
    Measurement as SRMeasurement,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, SegmentationStorage

from medmaskrcnn.export.codes import MORPHOLOGY, Coding, Term
from medmaskrcnn.export.dicom_object import (
    MANUFACTURER,
    SERIES_NUMBERS,
    AlgorithmType,
    SegmentDescriptor,
    character_set,
    equipment_attributes,
    printable,
    segment_descriptors,
    serial_number,
    series_description,
    set_fixed_timestamps,
    uids_of,
)
from medmaskrcnn.export.dicom_seg import Encoding, coded, is_label_map, seg_kind
from medmaskrcnn.export.source_series import SourceSeries
from medmaskrcnn.export.uids import uid_of
from medmaskrcnn.structures.case_result import CaseResult, Measurement, RunRecord

LABEL_MAP_SEGMENTATION_STORAGE = UID("1.2.840.10008.5.1.4.1.1.66.7")  # newer than pydicom 3.0's list
VOLUME = Term("118565006", "Volume")
LONG_AXIS = Term("103339001", "Long axis")
SHORT_AXIS = Term("103340004", "Short axis")
_MEAN, _LOW, _HIGH = Term("373098007", "Mean"), Term("255605001", "Minimum"), Term("56851009", "Maximum")
_INTENSITY = {
    "CT": (Term("112031", "Attenuation Coefficient", "DCM"), Term("[hnsf'U]", "Hounsfield unit", "UCUM")),
    "MR": (Term("110852", "MR signal intensity", "DCM"), Term("1", "no units", "UCUM")),
}
_OTHER_INTENSITY = (Term("INTENSITY", "Image intensity", "99MEDMASKRCNN"), Term("1", "no units", "UCUM"))
_NONE = Measurement("mm", 0.0, None, None, None, None, None, None)
"""What is measured on a class of which nothing was found: no volume."""

_MM, _MM3 = Term("mm", "millimeter", "UCUM"), Term("mm3", "cubic millimeter", "UCUM")


def make_sr(
    result: CaseResult, source: SourceSeries, *, encoding: Encoding = "binary", algorithm: AlgorithmType = "AUTOMATIC"
) -> Comprehensive3DSR:
    """The result's measurements as a Structured Report; the same result gives the same bytes.

    Args:
        result: The result.
        source: Headers of the scan that it belongs to.
        encoding: That of the SEG it refers to, see :func:`medmaskrcnn.export.dicom_seg.make_seg`.
        algorithm: ``"SEMIAUTOMATIC"`` once a person has corrected the result.
    """
    uids = uids_of(result, source, algorithm)
    label_map = is_label_map(result.instances, encoding)
    seg = _evidence_of_seg(source, uids.series(seg_kind(label_map)), uids.instance(seg_kind(label_map)), label_map)
    named = segment_descriptors(result, uids)
    modality = str(source.first.get("Modality") or "")
    measured = [_NONE if item.index is None else result.measurements[result.kept[item.index]] for item in named]
    groups = [
        _group(number, item, _measurements(m, modality), seg, source, result.record)
        for number, (item, m) in enumerate(zip(named, measured, strict=True), start=1)
    ]
    report = MeasurementReport(
        observation_context=_observer(result),
        procedure_reported=codes.SCT.ImagingProcedure,
        imaging_measurements=groups,
    )
    sr = Comprehensive3DSR(
        evidence=[seg, *source.headers],
        content=report,
        series_instance_uid=uids.series(f"SR of {seg_kind(label_map)}"),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=uids.instance(f"SR of {seg_kind(label_map)}"),
        instance_number=1,
        series_description=series_description(result, "measurements"),
        is_complete=True,
        is_final=False,
        is_verified=False,
        specific_character_set=character_set(source, [item.label for item in named]),
        **equipment_attributes(result, source),
    )
    set_fixed_timestamps(sr, source)
    return sr


def _evidence_of_seg(source: SourceSeries, series_uid: str, sop_instance_uid: str, label_map: bool) -> Dataset:
    """A stand-in for the SEG with what the report needs: its UIDs, and the patient and study of the scan."""
    seg = Dataset()
    seg.update(source.first)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality"):
        seg.pop(
            keyword, None
        )  # the elements themselves are shared: setting their values would change the scan's header
    seg.SOPClassUID = LABEL_MAP_SEGMENTATION_STORAGE if label_map else SegmentationStorage
    seg.SOPInstanceUID, seg.SeriesInstanceUID, seg.Modality = sop_instance_uid, series_uid, "SEG"
    return seg


def _observer(result: CaseResult) -> ObservationContext:
    """Observer context: the images were analysed by a device, not by a person (TID 1002)."""
    record = result.record
    device = DeviceObserverIdentifyingAttributes(
        uid=uid_of(record.software, record.model_name, record.model_sha256),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=printable(record.model_name) or MANUFACTURER,
        serial_number=serial_number(result),
    )
    return ObservationContext(
        observer_device_context=ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    )


def _group(
    number: int,
    item: SegmentDescriptor,
    measurements: Sequence[SRMeasurement],
    seg: Dataset,
    source: SourceSeries,
    record: RunRecord,
) -> VolumetricROIMeasurementsAndQualitativeEvaluations:
    """Everything measured on one segment (TID 1411)."""
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=item.tracking_uid, identifier=item.label),
        referenced_segment=ReferencedSegment(
            sop_class_uid=seg.SOPClassUID,
            sop_instance_uid=seg.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(source.series_uid),
        ),
        finding_category=coded(item.coding.category),
        finding_type=coded(item.coding.type),
        finding_sites=_sites(item.coding),
        algorithm_id=AlgorithmIdentification(
            name=printable(record.model_name) or MANUFACTURER, version=record.software, parameters=None
        ),
        measurements=measurements,
    )


def _sites(coding: Coding) -> list[FindingSite] | None:
    """Finding sites: the region of a tumour, or a paired organ itself with its laterality."""
    if coding.category == MORPHOLOGY:
        place, side = coding.region, coding.region_modifier
    else:
        place, side = (coding.type, coding.modifier) if coding.modifier else (None, None)
    if place is None:
        return None
    return [FindingSite(coded(place), laterality=coded(side) if side else None)]


def _measurements(m: Measurement, modality: str) -> Sequence[SRMeasurement]:
    name, unit = _INTENSITY.get(modality, _OTHER_INTENSITY)
    intensities = ((m.mean_intensity, _MEAN), (m.min_intensity, _LOW), (m.max_intensity, _HIGH))
    found = []
    if m.unit == "mm":
        sizes = (
            (VOLUME, m.volume_unit3, _MM3),
            (LONG_AXIS, m.longest_axial_diameter, _MM),
            (SHORT_AXIS, m.perpendicular_diameter, _MM),
        )
        found = [SRMeasurement(coded(what), value, coded(of)) for what, value, of in sizes if value is not None]
    return found + [
        SRMeasurement(coded(name), value, coded(unit), derivation=coded(how))
        for value, how in intensities
        if value is not None
    ]
