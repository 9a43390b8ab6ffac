"""What the planner decides, on the facts of data of each kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from medmaskrcnn.data.case_fingerprint import PERCENTILES, CaseFingerprint, Intensities, ObjectFacts
from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.errors import MedMaskRCNNError, ReadError
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.training.plan import Plan, parse_plan, plan_text
from medmaskrcnn.training.planner.anchors import best_overlaps, weighted_k_means
from medmaskrcnn.training.planner.memory import PROGRAM, count_parameters
from medmaskrcnn.training.planner.network import LARGEST_FILE, file_bytes
from medmaskrcnn.training.planner.planner import make_plan

MEMORY_GB = 12.0


def intensities(low: float, high: float) -> Intensities:
    """Evenly spread values."""
    return Intensities(
        tuple(low + (high - low) * p / 100 for p in PERCENTILES), (low + high) / 2, (high - low) / 12**0.5
    )


def facts(
    number: int,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float] | None,
    objects: dict[str, list[tuple[float, float, float]]],
    *,
    axes: str = "SAR",
    **changes: Any,
) -> CaseFingerprint:
    """A case whose D, H, W run along ``axes``; sizes of objects in mm, in voxels without a spacing."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (letter, size) in enumerate(zip(axes, spacing or (1, 1, 1), strict=True)):
        affine["RAS".index(letter), column] = size
    found = []
    for name, sizes in objects.items():
        for size in sizes:
            extent = tuple(max(1, round(s / v)) for s, v in zip(size, spacing or (1, 1, 1), strict=True))
            mm = tuple(e * v for e, v in zip(extent, spacing, strict=True)) if spacing else None
            found.append(ObjectFacts(name, extent, mm, int(np.prod(extent))))  # type: ignore[arg-type]
    case = CaseFingerprint(
        id=f"c{number}",
        patient=f"p{number}",
        split="train",
        fold=None,
        grid=Grid(shape, affine, spacing is not None),
        channels=1,
        channel_kind="scalar",
        modality="MR",
        intensities=(intensities(0, 1000),),
        foreground=(intensities(300, 500),) if found else (),
        not_finite=0,
        objects=tuple(found),
        absent=(),
        unnamed=(),
        content_hash=str(number),
    )
    return replace(case, **changes)


def plan_for(
    cases: list[CaseFingerprint],
    class_names: tuple[str, ...],
    *,
    annotated: dict[str, tuple[str, ...]] | None = None,
    **options: Any,
) -> tuple[Plan, dict[str, str]]:
    known = annotated or {}
    listed = tuple(
        ManifestCase(id=c.id, patient=c.patient, image=f"{c.id}.nii.gz", annotated=known.get(c.id)) for c in cases
    )
    manifest = Manifest(name="Some Data", class_names=class_names, licence="CC0-1.0", cases=listed)
    return make_plan(manifest, cases, **{"memory_gb": MEMORY_GB, **options})


ORGANS = {"liver": [(173.0, 165.0, 190.0)], "right kidney": [(108.0, 63.0, 71.0)], "left kidney": [(115.0, 61.0, 70.0)]}


def abdomen(count: int = 12, **changes: Any) -> list[CaseFingerprint]:
    return [facts(i, (36, 256, 256), (7.7, 1.25, 1.25), ORGANS, **changes) for i in range(count)]


def test_abdominal_mr() -> None:
    plan, reasons = plan_for(abdomen(), tuple(ORGANS))
    assert plan.model.spatial_dims == 3 and plan.preprocess.orientation == "SPL"
    depth, height, width = plan.preprocess.spacing_mm
    assert depth == 7.7 and height == width
    assert 2.0 <= height <= 2.5, "the whole scan fits, and a kidney still has a voxel for each mask bin"
    assert plan.model.backbone.strides == ((1, 4, 4), (2, 8, 8), (4, 16, 16), (8, 32, 32))
    assert plan.augment.patch[0] >= 36 and min(plan.augment.patch[1:]) >= 256 * 1.25 / height
    assert plan.inference.one_per_scan_classes == tuple(ORGANS) and plan.augment.flip == ()
    assert plan.preprocess.percentiles is not None and not plan.preprocess.windows
    assert plan.augment.bias_field > 0 and plan.card.modality == "MR" and plan.card.name == "some-data"
    assert "kidney" in reasons["preprocess.spacing_mm"] and "7.7" in reasons["preprocess.spacing_mm"]


