"""Predictions of any tool: one prediction in each format gives one table; folders as tools leave them; mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.metrics import PanopticQualityMetric
from PIL import Image

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance
from medmaskrcnn.errors import InvalidOptionError, MedMaskRCNNError, ReadError
from medmaskrcnn.evaluation.evaluate import Evaluation
from medmaskrcnn.evaluation.files import evaluation_document
from medmaskrcnn.evaluation.metrics.summary import MetricSettings
from medmaskrcnn.evaluation.prediction_files import find_predictions
from medmaskrcnn.evaluation.prediction_reader import PredictionOptions
from medmaskrcnn.evaluation.predictions import evaluate_predictions
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.export.write import write_result
from medmaskrcnn.inference.measure import measure_instances
from medmaskrcnn.io.read import read_volume
from medmaskrcnn.structures.case_result import CaseResult, RunRecord
from medmaskrcnn.structures.instances import Instances
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn_datasets.dicom_series import write_dicom_series
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

QUICK = MetricSettings(replicates=0)
SHAPE = (6, 40, 44)
AFFINE = np.diag([1.5, 1.5, 4, 1])
LIVER, FIRST, SECOND = np.s_[1:5, 5:25, 5:25], np.s_[2:4, 28:34, 30:36], np.s_[1:3, 8:12, 32:38]


def evaluated(predictions: Path, manifest: Manifest, **reading: Any) -> Evaluation:
    return evaluate_predictions(
        predictions, manifest, split="all", reading=PredictionOptions(**reading), settings=QUICK
    )


def write_map(
    path: Path, *parts: tuple[tuple[slice, ...], int], affine: np.ndarray = AFFINE, shape: tuple[int, ...] = SHAPE
) -> Path:
    """A label map of windows and their values, D, H, W."""
    values = np.zeros(shape, np.uint8)
    for window, value in parts:
        values[window] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values.T, affine), path)
    return path


@pytest.fixture
def scans(tmp_path: Path) -> Manifest:
    """Two scans of a liver and two tumours each, as labelled."""
    instances = tuple(
        ManifestInstance(value=v, class_name=n) for v, n in ((1, "liver"), (2, "liver tumour"), (3, "liver tumour"))
    )
    cases = []
    for name in ("case_a", "case_b"):
        write_map(tmp_path / f"{name}.nii.gz", (LIVER, 100))
        write_map(tmp_path / f"{name}_labels.nii.gz", (LIVER, 1), (FIRST, 2), (SECOND, 3))
        files = {"image": f"{name}.nii.gz", "label": f"{name}_labels.nii.gz"}
        cases.append(ManifestCase(id=name, patient=name, instances=instances, **files))
    return Manifest(name="livers", class_names=("liver", "liver tumour"), cases=tuple(cases), folder=str(tmp_path))


@pytest.fixture
def nnunet(tmp_path: Path) -> Path:
    """Maps of classes with nnU-Net's description beside them; the second case's liver and a tumour are off."""
    folder = tmp_path / "nnunet"
    write_map(folder / "case_a.nii.gz", (LIVER, 1), (FIRST, 2), (SECOND, 2))
    write_map(folder / "case_b.nii.gz", (np.s_[1:5, 5:25, 7:27], 1), (FIRST, 2))
    labels = {"background": 0, "Liver": 1, "tumor_liver": 2}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "CT"}}))
    (folder / "plans.json").write_text("{}")
    return folder


def test_maps_of_classes_as_nnunet_leaves_them(scans: Manifest, nnunet: Path) -> None:
    """Classes by its dataset.json, in its spelling; tumours are taken apart since the cases have two each."""
    got = evaluated(nnunet, scans)
    assert got.class_names == ("liver", "liver tumour") and got.missing == ()
    assert got.spelt_otherwise == {"Liver": "liver", "tumor_liver": "liver tumour"}
    assert got.classes["liver tumour"].references == 4 and got.classes["liver tumour"].predictions == 3
    assert got.classes["liver tumour"].mask["recall"].value == pytest.approx(3 / 4)
    assert got.classes["liver"].outline["dice"].value == pytest.approx((1 + 0.9) / 2)
    assert any("each connected part" in note for note in got.notes)
    whole = evaluated(nnunet, scans, rules={"liver tumour": "whole"})
    assert whole.classes["liver tumour"].predictions == 2
    assert evaluated(nnunet, scans, rules={"": "whole"}).classes["liver tumour"].predictions == 2


def stored_as(path: Path, values: np.ndarray, kind: str) -> None:
    """A label picture as programs store it: by numbers, as indices of a palette, or as equal red, green and blue."""
    made = Image.fromarray(values)
    if kind == "palette":
        made = Image.fromarray(values, mode="P")
        made.putpalette([number * 7 % 256 for number in range(768)])
    elif kind != "grey":
        made = made.convert(kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path)


@pytest.mark.parametrize("kind", ["grey", "palette", "RGB", "RGBA"])
def test_pictures_of_labels_however_they_are_stored(tmp_path: Path, kind: str) -> None:
    """Objects of one class, classes of a dataset.json, and a mask for each class."""
    values = np.zeros((40, 44), np.uint8)
    values[3:12, 4:14], values[20:33, 20:40] = 1, 2
    Image.fromarray(values * 90).save(tmp_path / "image.png")
    Image.fromarray(values).save(tmp_path / "label.png")
    named = {n: tuple(ManifestInstance(value=v, class_name=c) for v, c in ((1, "cell"), (2, c2))) for n, c2 in
             (("one", "cell"), ("two", "nucleus"))}  # fmt: skip
    for name, instances in named.items():
        case = ManifestCase(id="image", patient="p", image="image.png", label="label.png", instances=instances)
        classes = tuple(dict.fromkeys(str(i.class_name) for i in instances))
        manifest = Manifest(name=name, class_names=classes, cases=(case,), folder=str(tmp_path))
        stored_as(tmp_path / name / "image.png", values, kind)
        reading = {} if name == "one" else {"classes": {1: "cell", 2: "nucleus"}}
        got = evaluated(tmp_path / name, manifest, **reading)
        assert not got.failed and [row.mask["recall"].value for row in got.classes.values()] == [1.0] * len(classes)
    for value, name in ((1, "cell"), (2, "nucleus")):
        stored_as(tmp_path / "masks/image" / f"{name}.png", (values == value).astype(np.uint8), kind)
    got = evaluated(tmp_path / "masks", manifest)
    assert not got.failed and [row.mask["recall"].value for row in got.classes.values()] == [1.0, 1.0]


def test_a_case_without_prediction_is_told(scans: Manifest, nnunet: Path) -> None:
    (nnunet / "case_b.nii.gz").unlink()
    got = evaluated(nnunet, scans.model_copy(update={"left_out": ("c.dcm labels no scan",)}))
    assert "c.dcm labels no scan" in got.notes
    assert got.missing == ("case_b",) and not got.failed and len(got.cases) == 2
    assert got.classes["liver"].mask["recall"].value == pytest.approx(0.5)
    assert evaluation_document(got)["missing_predictions"] == ["case_b"]
    strict = evaluated(nnunet, scans, missing_is_empty=False)
    assert [one.id for one in strict.failed] == ["case_b"] and len(strict.cases) == 1


def test_a_class_that_no_prediction_knows_is_not_judged(scans: Manifest, tmp_path: Path) -> None:
    """TotalSegmentator's folders: a mask for each class, also of classes that the manifest lacks."""
    for case in ("case_a", "case_b"):
        write_map(tmp_path / "ts" / case / "liver.nii.gz", (LIVER, 1))
        write_map(tmp_path / "ts" / case / "spleen.nii.gz", (FIRST, 1))
        write_map(tmp_path / "ts" / case / "aorta.nii.gz")
    got = evaluated(tmp_path / "ts", scans)
    assert got.class_names == ("liver",) and got.classes["liver"].outline["dice_with_missed"].value == 1.0
    assert set(got.only_predicted) == {"spleen", "aorta"} and got.only_reference == ("liver tumour",)


