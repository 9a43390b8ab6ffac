"""Labels that can be read and would ruin a training: what the check says of them, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.cli.check_table import print_report
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.label_coverage import label_coverage
from medmaskrcnn.data.manifest import Manifest, ManifestCase
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.mask import Mask

SHAPE = (40, 24, 24)
Z, Y, X = np.mgrid[:40, :24, :24]


def ball(z: float, radius: float, *, y: float = 12, x: float = 12) -> np.ndarray:
    return ((Z - z) ** 2 + (Y - y) ** 2 + (X - x) ** 2 < radius**2).astype(np.uint8)


def rod() -> np.ndarray:
    """Through all slices."""
    return ((Y - 12) ** 2 + (X - 12) ** 2 < 36).astype(np.uint8)


def said(
    folder: Path, maps: Sequence[np.ndarray], *, classes: tuple[str, ...] = ("mass",), **case: Any
) -> list[tuple[str, str]]:
    """Level and text of the findings on cases with these label maps, value 1 of which is the first class."""
    cases = []
    for number, values in enumerate(maps):
        for kind, array in (("i", np.random.default_rng(number).normal(size=values.shape)), ("l", values)):
            dtype = np.float32 if kind == "i" else np.uint8
            nib.save(nib.Nifti1Image(array.T.astype(dtype), np.eye(4)), folder / f"{kind}{number}.nii")
        given = {"instances": [{"value": v, "class": c} for v, c in enumerate(classes, start=1)]} | case
        cases.append(
            ManifestCase.model_validate(
                {"id": f"c{number}", "patient": f"p{number}", "image": f"i{number}.nii", "label": f"l{number}.nii"}
                | {"split": "val" if number == 1 else "train"}
                | given
            )
        )
    report = check_manifest(
        Manifest(name="m", modality="CT", class_names=classes, cases=tuple(cases), folder=str(folder)), workers=1
    )
    print_report(report)
    return [(f.level, f.text) for f in report.findings if f.case is None]


def test_sound_labels(tmp_path: Path) -> None:
    assert said(tmp_path, [ball(12 + n, 7) for n in range(4)]) == []


def test_nothing_labelled_and_little_labelled(tmp_path: Path) -> None:
    empty = np.zeros(SHAPE, np.uint8)
    found = said(tmp_path, [empty] * 3)
    assert ("error", "no case for training holds an object: the labels of all 2 are empty") in found
    found = said(tmp_path, [ball(12, 7), ball(13, 7), empty, empty, empty])
    assert [text for level, text in found if level == "warning"] == [
        "most cases hold no object, 3 of 5: c2, c3, c4. Are their labels complete?"
    ]


@pytest.mark.parametrize(("name", "level"), [("mass", "warning"), ("tumour", "warning"), ("liver", None)])
def test_objects_in_several_parts(tmp_path: Path, name: str, level: str | None) -> None:
    apart = ball(8, 5) | ball(20, 5) | ball(32, 5)
    found = said(tmp_path, [apart] * 3, classes=(name,))
    assert [(one, text[:35]) for one, text in found] == (
        [] if level is None else [(level, f"{name}: 3 objects in 9 separate parts"[:35])]
    )


def test_labels_of_some_slices(tmp_path: Path) -> None:
    part = rod()
    part[:5] = part[17:] = 0
    (level, text), *others = said(tmp_path, [part] * 3)
    assert level == "warning" and "cover 12 of 40 slices (6 to 17)" in text and not others
    thin = rod()
    thin[[z for z in range(40) if z % 5]] = 0
    (level, text), *others = said(tmp_path, [thin] * 3)
    assert level == "warning" and "8 of 40 slices (1 to 36)" in text
    assert said(tmp_path, [rod()] * 3) == []  # through the whole scan
    some = rod()
    some[np.random.default_rng(1).permutation(40)[:26]] = 0
    (level, text), *others = said(tmp_path, [some] * 3)
    assert level == "warning" and "14 of 40 slices" in text and "with gaps between" in text
    spots = np.zeros(SHAPE, np.uint8)
    for z in range(1, 40, 6):
        spots |= ball(z, 1.4, y=4 + z % 16, x=2 + (5 * z) % 20)
    assert not any("gaps" in text for _, text in said(tmp_path, [spots] * 3))  # small objects here and there


def test_coverage_knows_the_slice_axis() -> None:
    grid = Grid(SHAPE, np.array([[0, 0, 5.0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]))
    block = np.zeros(SHAPE, np.bool_)
    block[..., 6:16] = rod()[:1, :, 6:16] > 0
    found = label_coverage([Mask((0, 0, 0), block)], grid)
    assert found is not None and (found.labelled, found.slices, found.abrupt) == (9, 24, True)
    assert label_coverage([], grid) is None
    assert label_coverage([Mask((0, 0, 0), np.ones((1, 9, 9), np.bool_))], pixel_grid((1, 9, 9))) is None


def test_boxes(tmp_path: Path) -> None:
    box = np.zeros(SHAPE, np.uint8)
    box[4:12, 5:15, 6:18] = 1
    assert [text for _, text in said(tmp_path, [np.roll(box, n, 0) for n in range(5)])][:1] == [
        "mass: 5 of 5 objects fill their boxes. Are these boxes, not outlines?"
    ]


def test_names_that_are_no_classes(tmp_path: Path) -> None:
    values = ball(12, 6) + 2 * ball(30, 5)
    found = said(tmp_path, [values] * 3, classes=("mass", "label 255"))
    assert found[0][0] == "warning" and "label 255: named as a class" in found[0][1]


def test_partly_labelled_and_ignored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = ball(12, 6)
    values[30:34] = 2
    instances = [{"value": 1, "class": "mass"}, {"value": 2, "ignore": True}]
    found = said(tmp_path, [values] * 3, classes=("mass", "liver"), instances=instances, annotated=["mass"])
    assert ("warning", "annotated in no case for training: liver") in found
    assert any(level == "note" and "partly labelled: 3 of 3 cases" in text for level, text in found)
    assert ("note", "regions to ignore in 3 cases, 10.00% of their voxels in the mean") in found
    out = capsys.readouterr().out
    assert "annotated in" in out and "liver" in out


def test_pictures_that_are_slices_of_one_scan(tmp_path: Path) -> None:
    def findings(step: float) -> list[str]:
        cases = []
        for number in range(30):
            y, x = np.mgrid[:64, :64]
            angle = step * number
            at = 32 + 18 * np.sin(angle), 32 + 18 * np.cos(angle)
            bright = 200 * np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / 150)
            values = ((y - at[0]) ** 2 + (x - at[1]) ** 2 < 60).astype(np.uint8)
            Image.fromarray(bright.astype(np.uint8)).save(tmp_path / f"i{number}.png")
            Image.fromarray(values).save(tmp_path / f"l{number}.png")
            cases.append(
                ManifestCase.model_validate(
                    {"id": f"i{number}", "patient": f"i{number}", "image": f"i{number}.png", "label": f"l{number}.png"}
                    | {"split": "val" if number == 7 else "train", "instances": [{"value": 1, "class": "cell"}]}
                )
            )
        manifest = Manifest(name="m", class_names=("cell",), cases=tuple(cases), folder=str(tmp_path))
        return [f.text for f in check_manifest(manifest, workers=1).findings]

    assert any("each of 30 pictures is a patient of its own" in text for text in findings(0.2))
    assert findings(2.4) == []  # each looks unlike the one before
