"""COCO JSON: polygons, run-length codes, crowds, overlaps."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.case_labels import LabelledScan, read_case
from medmaskrcnn.data.check import check_manifest
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn.io.labels.read import read_labels
from medmaskrcnn.structures.rle import rle_encode, run_lengths
from medmaskrcnn_datasets.coco import coco_dataset

HEIGHT, WIDTH = 12, 16


def square(top: int, left: int, size: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + size, left : left + size] = True
    return mask


def code(mask: np.ndarray, *, text: bool) -> dict:
    runs = run_lengths(mask)
    return {"size": [HEIGHT, WIDTH], "counts": rle_encode(runs) if text else runs}


def annotation(number: int, segmentation, *, image: int = 5, category: int = 1, **more) -> dict:
    return {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, **more}


def make(folder: Path, annotations: list[dict], *, place: str = "images", name: str = "cells.json", **content) -> Path:
    pictures = [{"id": 5, "file_name": "day 1/a.png"}, {"id": 9, "file_name": "day 1/b.png"}]
    for number, picture in enumerate(pictures):
        picture |= {"height": HEIGHT, "width": WIDTH}
        path = folder / place / picture["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), number, np.uint8)).save(path)
    categories = [{"id": 1, "name": "cell"}, {"id": 7, "name": "nucleus"}]
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": pictures, "annotations": annotations, "categories": categories} | content))
    return path


def converted(path: Path, **options) -> tuple[Manifest, LabelledScan]:
    manifest = read_manifest(coco_dataset(path, path.parent / "out", **options))
    return manifest, read_case(manifest, manifest.cases[0])


def dense(scan: LabelledScan) -> list[tuple[str, np.ndarray]]:
    return [(one.class_name, one.mask.dense((1, HEIGHT, WIDTH))[0]) for one in scan.objects]


def test_every_kind_of_outline_and_overlaps(tmp_path: Path) -> None:
    cell, nucleus, other = square(1, 1, 8), square(3, 3, 3), square(6, 6, 5)
    two_parts = [[12, 0, 15, 0, 15, 2, 12, 2], [12, 9, 14, 9, 14, 11, 12, 11]]
    path = make(
        tmp_path,
        [
            annotation(1, code(cell, text=True)),
            annotation(2, code(nucleus, text=False), category=7),
            annotation(3, [[6, 6, 11, 6, 11, 11, 6, 11]]),
            annotation(4, two_parts),
        ],
        licenses=[{"id": 1, "name": "CC0"}],
    )
    manifest, scan = converted(path)
    assert (manifest.name, manifest.class_names, manifest.licence) == ("cells", ("cell", "nucleus"), "CC0")
    parts = square(0, 12, 2)
    parts[:2, 14] = True
    parts[9:11, 12:14] = True
    expected = [("cell", cell), ("nucleus", nucleus), ("cell", other), ("cell", parts)]
    found = dense(scan)
    for name, mask in expected:
        assert any(n == name and np.array_equal(m, mask) for n, m in found), name
    assert len(found) == 4 and len(manifest.cases[0].label_maps) == 2
    first, second = manifest.cases
    assert (first.id, second.id) == ("day 1_a", "day 1_b")
    assert second.label is None and second.instances == ()
    check_manifest(manifest, workers=1).raise_if_bad()


def test_what_is_left_out_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    annotations = [
        annotation(1, code(square(0, 0, 9), text=False), iscrowd=1),
        annotation(2, [], bbox=[1, 2, 3, 4]),
        annotation(3, code(square(2, 2, 2), text=True), iscrowd=0),
        annotation(4, [[5.2, 5.2, 5.3, 5.2, 5.3, 5.3]]),  # between pixels' centres
        annotation(5, code(square(8, 8, 2), text=True), category=7),
    ]
    with caplog.at_level(logging.WARNING):
        manifest, scan = converted(make(tmp_path, annotations), rename={"nucleus": ""})
    assert manifest.class_names == ("cell",)
    assert [int(mask.sum()) for _, mask in dense(scan)] == [4]
    assert [(one.class_name, one.mask.n_voxels) for one in scan.ignored] == [("cell", 81), ("cell", 12)]
    assert "1 crowd regions are ignored" in caplog.text and "1 annotations have a box but no outline" in caplog.text


@pytest.mark.parametrize("stated", [{}, {"height": None, "width": None}, {"height": 0, "width": 0}])
def test_the_picture_tells_the_size_that_the_file_does_not(tmp_path: Path, stated: dict) -> None:
    pictures = [{"id": 5, "file_name": "day 1/a.png", **stated}, {"id": 9, "file_name": "day 1/b.png"}]
    path = make(tmp_path, [annotation(1, [[6, 6, 11, 6, 11, 11, 6, 11]])], images=pictures)
    _, scan = converted(path)
    ((_, mask),) = dense(scan)
    assert np.array_equal(mask, square(6, 6, 5))
    found = read_labels(path, scan.volume)
    assert np.array_equal(found.masks[0].dense((1, HEIGHT, WIDTH))[0], mask)


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="holds boxes only: none of its 2 annotations"):
        converted(make(tmp_path, [annotation(n, [], bbox=[1, 2, 3, 4]) for n in (1, 2)]))


def test_paths_from_windows_and_other_forms_of_letters(tmp_path: Path) -> None:
    pictures = [
        {"id": 5, "file_name": "C:\\Users\\me\\images\\Sch\u00e4del.png"},
        {"id": 9, "file_name": "day 1\\B.PNG"},
    ]
    path = make(tmp_path, [annotation(1, code(square(0, 0, 3), text=True))],
                images=[one | {"height": HEIGHT, "width": WIDTH} for one in pictures])  # fmt: skip
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "images" / "Scha\u0308del.png")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    manifest, scan = converted(path)
    assert [Path(case.images[0]).name for case in manifest.cases] == ["Scha\u0308del.png", "b.png"]
    assert len(scan.objects) == 1


def test_a_file_for_each_split(tmp_path: Path) -> None:
    """Roboflow's layout: pictures beside the file, a heading as category 0."""
    categories = [
        {"id": 0, "name": "cells", "supercategory": "none"},
        {"id": 1, "name": "cell", "supercategory": "cells"},
    ]
    for folder in ("train", "valid", "test"):
        make(tmp_path / "set" / folder, [annotation(1, code(square(0, 0, 3), text=True))], place="",
             name="_annotations.coco.json", categories=categories)  # fmt: skip
    manifest = read_manifest(coco_dataset(tmp_path / "set", tmp_path / "out"))
    assert manifest.class_names == ("cell",)
    assert sorted(f"{case.id} {case.split}" for case in manifest.cases)[:2] == [
        "test_day 1_a test",
        "test_day 1_b test",
    ]
    assert {case.split for case in manifest.cases} == {"train", "val", "test"} and len(manifest.cases) == 6