def test_an_object_is_reported_once_where_labels_of_a_class_never_overlap() -> None:
    cases = abdomen(3)

    def planned(instances: list[dict[str, Any]]) -> tuple[Plan, dict[str, str]]:
        files: dict[str, Any] = {"image": "i.nii", "label": ["a.nii", "b.nii"], "instances": instances}
        listed = tuple(ManifestCase(id=case.id, patient=case.patient, **files) for case in cases)
        manifest = Manifest(name="Some Data", class_names=tuple(ORGANS), licence="CC0-1.0", cases=listed)
        return make_plan(manifest, cases, memory_gb=MEMORY_GB)

    one, other = {"value": 1, "class": "liver", "map": 0}, {"value": 1, "class": "right kidney", "map": 1}
    assert planned([one, other])[0].inference.max_containment == 0.5, "those of two classes may overlap"
    plan, reasons = planned([one, {**one, "map": 1}])
    assert plan.inference.max_containment is None and "c0" in reasons["inference.max_containment"]


def test_small_objects_in_small_scans_get_finer_strides() -> None:
    """Not more voxels, which interpolation would have to invent."""
    halves = {"anterior hippocampus": [(14.0, 16.0, 21.0)], "posterior hippocampus": [(21.0, 23.0, 19.0)]}
    plan, reasons = plan_for([facts(i, (37, 50, 35), (1, 1, 1), halves) for i in range(50)], tuple(halves))
    assert plan.preprocess.spacing_mm == (1.0, 1.0, 1.0)
    assert plan.model.backbone.strides == ((1, 2, 2), (2, 4, 4), (4, 8, 8), (8, 16, 16))
    assert plan.preprocess.pad_multiple == (8, 16, 16) and "Finer" in reasons["model.backbone.strides"]
    assert all(32 <= a < 1.5 * b + 16 for a, b in zip(plan.augment.patch, (37, 50, 35), strict=True))
    assert plan.train.batch == 1, "a window has as many cells as one of 0.5 mm and strides of 4"
    assert plan.augment.flip == ("W",), "no class has a side"
    edges = np.array(plan.model.anchors.sizes)
    assert edges.min() > 10 and edges.max() < 30, "objects are 14 to 23 voxels"
    tiny = {"node": [(6.0, 6.0, 6.0)]}
    plan, _ = plan_for([facts(i, (20, 24, 24), (1, 1, 1), tiny) for i in range(50)], tuple(tiny))
    assert plan.model.backbone.strides[0][-1] == 1


def test_small_objects_beside_a_large_one_keep_windows_that_hold_it() -> None:
    objects = {"liver": [(170.0, 160.0, 190.0)], "adrenal gland": [(20.0, 15.0, 15.0)]}
    cases = [facts(i, (110, 256, 256), (2.6, 1.4, 1.4), objects) for i in range(12)]
    plan, reasons = plan_for(cases, tuple(objects))
    assert plan.model.backbone.strides[0][-1] == 4 and "could not hold" in reasons["model.backbone.strides"]


def test_anchors_cover_the_largest_and_the_smallest_objects() -> None:
    sizes = {"liver": 63.0, "kidney": 30.0, "spleen": 34.0, "gallbladder": 18.0, "stomach": 45.0, "aorta": 20.0}
    organs = {name: [(edge, edge, edge)] for name, edge in sizes.items()} | {"adrenal gland": [(7.0, 8.0, 8.0)]}
    plan, reasons = plan_for([facts(i, (90, 128, 128), (1, 1, 1), organs) for i in range(12)], tuple(organs))
    anchors = plan.model.anchors
    edges = np.array([size for group in organs.values() for size in group])
    overlaps = best_overlaps(edges, np.array(anchors.sizes), anchors.ratios)
    assert overlaps.min() > 0.45, dict(zip(organs, overlaps.round(2), strict=True))
    assert max(anchors.sizes[-1]) >= 63 and min(anchors.sizes[0]) <= 8
    assert "IoU" in reasons["model.anchors"]


