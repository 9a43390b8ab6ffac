"""COCO as pycocotools reads it; surfaces that are closed, face outwards and lie where the instance does."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as judge
from pycocotools.coco import COCO

from medmaskrcnn.errors import ReadError
from medmaskrcnn.export.coco import coco_document, write_coco
from medmaskrcnn.export.meshes import instance_surface, mesh_names, surface, write_mesh
from medmaskrcnn.io.labels.coco import read_coco
from medmaskrcnn.structures.case_result import CaseResult
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.rle import rle_decode, rle_encode, rle_from_string, run_lengths
from medmaskrcnn.structures.volume import Volume

Case = tuple[CaseResult, Volume]
MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))
SOLIDS = hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4)))


@given(MASKS)
def test_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    text = rle_encode(run_lengths(mask))
    assert text.encode() == judge.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert rle_from_string(text) == run_lengths(mask)
    np.testing.assert_array_equal(rle_decode(rle_from_string(text), *mask.shape), mask)


@given(st.lists(st.integers(0, 1 << 20), max_size=20))
def test_long_runs_pack_and_unpack(runs: list[int]) -> None:
    assert rle_from_string(rle_encode(runs)) == runs


@pytest.mark.parametrize("text", ["P", "\x7f", "a b"])
def test_damaged_codes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"cut short|cannot hold"):
        rle_from_string(text)


def test_runs_that_do_not_fill_the_mask() -> None:
    with pytest.raises(ValueError, match="cannot fill"):
        rle_decode([3, 2], 2, 2)


def test_pycocotools_reads_the_file(case: Case, tmp_path: Path) -> None:
    result = case[0]
    path = tmp_path / "coco.json"
    with path.open("wb") as stream:
        write_coco(result, stream)
    coco = COCO(str(path))
    found = result.instances
    assert [c["name"] for c in coco.loadCats(coco.getCatIds())] == list(found.class_names)
    for i, mask in enumerate(found.masks):
        back = np.zeros(found.grid.shape, bool)
        for annotation in coco.dataset["annotations"]:
            if annotation["instance_id"] == i + 1:
                plane = coco.annToMask(annotation)
                back[annotation["image_id"] - 1] = plane
                assert annotation["area"] == plane.sum()
                np.testing.assert_allclose(annotation["bbox"], judge.toBbox(coco.annToRLE(annotation)))
        np.testing.assert_array_equal(back, mask.dense(found.grid.shape))


def test_the_instances_come_back(case: Case, tmp_path: Path) -> None:
    found = case[0].instances
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_document(case[0])))
    back = read_coco(path, found.grid)
    assert back.class_names == found.class_names
    np.testing.assert_array_equal(back.labels, found.labels)
    np.testing.assert_array_equal(back.scores, found.scores)
    assert back.masks == found.masks


def test_polygons_and_one_picture_of_several(tmp_path: Path) -> None:
    """A square from (1, 1) to (3, 4) covers the pixels 1 and 2 across and 1 to 3 down."""
    images = [{"id": k, "file_name": f"dir/{name}.png", "height": 5, "width": 6} for k, name in enumerate("abc")]
    square = {"image_id": 1, "category_id": 7, "segmentation": [[1, 1, 3, 1, 3, 4, 1, 4]]}
    other = {**square, "image_id": 2}
    document = {"images": images, "categories": [{"id": 7, "name": "cell"}], "annotations": [other, square]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    found = read_coco(path, Grid((1, 5, 6), np.eye(4)), picture="b")
    assert (found.class_names, len(found)) == (("cell",), 1)
    assert (found.masks[0].start, found.masks[0].end) == ((0, 1, 1), (1, 4, 3))
    assert found.masks[0].array.all()
    with pytest.raises(ReadError, match="must hold 1 images of 5 x 6"):
        read_coco(path, Grid((1, 5, 6), np.eye(4)), picture="d")
    with pytest.raises(ReadError, match="must hold 1 images of 5 x 7"):
        read_coco(path, Grid((1, 5, 7), np.eye(4)), picture="b")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"images": [], "categories": [], "annotations": 3}', "[" * 100000])
def test_what_is_no_coco_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ReadError, match=r"COCO JSON|must hold"):
        read_coco(path, Grid((1, 5, 6), np.eye(4)))


def test_empty_and_same_bytes(ct: Volume, ct_case: Case, put_masks: Callable[..., CaseResult]) -> None:
    empty = coco_document(put_masks(ct, {"liver": []}))
    assert (empty["annotations"], len(empty["images"]), len(empty["categories"])) == ([], 6, 1)
    texts = []
    for _ in range(2):
        stream = io.BytesIO()
        write_coco(ct_case[0], stream)
        texts.append(stream.getvalue())
    assert texts[0] == texts[1]


def enclosed(points: np.ndarray, triangles: np.ndarray) -> float:
    """Volume within a closed surface; positive where the triangles face outwards."""
    a, b, c = points[triangles].swapaxes(0, 1)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def directed_edges(triangles: np.ndarray) -> Counter[tuple[int, int]]:
    return Counter((int(t[k]), int(t[(k + 1) % 3])) for t in triangles for k in range(3))


@given(SOLIDS)
def test_surfaces_are_closed(mask: np.ndarray) -> None:
    """Each edge is gone along as often one way as the other."""
    points, triangles = surface(mask)
    edges = directed_edges(triangles)
    assert all(edges[(b, a)] == n for (a, b), n in edges.items())
    assert bool(len(triangles)) == bool(mask.any())
    assert enclosed(points, triangles) >= -1e-12


def test_a_ball() -> None:
    grid = np.mgrid[:31, :31, :31] - 15
    ball = (grid**2).sum(axis=0) <= 12**2
    points, triangles = surface(ball)
    assert enclosed(points, triangles) == pytest.approx(4 / 3 * np.pi * 12**3, rel=0.02)
    assert np.linalg.norm(points - 15, axis=1) == pytest.approx(12, abs=1)
    assert len(points) - len(directed_edges(triangles)) // 2 + len(triangles) == 2  # Euler: one sphere


@pytest.mark.parametrize("flip", [1, -1])
def test_meshes_lie_where_the_instance_does_and_face_outwards(put_masks: Callable[..., CaseResult], flip: int) -> None:
    affine = np.array([[0, 0, 1.5 * flip, 10], [0, 2.0, 0.2, -5], [3.0, 0, 0, 7], [0, 0, 0, 1]])
    mask = np.zeros((12, 14, 16), bool)
    mask[3:9, 4:10, 5:13] = True
    volume = Volume(np.zeros((1, *mask.shape), np.int16), Grid(mask.shape, affine))
    result = put_masks(volume, {"liver": [mask]})
    points, triangles = instance_surface(result, 0)
    inner = result.instances.grid.voxel_volume_unit3 * 6 * 6 * 8
    assert enclosed(points, triangles) == pytest.approx(inner, rel=0.12)  # corners and edges are cut
    assert enclosed(points, triangles) > 0
    centre = volume.grid.index_to_ras(np.argwhere(mask).mean(axis=0)) * [-1, -1, 1]
    assert (points.min(axis=0) + points.max(axis=0)) / 2 == pytest.approx(centre, abs=1e-6)


def test_stl(ct_case: Case) -> None:
    stream = io.BytesIO()
    write_mesh(ct_case[0], 1, stream)
    data = stream.getvalue()
    n = int(np.frombuffer(data[80:84], "<u4")[0])
    assert b"SPACE=LPS;UNIT=mm" in data[:80]
    assert len(data) == 84 + 50 * n
    records = np.frombuffer(data[84:], np.dtype([("n", "<f4", 3), ("c", "<f4", (3, 3)), ("a", "<u2")]))
    assert np.linalg.norm(records["n"], axis=1) == pytest.approx(1, abs=1e-5)
    points, triangles = instance_surface(ct_case[0], 1)
    np.testing.assert_allclose(records["c"], points[triangles], rtol=1e-5)
    assert mesh_names(ct_case[0]) == ["001_liver.stl", "002_liver_tumour.stl", "003_left_kidney.stl"]