def test_names_in_the_header_of_a_map(scans: Manifest, tmp_path: Path) -> None:
    """TotalSegmentator's one map of all classes tells them in an extension of the header."""
    entries = "".join(f'<Label Key="{k}" Red="0"><![CDATA[{n}]]></Label>' for k, n in ((5, "liver"), (7, "spleen")))
    for case in ("case_a", "case_b"):
        file = write_map(tmp_path / "ts" / f"{case}.nii.gz", (LIVER, 5), (FIRST, 7))
        image = nib.load(file)
        text = f"<CaretExtension><LabelTable>{entries}</LabelTable></CaretExtension>".encode()
        image.header.extensions.append(nib.nifti1.Nifti1Extension(0, text))
        nib.save(image, file)
    got = evaluated(tmp_path / "ts", scans)
    assert got.classes["liver"].outline["dice"].value == 1.0 and got.only_predicted == ("spleen",)


def test_values_named_by_the_user(scans: Manifest, nnunet: Path) -> None:
    (nnunet / "dataset.json").unlink()
    with pytest.raises(InvalidOptionError, match=r"1=liver") as caught:
        evaluated(nnunet, scans)
    assert caught.value.option == "label"
    got = evaluated(nnunet, scans, classes={1: "liver", 2: "liver tumour"})
    assert got.classes["liver tumour"].predictions == 3


