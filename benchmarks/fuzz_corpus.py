"""Small sound files of every kind that is read, for ``fuzz.py`` to damage."""

from __future__ import annotations

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import gdcm
import nibabel as nib
import numpy as np
import SimpleITK as sitk
from ct_slice import ROOT, ct_slice
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.fileset import FileSet

from medmaskrcnn.hub.model_file import shipped_models
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import save_case
from medmaskrcnn.structures.volume import Volume

SHAPE = (4, 40, 36)


def write_corpus(folder: Path) -> dict[str, list[Path]]:
    """Sound files by kind: ``scan``, ``labels``, ``model``, and ``series`` (the first slice's neighbours)."""
    pixels = np.random.default_rng(0).integers(0, 3000, SHAPE).astype(np.uint16)
    series = [_save(ct_slice(i, plane), folder / "series" / f"{i}.dcm") for i, plane in enumerate(pixels)]
    scans = [*_dicoms(folder, pixels), *_others(folder, pixels), _archive(folder, series), _disc(folder, pixels)]
    return {
        "series": series,
        "scan": scans,
        "labels": _labels(folder),
        "result": [_result(folder)],
        "manifest": [_manifest(folder)],
        "model": [_shrunk_name(folder, next(iter(shipped_models().values())))],
    }


def _save(one: Dataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    one.save_as(path, enforce_file_format=True)
    return path


def _dicoms(folder: Path, pixels: np.ndarray) -> list[Path]:
    """One slice in every transfer syntax, an enhanced object and one with nested private sequences."""
    made = []
    native = {"explicit": uid.ExplicitVRLittleEndian, "implicit": uid.ImplicitVRLittleEndian}
    native["deflated"] = uid.DeflatedExplicitVRLittleEndian
    for name, syntax in native.items():
        one = ct_slice(0, pixels[0])
        one.file_meta.TransferSyntaxUID = syntax
        made.append(_save(one, folder / f"{name}.dcm"))
    for syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        one = ct_slice(0, pixels[0])
        one.compress(syntax, generate_instance_uid=False)
        made.append(_save(one, folder / f"{uid.UID(syntax).keyword}.dcm"))
    made.append(_jpeg_lossless(made[0], folder / "jpeg_lossless.dcm"))
    made.append(_save(_enhanced(pixels), folder / "enhanced.dcm"))
    return made


def _jpeg_lossless(source: Path, target: Path) -> Path:
    """pydicom has no encoder for it; gdcm has."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    writer.Write()
    return target


def _item(**values: object) -> list[Dataset]:
    one = Dataset()
    for keyword, value in values.items():
        setattr(one, keyword, value)
    return [one]


def _enhanced(pixels: np.ndarray) -> Dataset:
    one = ct_slice(0, pixels[0])
    one.SOPClassUID, one.NumberOfFrames, one.PixelData = uid.EnhancedCTImageStorage, len(pixels), pixels.tobytes()
    _add_frames(one, len(pixels), {"FrameContentSequence": {"TemporalPositionIndex": 1}})
    del one.ImagePositionPatient, one.ImageOrientationPatient, one.PixelSpacing
    return one


def _others(folder: Path, pixels: np.ndarray) -> list[Path]:
    """NIfTI (single, compressed, pair), NRRD, MetaImage and pictures."""
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 0], [0, 0, 0, 1.0]])
    names = ["a.nii", "b.nii.gz", "c.nrrd", "d.mha", "packed.nrrd", "packed.mha", "e.png", "f.tif", "g.jpg"]
    paths = [folder / name for name in names]
    nib.save(nib.Nifti1Image(pixels.T.astype(np.int16), affine), paths[0])
    nib.save(nib.Nifti2Image(pixels.T.astype(np.float32), affine), paths[1])
    image = sitk.GetImageFromArray(pixels.astype(np.int16))
    for path in paths[2:6]:
        sitk.WriteImage(image, str(path), useCompression=path.name.startswith("packed"))
    Image.fromarray(pixels[0]).save(paths[6])
    stack = [Image.fromarray(p) for p in pixels]
    stack[0].save(paths[7], save_all=True, append_images=stack[1:], compression="tiff_deflate")
    Image.fromarray((pixels[0] // 12).astype(np.uint8)).save(paths[8])
    return paths


def _archive(folder: Path, series: list[Path]) -> Path:
    path = folder / "series.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in series:
            archive.write(one, f"study/{one.name}")
    return path


def _disc(folder: Path, pixels: np.ndarray) -> Path:
    """A DICOMDIR with the files that it lists."""
    disc = FileSet()
    for i, plane in enumerate(pixels):
        one = ct_slice(i, plane)
        one.StudyDate, one.StudyTime, one.StudyID, one.SeriesNumber = "20260101", "101010", "1", 1
        disc.add(one)
    disc.write(folder / "disc")
    return folder / "disc" / "DICOMDIR"


def _labels(folder: Path) -> list[Path]:
    """RTSTRUCT and SEG (BINARY, FRACTIONAL, LABELMAP plain and RLE) on the series' grid, and label maps."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 10:30, 8:20] = 1
    paths = [_save(_rtstruct(), folder / "rtstruct.dcm")]
    for kind in ("BINARY", "FRACTIONAL", "LABELMAP"):
        paths.append(_save(_seg(mask, kind), folder / f"seg_{kind.lower()}.dcm"))
    packed = _seg(mask, "LABELMAP")
    packed.compress(uid.RLELossless, generate_instance_uid=False)
    paths.append(_save(packed, folder / "seg_rle.dcm"))
    affine = np.array([[-0.5, 0, 0, 10], [0, -0.8, 0, 20], [0, 0, 2.5, 0], [0, 0, 0, 1.0]])
    raw = nib.Nifti1Image(mask.T, affine).to_bytes()
    (folder / "labels.nii").write_bytes(raw)
    (folder / "labels.nii.gz").write_bytes(gzip.compress(raw))
    return [*paths, folder / "labels.nii", folder / "labels.nii.gz", _coco(folder)]


def _coco(folder: Path) -> Path:
    """A square in each of the slices of the series."""
    images = [{"id": i, "file_name": f"{i}.dcm", "height": SHAPE[1], "width": SHAPE[2]} for i in range(SHAPE[0])]
    polygon = [[8, 10, 20, 10, 20, 30, 8, 30]]
    annotations = [
        {"id": i, "image_id": i, "category_id": 1, "segmentation": polygon, "bbox": [8, 10, 12, 20], "iscrowd": 0}
        for i in range(SHAPE[0])
    ]
    path = folder / "coco.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}]}))
    return path


def _result(folder: Path) -> Path:
    grid = Grid(SHAPE, np.diag([2.5, 0.8, 0.5, 1.0]))
    mask = np.zeros(SHAPE, np.bool_)
    mask[1:3, 10:30, 8:20] = True
    found = Instances.from_masks(grid, ("liver",), [0], [Mask((0, 0, 0), mask).tight()], scores=[0.9])
    volume = Volume(np.zeros((1, *SHAPE), np.int16), grid)
    record = RunRecord("medmaskrcnn", "m", "ab" * 32, "CC0-1.0", "cpu", "fp32", {"score": 0.5})
    save_case(CaseResult(found, 0.5, measure_instances(volume, found), record), folder / "instances.npz")
    return folder / "instances.npz"


def _manifest(folder: Path) -> Path:
    """Two cases with labels, beside their files."""
    home = folder / "labelled"
    home.mkdir()
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 10:30, 8:20] = 1
    cases = []
    for name in ("a", "b"):
        nib.save(nib.Nifti1Image(mask.T.astype(np.int16) * 100, np.eye(4)), home / f"{name}.nii")
        nib.save(nib.Nifti1Image(mask.T, np.eye(4)), home / f"{name}_labels.nii")
        instances = [{"value": 1, "class": "liver"}]
        cases.append(
            {"id": name, "patient": name, "image": f"{name}.nii", "label": f"{name}_labels.nii", "instances": instances}
        )
    path = home / "manifest.json"
    path.write_text(json.dumps({"version": 1, "name": "two", "class_names": ["liver"], "cases": cases}))
    return path