def test_boxes_are_read_from_several_levels() -> None:
    """With FPN's 224 pixels for P4, all of these but the largest would be read from P2."""
    organs = {f"organ {edge}": [(edge, edge, edge)] for edge in (30.0, 45.0, 60.0, 70.0, 90.0, 150.0)}
    plan, reasons = plan_for([facts(i, (160, 200, 200), (1, 1, 1), organs) for i in range(12)], tuple(organs))
    roi, strides = plan.model.roi, [stride[-1] for stride in plan.model.backbone.strides]
    assert 2**roi.canonical_level == strides[1]
    assert 7 <= roi.canonical_size / strides[1] <= 14, "cells across the smallest box of the second level"
    for read in ("P2 50%", "P3 33%", "P4 17%"):
        assert read in reasons["model.roi.canonical_size"]


def test_the_plan_is_that_of_the_data_not_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("medmaskrcnn.training.planner.planner.memory_of_machine", lambda: 1e12)
    plan, reasons = plan_for(abdomen(), tuple(ORGANS), memory_gb=None)
    assert plan == plan_for(abdomen(), tuple(ORGANS), memory_gb=8)[0]
    assert "8 GB" in reasons["train.batch"] and "epochs" in reasons["train.steps"]
    monkeypatch.setattr("medmaskrcnn.training.planner.planner.memory_of_machine", lambda: 2.0**30)
    again, reasons = plan_for(abdomen(), tuple(ORGANS), memory_gb=None)
    assert again == plan and "This machine has 1 GB" in reasons["train.batch"]


def test_ct_of_organs_and_tumours() -> None:
    objects = {**ORGANS, "tumour": [(20.0, 20.0, 20.0)] * 4}
    ct = {"modality": "CT", "intensities": (intensities(-1024, 500),), "foreground": (intensities(-900, 560),)}
    cases = [facts(i, (110, 256, 256), (2.6, 1.4, 1.4), objects, **ct) for i in range(30)]
    plan, reasons = plan_for(cases, tuple(objects))
    assert plan.preprocess.windows == ((-900.0, 600.0), (-160.0, 240.0)) and plan.model.image_channels == 2
    assert plan.preprocess.percentiles is None and plan.augment.bias_field == 0
    assert plan.preprocess.spacing_mm == (2.6, 1.4, 1.4), "tumours are small: nothing is shrunk"
    assert plan.inference.one_per_scan_classes == tuple(ORGANS), "a tumour never counts as one of a body"
    assert (
        plan.augment.oversampled_class == "tumour"
        and plan.augment.oversampled_patch is not None
        and plan.train.batch == 1
    )
    assert "tumour" in reasons["augment.oversampled_class"]
    narrow = [replace(case, foreground=(intensities(0, 200),)) for case in cases]
    assert plan_for(narrow, tuple(objects))[0].preprocess.windows == ((0.0, 200.0),)
    unnamed = [replace(case, modality=None) for case in cases]
    assert plan_for(unnamed, tuple(objects))[0].preprocess.windows == plan.preprocess.windows, "air at -1024"