def test_a_tumour_lies_in_its_liver(scans: Manifest, tmp_path: Path) -> None:
    """In a map of classes the tumour's voxels are not the liver's; in the reference they are both's."""
    inner = np.s_[2:4, 10:14, 10:14]
    cases = []
    for case in scans.cases:
        write_map(tmp_path / case.label, (LIVER, 1), (inner, 2))
        instances = (
            ManifestInstance(value=1, class_name="liver"),
            ManifestInstance(value=2, class_name="liver tumour", part_of=1),
        )
        cases.append(case.model_copy(update={"instances": instances}))
        write_map(tmp_path / "maps" / f"{case.id}.nii.gz", (LIVER, 1), (inner, 2))
    manifest = scans.model_copy(update={"cases": tuple(cases)})
    named = {1: "liver", 2: "liver tumour"}
    got = evaluated(tmp_path / "maps", manifest, classes=named)
    assert got.classes["liver"].outline["dice"].value == 1.0 and any("lies in liver" in note for note in got.notes)
    alone = evaluated(tmp_path / "maps", manifest, classes=named, within={})
    assert alone.classes["liver"].outline["dice"].value < 1.0


def test_another_grid_is_told_and_another_place_refused(scans: Manifest, tmp_path: Path) -> None:
    folder = tmp_path / "maps"
    twice = np.diag([3.0, 3.0, 4.0, 1.0])
    twice[:3, 3] = 0.75, 0.75, 0
    write_map(folder / "case_a.nii.gz", (np.s_[1:5, 2:12, 2:12], 1), affine=twice, shape=(6, 20, 22))
    elsewhere = AFFINE.copy()
    elsewhere[:3, 3] = 500
    write_map(folder / "case_b.nii.gz", (LIVER, 1), affine=elsewhere)
    got = evaluated(folder, scans, classes={1: "liver"})
    assert any(note.startswith("case_a") and "grid of its own" in note for note in got.notes)
    assert [one.id for one in got.failed] == ["case_b"] and "lies on the scan" in got.failed[0].error
    assert got.classes["liver"].outline["dice"].value > 0.85


@pytest.fixture
def pictures(tmp_path: Path) -> Manifest:
    """Two pictures of nuclei, as cellpose gets them: images and predictions in one folder."""
    cases = []
    random = np.random.default_rng(0)
    for name in ("img_1", "img_2"):
        (tmp_path / "cp").mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 99, (48, 56)).astype(np.uint8)).save(tmp_path / "cp" / f"{name}.png")
        truth = np.zeros((48, 56), np.uint16)
        for k in range(6):
            truth[8 * k : 8 * k + 6, 10 : 16 + k] = k + 1
        Image.fromarray(truth).save(tmp_path / f"{name}_truth.png")
        instances = tuple(ManifestInstance(value=k + 1, class_name="nucleus") for k in range(6))
        files = {"image": f"cp/{name}.png", "label": f"{name}_truth.png"}
        cases.append(ManifestCase(id=name, patient=name, instances=instances, **files))
        found = np.roll(truth, (0, 1), (0, 1))
        found[found == 2] = 0
        found[:4, 30:36] = 9
        Image.fromarray(found).save(tmp_path / "cp" / f"{name}_cp_masks.png")
        Image.fromarray(found.astype(np.uint8)).save(tmp_path / "cp" / f"{name}_flows.tif")
    return Manifest(name="nuclei", class_names=("nucleus",), cases=tuple(cases), folder=str(tmp_path))


def test_maps_of_instances_as_cellpose_leaves_them(pictures: Manifest, tmp_path: Path) -> None:
    got = evaluated(tmp_path / "cp", pictures)
    table = got.classes["nucleus"]
    assert (table.references, table.predictions) == (12, 12)
    assert table.mask["recall"].value == pytest.approx(10 / 12)
    touching = evaluated(tmp_path / "cp", pictures, rules={"nucleus": "whole"})
    assert touching.classes["nucleus"].predictions == 2