def _rtstruct() -> Dataset:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID, one.Modality = uid.RTStructureSetStorage, f"{ROOT}9", "RTSTRUCT"
    one.StructureSetROISequence, one.ROIContourSequence = [], []
    for number in (1, 2):
        one.StructureSetROISequence += _item(
            ROINumber=number, ROIName=f"roi {number}", ReferencedFrameOfReferenceUID=f"{ROOT}4"
        )
        drawn = _item(ReferencedROINumber=number)[0]
        angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        drawn.ContourSequence = []
        for z in (2.5, 5.0):
            points = np.column_stack([-2 + 4 * np.cos(angle), -6 + 5 * np.sin(angle), np.full(24, z)])
            drawn.ContourSequence += _item(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=24,
                ContourData=[f"{v:.5g}" for v in points.ravel()],
            )
        one.ROIContourSequence.append(drawn)
    return one


def _seg(mask: np.ndarray, kind: str) -> Dataset:
    one = ct_slice(0, mask[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope"):
        delattr(one, keyword)
    one.SOPClassUID, one.Modality, one.SegmentationType = uid.SegmentationStorage, "SEG", kind
    if kind == "LABELMAP":
        one.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    one.NumberOfFrames, bits = len(mask), 1 if kind == "BINARY" else 8
    one.BitsAllocated, one.BitsStored, one.HighBit = bits, bits, bits - 1
    stored = np.packbits(mask.ravel(), bitorder="little") if bits == 1 else mask * (255 if kind == "FRACTIONAL" else 1)
    one.PixelData, one.MaximumFractionalValue = stored.tobytes(), 255
    one["PixelData"].VR = "OB"
    one.SegmentSequence = _item(SegmentNumber=1, SegmentLabel="lesion", SegmentAlgorithmType="AUTOMATIC")
    segment = {} if kind == "LABELMAP" else {"SegmentIdentificationSequence": {"ReferencedSegmentNumber": 1}}
    _add_frames(one, len(mask), segment, SpacingBetweenSlices=2.5)
    return one


def _add_frames(one: Dataset, count: int, of_each: dict[str, dict[str, object]], **measures: float) -> None:
    """The functional groups of a stack of frames; ``of_each`` holds the further sequences of every frame."""
    shared = Dataset()
    shared.PixelMeasuresSequence = _item(PixelSpacing=[0.8, 0.5], SliceThickness=2.5, **measures)
    shared.PlaneOrientationSequence = _item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    one.SharedFunctionalGroupsSequence = [shared]
    one.PerFrameFunctionalGroupsSequence = []
    for i in range(count):
        frame = Dataset()
        frame.PlanePositionSequence = _item(ImagePositionPatient=[-10.0, -20.0, 2.5 * i])
        for keyword, values in of_each.items():
            setattr(frame, keyword, _item(**values))
        one.PerFrameFunctionalGroupsSequence.append(frame)


def _shrunk_name(folder: Path, model: Path) -> Path:
    target = folder / "model.safetensors"
    shutil.copy(model, target)
    return target