def test_microscopy() -> None:
    cells = {"nucleus": [(1.0, 20.0, 20.0)] * 30}
    cases = [facts(i, (1, 256, 256), None, cells, modality=None) for i in range(100)]
    plan, reasons = plan_for(cases, ("nucleus",))
    assert plan.model.spatial_dims == 2 and plan.model.context_slices == 0 and plan.augment.patch[0] == 1
    assert plan.preprocess.orientation == "as_stored" and plan.preprocess.spacing_mm == (None, None, None)
    assert plan.preprocess.resize_min_max is None, "pictures are not enlarged"
    assert plan.model.backbone.strides == ((2, 2), (4, 4), (8, 8), (16, 16)), "20 pixels are ten cells of P2"
    assert plan.augment.flip == ("H", "W") and plan.augment.rotate_degrees == 90
    assert plan.model.detection.detections_per_img == 100 and plan.train.batch > 1
    assert plan.inference.one_per_scan_classes == (), "a picture shows a part of something"
    assert "20 pixels" in reasons["preprocess.resize_min_max"]


def test_photographs() -> None:
    colour = {"channels": 3, "channel_kind": "colour", "modality": None}
    cases = [
        facts(
            i, (1, 480, 640), None, {"polyp": [(1.0, 150.0, 130.0)]}, **colour, intensities=(intensities(0, 255),) * 3
        )
        for i in range(20)
    ]
    plan, _ = plan_for(cases, ("polyp",))
    assert plan.preprocess.value_range == (0.0, 255.0) and plan.preprocess.percentiles is None
    assert plan.preprocess.mean == (0.485, 0.456, 0.406) and plan.model.image_channels == 3
    assert plan.augment.colour > 0
    deep = [replace(case, intensities=(intensities(0, 60000),) * 3) for case in cases]
    assert plan_for(deep, ("polyp",))[0].preprocess.value_range == (0.0, 65535.0)


@pytest.mark.parametrize(
    ("shape", "thickness", "object_mm", "dims", "context"),
    [
        ((30, 320, 320), 3.6, 40.0, 3, 0),  # eleven slices of an object
        ((10, 256, 256), 8.0, 60.0, 2, 1),  # few slices
        ((30, 320, 320), 6.0, 12.0, 2, 1),  # two slices of an object
        ((30, 320, 320), 10.0, 8.0, 2, 0),  # one slice of an object
        ((10, 64, 64), 1.0, 8.0, 3, 0),  # few but fine slices
    ],
)
def test_dimensions(shape: tuple[int, int, int], thickness: float, object_mm: float, dims: int, context: int) -> None:
    objects = {"prostate": [(object_mm, 40.0, 45.0)]}
    plan, reasons = plan_for([facts(i, shape, (thickness, 0.7, 0.7), objects) for i in range(8)], ("prostate",))
    assert (plan.model.spatial_dims, plan.model.context_slices) == (dims, context), reasons["model.spatial_dims"]
    if dims == 2:
        assert plan.preprocess.spacing_mm[0] is None


def test_dimensions_asked_for() -> None:
    for asked, dims, context in ((2, 2, 0), ("2.5", 2, 1), (3, 3, 0)):
        plan, reasons = plan_for(abdomen(), tuple(ORGANS), dims=asked)
        assert (plan.model.spatial_dims, plan.model.context_slices) == (dims, context)
    assert "Asked" not in reasons["model.spatial_dims"]
    with pytest.raises(ValueError, match=r"dims must be 2, 2.5 or 3, got 4"):
        plan_for(abdomen(), tuple(ORGANS), dims=4)
    picture = [facts(0, (1, 64, 64), None, {"liver": [(1, 20, 20)]})]
    with pytest.raises(ReadError, match="c0 and its like are single images"):
        plan_for(picture, ("liver",), dims=3)


def test_sagittal_scans_keep_their_thick_axis_first() -> None:
    disc = {"disc": [(8.0, 35.0, 40.0)]}  # S, A, R
    cases = [
        facts(i, (16, 384, 384), (4.0, 0.7, 0.7), {"disc": [(40.0, 8.0, 35.0)] * 6}, axes="RSA") for i in range(10)
    ]
    plan, _ = plan_for(cases, ("disc",))
    assert plan.preprocess.orientation == "acquisition" and plan.preprocess.spacing_mm[0] == 4.0
    assert plan.augment.flip == ("D",), "left-right is the network's D here"
    axial = [facts(i, (384, 16, 384), (0.7, 4.0, 0.7), disc, axes="SRA") for i in range(10)]
    turned, _ = plan_for(axial, ("disc",))
    assert turned.preprocess.orientation == "acquisition", "whatever the order in the file"