def test_panoptic_quality_is_monais(pictures: Manifest, tmp_path: Path) -> None:
    got = evaluated(tmp_path / "cp", pictures).classes["nucleus"].mask
    metric = PanopticQualityMetric(num_classes=1, metric_name=("pq", "sq", "rq"), reduction="sum_batch")
    for case in pictures.cases:
        both = [tmp_path / "cp" / f"{case.id}_cp_masks.png", tmp_path / str(case.label)]
        pred, true = (torch.from_numpy(np.asarray(Image.open(file)).astype(np.int64)) for file in both)
        metric(*(torch.stack([one, (one > 0).long()])[None] for one in (pred, true)))
    expected = [float(value) for value in metric.aggregate()]
    assert [got[name].value for name in ("pq", "sq", "rq")] == pytest.approx(expected, abs=1e-5)
    assert 0.3 < expected[0] < 0.9


def test_one_coco_file_for_all_pictures(pictures: Manifest, tmp_path: Path) -> None:
    """As a detector's predictions are collected: several images in one file, boxes with scores."""
    images = [{"id": k, "file_name": f"x/{c.id}.png", "height": 48, "width": 56} for k, c in enumerate(pictures.cases)]
    square = [[10, 0, 16, 0, 16, 6, 10, 6]]
    annotations = [
        {"id": k, "image_id": k, "category_id": 3, "segmentation": square, "score": 0.75, "iscrowd": 0} for k in (0, 1)
    ]
    document = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "Nucleus"}]}
    file = tmp_path / "found.json"
    file.write_text(json.dumps(document))
    got = evaluated(file, pictures)
    assert got.classes["nucleus"].mask["recall"].value == pytest.approx(2 / 12)
    assert {one.score for case in got.cases for one in case.objects if one.outcome == "found"} == {0.75}
    (tmp_path / "folder").mkdir()
    file.rename(tmp_path / "folder" / "predictions.json")
    assert evaluated(tmp_path / "folder", pictures).classes["nucleus"].predictions == 2
    document["images"] = images[:1]
    (tmp_path / "folder" / "predictions.json").write_text(json.dumps(document))
    assert evaluated(tmp_path / "folder", pictures).missing == ("img_2",)


@pytest.fixture(scope="module")
def ct_case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Manifest, Path]:
    """A CT as DICOM with its reference, and one prediction written in all formats."""
    folder = tmp_path_factory.mktemp("formats")
    settings = PhantomSettings(seed=3, shape=SHAPE, spacing_mm=(40.0, 9.0, 8.0), tumours=0)
    write_dicom_series(make_phantom(settings), folder / "ct")
    scan = read_volume(folder / "ct")
    truth = np.zeros(SHAPE, np.uint8)
    truth[LIVER], truth[FIRST], truth[SECOND] = 1, 2, 3
    write_nifti(truth, scan.grid, folder / "truth.nii.gz")
    names = ("liver", "liver tumour", "liver tumour")
    instances = tuple(ManifestInstance(value=k + 1, class_name=name) for k, name in enumerate(names))
    case = ManifestCase(id="ct", patient="p", image="ct", label="truth.nii.gz", instances=instances)
    manifest = Manifest(name="one", class_names=names[:2], cases=(case,), folder=str(folder))
    parts = [(0, np.s_[1:5, 5:25, 7:27]), (1, np.s_[2:4, 28:33, 30:36]), (1, np.s_[0:1, 0:5, 0:5])]
    masks = []
    for _, window in parts:
        mask = np.zeros(SHAPE, bool)
        mask[window] = True
        masks.append(Mask((0, 0, 0), mask).tight())
    found = Instances.from_masks(scan.grid, names[:2], [k for k, _ in parts], masks)
    record = RunRecord("medmaskrcnn 0", "m", "ab" * 32, "Apache-2.0", "cpu", "fp32", {"score": 0.5})
    result = CaseResult(found, 0.5, measure_instances(scan, found), record)
    write_result(result, scan, folder / "all", formats=("nifti", "csv", "seg", "rtstruct", "coco"))
    for kind, files in {
        "label map": ("labels.nii.gz", "instances.csv"),
        "SEG": ("segmentation.dcm",),
        "RTSTRUCT": ("contours.dcm",),
        "COCO": ("coco.json",),
        "result": ("instances.npz",),
    }.items():
        (folder / kind / "ct").mkdir(parents=True)
        for file in files:
            (folder / "all" / file).rename(folder / kind / "ct" / file)
    return manifest, folder