def test_two_entries_for_one_picture(tmp_path: Path) -> None:
    sizes = {"height": HEIGHT, "width": WIDTH}
    pictures = [{"id": n, "file_name": f"elsewhere/{n}/a.png", **sizes} for n in (5, 9)]
    path = make(tmp_path, [], images=pictures)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "images/a.png")
    with pytest.raises(ReadError, match=r"are both of the picture .*a\.png"):
        converted(path)


@pytest.mark.parametrize(
    ("images", "name", "options"),
    [
        ("", "cells.json", {}),
        ("images", "cells.json", {}),
        ("train2017", "annotations/instances_train2017.json", {}),
        ("images/val", "annotations/cells_val.json", {}),
        ("elsewhere", "cells.json", {"images": "elsewhere"}),
    ],
)
def test_where_pictures_are_looked_for(tmp_path: Path, images: str, name: str, options: dict) -> None:
    path = make(tmp_path, [annotation(1, code(square(0, 0, 3), text=True))], place=images, name=name)
    options = {key: tmp_path / value for key, value in options.items()}
    manifest, _ = converted(path, **options)
    assert manifest.path(manifest.cases[0].images[0]) == (tmp_path / images / "day 1/a.png").resolve()


class TestErrors:
    def refused(self, path: Path, said: str, kind: type[Exception] = ReadError, **options) -> None:
        with pytest.raises(kind, match=said):
            coco_dataset(path, path.parent / "out", **options)

    def test_another_size(self, tmp_path: Path) -> None:
        path = make(tmp_path, [])
        Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "images/day 1/a.png")
        self.refused(path, r"case 'day 1_a': .*a\.png is 3 x 4 pixels .*cells\.json says 12 x 16")

    def test_no_picture(self, tmp_path: Path) -> None:
        path = make(tmp_path, [])
        (tmp_path / "images/day 1/b.png").unlink()
        self.refused(path, r"1 of 2 cases cannot be read\n.*day 1_b.*b\.png")

    @pytest.mark.parametrize(
        ("segmentation", "said"),
        [
            ({"size": [HEIGHT, WIDTH], "counts": [3, 4]}, "runs of 7 pixels"),
            ({"size": [3, 3], "counts": [9]}, "a mask of size"),
            ({"counts": [9]}, "KeyError: 'size'"),
            ([[1, 2, 3]], "ValueError"),
            ([[1, 2, "x", 4, 5, 6]], "ValueError"),
        ],
    )
    def test_damaged_outlines(self, tmp_path: Path, segmentation, said: str) -> None:
        self.refused(make(tmp_path, [annotation(1, segmentation)]), rf"(?s)cells\.json: image 5 \(day 1_a\).*{said}")

    def test_annotations_of_nothing(self, tmp_path: Path) -> None:
        self.refused(
            make(tmp_path, [annotation(1, [], image=4)]), "annotation 1 belongs to image 4, which is not there"
        )
        self.refused(make(tmp_path, [annotation(1, [], category=3)]), "annotation 1 has the unknown category 3")

    def test_no_coco(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        for content, said in (
            ("{", "no JSON"),
            ("[]", "a JSON object"),
            ('{"images": []}', "must hold 'images', 'anno"),
        ):
            path.write_text(content)
            self.refused(path, said)
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
        self.refused(path, "names no image")

    def test_two_pictures_of_one_name(self, tmp_path: Path) -> None:
        sizes = {"height": HEIGHT, "width": WIDTH}
        pictures = [{"id": n, "file_name": name, **sizes} for n, name in enumerate(("a.png", "a.jpg"))]
        self.refused(make(tmp_path, [], images=pictures), "several cases have one name: a")

    def test_unknown_names(self, tmp_path: Path) -> None:
        self.refused(make(tmp_path, []), r"unknown categories \['dog'\]", ValueError, rename={"dog": "cell"})