def test_storage_order_decides_nothing() -> None:
    straight, _ = plan_for(abdomen(), tuple(ORGANS))
    stored = {name: [(w, d, h) for d, h, w in sizes] for name, sizes in ORGANS.items()}
    turned = [facts(i, (256, 36, 256), (1.25, 7.7, 1.25), stored, axes="RSA") for i in range(12)]
    assert plan_for(turned, tuple(ORGANS))[0] == straight


@pytest.mark.parametrize(
    ("name", "flips"),
    [("left lung", ()), ("kidney_R", ()), ("KidneyLeft", ()), ("liver", ()), ("liver tumour", ("H", "W")),
     ("glioma", ("H", "W")), ("kidney", ("W",)), ("vertebra L5", ("W",)), ("brain", ("W",))],
)  # fmt: skip
def test_flips(name: str, flips: tuple[str, ...]) -> None:
    plan, _ = plan_for([facts(i, (60, 128, 128), (2, 2, 2), {name: [(60, 60, 60)]}) for i in range(8)], (name,))
    assert plan.augment.flip == flips


def test_memory_decides_on_window_and_width() -> None:
    windows = []
    for memory_gb in (12.0, 1.3, 1.15):
        plan, reasons = plan_for(abdomen(), tuple(ORGANS), memory_gb=memory_gb)
        windows.append(np.prod(plan.augment.patch))
    assert windows[0] > windows[1] and "Made smaller" in reasons["augment.patch"]
    assert count_parameters(plan.model) < count_parameters(plan_for(abdomen(), tuple(ORGANS))[0].model)
    with pytest.raises(MedMaskRCNNError, match="are too little"):
        plan_for(abdomen(), tuple(ORGANS), memory_gb=PROGRAM / 2**30)
    with pytest.raises(ValueError, match="memory_gb must be positive"):
        plan_for(abdomen(), tuple(ORGANS), memory_gb=0.0)


def test_a_steady_percentile_is_found() -> None:
    """Bright fluid fills more or less of a scan, organs are as bright everywhere: a low percentile holds still."""
    rest = (0.0, 0.0, 0.0, 50.0, 100.0, 200.0)
    cases = [
        replace(case, intensities=(Intensities((*rest, 300.0 * k, 500.0 * k, 600.0 * k), 0, 0),))
        for k, case in zip(np.linspace(1, 4, 12), abdomen(), strict=True)
    ]
    plan, reasons = plan_for(cases, tuple(ORGANS))
    assert plan.preprocess.percentiles == (0.5, 75.0)
    assert plan.preprocess.ceiling == 2.5, "objects reach 500, the range 200"
    assert "with 99.5 by a factor of" in reasons["preprocess.percentiles"]


def test_only_training_cases_count() -> None:
    plan, _ = plan_for(abdomen(), tuple(ORGANS))
    strange = facts(99, (400, 900, 900), (0.2, 0.2, 0.2), {"liver": [(2, 2, 2)] * 50}, split="test")
    again, _ = plan_for([*abdomen(), strange, replace(strange, id="c98", split="val")], tuple(ORGANS))
    assert again == plan


def test_a_class_that_never_occurs_and_cases_without_objects() -> None:
    empty = [replace(case, objects=(), foreground=()) for case in abdomen(3)]
    cases = [*abdomen(), *(replace(case, id=f"e{i}") for i, case in enumerate(empty))]
    plan, _ = plan_for(cases, (*ORGANS, "pancreas"))
    assert plan.model.class_names == (*ORGANS, "pancreas") and plan.inference.one_per_scan_classes == tuple(ORGANS)