def test_one_prediction_gives_one_table_in_every_format(ct_case: tuple[Manifest, Path]) -> None:
    manifest, folder = ct_case
    tables = {}
    for kind in ("label map", "SEG", "RTSTRUCT", "COCO", "result"):
        got = evaluated(folder / kind, manifest)
        assert not got.failed and not got.missing, (kind, got.failed)
        document = evaluation_document(got)
        tables[kind] = json.dumps({key: document[key] for key in ("overall", "classes")}, sort_keys=True)
    assert set(tables.values()) == {tables["SEG"]}
    liver, tumour = got.classes["liver"], got.classes["liver tumour"]
    assert liver.outline["dice"].value == pytest.approx(0.9)
    assert (tumour.mask["recall"].value, tumour.mask["precision"].value) == (0.5, 0.5)


def test_files_that_belong_to_no_case_and_two_for_one(scans: Manifest, nnunet: Path) -> None:
    write_map(nnunet / "other" / "case_a_pred.nii.gz", (LIVER, 1))
    assert find_predictions(nnunet, scans, scans.cases)["case_b"] == (nnunet / "case_b.nii.gz",)
    write_map(nnunet / "case_b_seg.nii.gz", (LIVER, 1))
    write_map(nnunet / "case_b_pred.nii.gz", (LIVER, 1))
    with pytest.raises(ReadError, match=r"case_b has 2 predictions"):
        find_predictions(nnunet, scans, scans.cases)
    for file in nnunet.rglob("*.nii.gz"):
        file.rename(file.with_name(f"x{file.name}"))
    with pytest.raises(ReadError, match=r"named after a case of livers \(case_a"):
        find_predictions(nnunet, scans, scans.cases)
    with pytest.raises(ReadError, match="does not exist"):
        find_predictions(nnunet / "nothing", scans, scans.cases)


def test_what_does_not_fit_is_told(scans: Manifest, nnunet: Path) -> None:
    with pytest.raises(InvalidOptionError, match="parts"):
        PredictionOptions(rules={"liver": "parts"})  # type: ignore[dict-item]
    with pytest.raises(InvalidOptionError, match="'lung'"):
        evaluated(nnunet, scans, rules={"lung": "whole"})
    (nnunet / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "lung": 1, "heart": 2}}))
    with pytest.raises(InvalidOptionError, match=r"predictions has lung, heart; the manifest has liver, liver tumour"):
        evaluated(nnunet, scans)
    got = evaluated(nnunet, scans, rename={"lung": "liver"})
    assert got.class_names == ("liver",) and got.only_predicted == ("heart",)
    (nnunet / "dataset.json").write_text("{}")
    with pytest.raises(ReadError, match=r"dataset\.json"):
        evaluated(nnunet, scans)


def test_a_damaged_prediction_is_told_and_the_others_count(scans: Manifest, nnunet: Path) -> None:
    (nnunet / "case_a.nii.gz").write_bytes(b"no image")
    got = evaluated(nnunet, scans)
    assert [one.id for one in got.failed] == ["case_a"] and len(got.cases) == 1
    (nnunet / "case_b.nii.gz").write_bytes(b"no image")
    with pytest.raises(MedMaskRCNNError, match="none of 2 cases"):
        evaluated(nnunet, scans)


def test_the_command(scans: Manifest, nnunet: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    path = tmp_path / "manifest.json"
    path.write_text(scans.model_dump_json(by_alias=True))
    (nnunet / "case_b.nii.gz").unlink()
    done = run_cli("evaluate", nnunet, path, "--split", "all", "-o", tmp_path / "out", "--rule", "tumor_liver=whole")
    assert done.exit_code == 0, done.output
    for text in ("nnunet on 2 cases", "case_b", "all of a case is one"):
        assert text in done.output
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["classes"]["liver tumour"]["predictions"] == 1
    assert run_cli("evaluate", nnunet, path, "--split", "all", "--require-all").exit_code == 1
    for wrong, told in (
        (("--rule", "liver=parts"), "--rule"),
        (("--label", "one=liver"), "--label"),
        (("--within", "liver"), "--within"),
        (("--rename", "brain=liver"), "--rename"),
    ):
        done = run_cli("evaluate", nnunet, path, "--split", "all", *wrong)
        assert done.exit_code == 2 and told in done.output, done.output
    done = run_cli("evaluate", "nuclei", path, "--split", "all", "--rule", "whole")
    assert done.exit_code == 2 and "predictions" in done.output
