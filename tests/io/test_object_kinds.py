"""Images are told from what only refers to images."""

from __future__ import annotations

import pytest
from pydicom import uid

from medmaskrcnn.io.dicom.sop_classes import NOT_IMAGES, non_image_kind, sop_class_name

IMAGES = [
    uid.CTImageStorage,
    uid.EnhancedCTImageStorage,
    uid.MRImageStorage,
    uid.EnhancedMRImageStorage,
    uid.PositronEmissionTomographyImageStorage,
    uid.SecondaryCaptureImageStorage,
    uid.UltrasoundMultiFrameImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.BreastTomosynthesisImageStorage,
    uid.RTImageStorage,
    uid.XRayAngiographicImageStorage,
    uid.ParametricMapStorage,
    uid.VLWholeSlideMicroscopyImageStorage,
]


@pytest.mark.parametrize("sop_class", IMAGES, ids=lambda u: u.keyword)
def test_images(sop_class):
    assert non_image_kind(sop_class, "CT") is None


@pytest.mark.parametrize(
    ("sop_class", "kind"),
    [
        (uid.RTStructureSetStorage, "RTSTRUCT"),
        (uid.SegmentationStorage, "SEG"),
        (uid.SurfaceSegmentationStorage, "SEG"),
        (uid.BasicTextSRStorage, "SR"),
        (uid.KeyObjectSelectionDocumentStorage, "KO"),
        (uid.EncapsulatedSTLStorage, "M3D"),
        (uid.EncapsulatedPDFStorage, "DOC"),
        (uid.RTIonPlanStorage, "RTPLAN"),
        (uid.MediaStorageDirectoryStorage, "DICOMDIR"),
    ],
)
def test_others(sop_class, kind):
    assert non_image_kind(sop_class, "OT") == kind
    assert kind in NOT_IMAGES


def test_modality_speaks_where_the_class_is_missing():
    assert non_image_kind("", "RTSTRUCT") == "RTSTRUCT"
    assert non_image_kind("", "CT") is None
    assert non_image_kind("1.3.12.2.1107.5.9.1", "SR") == "SR"
    assert non_image_kind(uid.CTImageStorage, "SR") is None


def test_names():
    assert sop_class_name(uid.CTImageStorage) == "CT Image Storage"
    assert sop_class_name("1.2.3") == "1.2.3"
    assert sop_class_name("") == "object without SOP Class UID"