def test_what_cannot_be_planned() -> None:
    with pytest.raises(ReadError, match="no training case holds an object"):
        plan_for([replace(case, objects=(), foreground=()) for case in abdomen()], tuple(ORGANS))
    with pytest.raises(ReadError, match="no case has the split train"):
        plan_for([replace(case, split="test") for case in abdomen()], tuple(ORGANS))
    two = replace(abdomen(1)[0], id="two", channels=2, intensities=(intensities(0, 9),) * 2)
    with pytest.raises(ReadError, match=r"\[1, 2\] channels"):
        plan_for([*abdomen(), two], tuple(ORGANS))


def leaves(values: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        found += leaves(value, f"{path}{key}.") if isinstance(value, dict) and value else [f"{path}{key}"]
    return found


def test_every_value_has_a_reason_and_every_reason_a_value() -> None:
    plan, reasons = plan_for(abdomen(), tuple(ORGANS))
    paths = leaves(plan.model_dump(mode="json"))
    for path in paths:
        parts = path.split(".")
        assert any(".".join(parts[:n]) in reasons for n in range(1, len(parts) + 1)), path
    for path in reasons:
        assert any(leaf == path or leaf.startswith(f"{path}.") for leaf in paths), path
    assert all(reason.endswith((".", ")")) for reason in reasons.values())


def test_the_plan_is_written_with_its_reasons_and_read_back() -> None:
    plan, reasons = plan_for(abdomen(), tuple(ORGANS))
    text = plan_text(plan, reasons, head="A plan.")
    assert parse_plan(text) == plan
    assert "# Thick slices (7.7 mm) are kept." in text


def test_the_file_stays_small_with_many_classes() -> None:
    names = tuple(f"structure {i}" for i in range(120))
    objects = {name: [(40.0, 40.0, 40.0)] for name in names}
    plan, _ = plan_for([facts(i, (100, 128, 128), (2, 2, 2), objects) for i in range(4)], names)
    assert file_bytes(plan.model) <= LARGEST_FILE


def test_k_means_finds_groups_and_needs_no_chance() -> None:
    groups = np.array([[0.0, 0.0], [5.0, 5.0], [9.0, 1.0]])
    points = np.concatenate([g + np.array([[-0.1, 0.1], [0.1, -0.1], [0.0, 0.0]]) for g in groups])
    means, nearest = weighted_k_means(points, np.ones(9), 3)
    assert means[0] == pytest.approx([0, 0]) and sorted(map(tuple, means.round(6))) == sorted(map(tuple, groups))
    assert [len(set(nearest[3 * k : 3 * k + 3])) for k in range(3)] == [1, 1, 1]
    heavy, _ = weighted_k_means(np.array([[0.0], [1.0]]), np.array([3.0, 1.0]), 1)
    assert heavy[0, 0] == pytest.approx(0.25)


def test_classes_that_are_unknown_in_some_scans() -> None:
    """Livers are drawn in half of the scans, kidneys in the others: each is there once in every scan that tells."""
    names = tuple(ORGANS)
    cases = abdomen()
    annotated = {case.id: names[:1] if i % 2 else names[1:] for i, case in enumerate(cases)}
    drawn = [
        replace(case, objects=tuple(o for o in case.objects if o.class_name in annotated[case.id])) for case in cases
    ]
    partly, reasons = plan_for(drawn, names, annotated=annotated)
    whole, plain = plan_for(cases, names)
    assert partly.model.rpn.objectness == "per_class" and whole.model.rpn.objectness == "shared"
    assert "12 of 12 scans" in reasons["model.rpn.objectness"] and "Every class" in plain["model.rpn.objectness"]
    assert partly.inference.one_per_scan_classes == whole.inference.one_per_scan_classes == names
    expected = {"objectness": "per_class"}  # and as many proposals as for three organs in a scan
    assert partly.model.rpn == whole.model.rpn.model_copy(update=expected)
    assert partly.model.detection.detections_per_img == whole.model.detection.detections_per_img
    told = {case.id: names for case in cases}
    assert plan_for(drawn, names, annotated=told)[0].inference.one_per_scan_classes == ()
