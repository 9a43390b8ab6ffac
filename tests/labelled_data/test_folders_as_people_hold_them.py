"""Layouts, leftovers and masks as programs write them: the sound are read, the others refused with the reason."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medmaskrcnn.data.case_labels import read_case
from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError
from medmaskrcnn_datasets.convert import ConversionOptions, detect_format, to_manifest
from medmaskrcnn_datasets.objects import ClassRules

SIZE = (40, 48)


def blobs(seed: int, n: int = 3) -> np.ndarray:
    """``n`` squares, numbered from 1, moved a little by the seed."""
    values = np.zeros(SIZE, np.uint8)
    for number in range(n):
        top, left = 3 + 12 * (number % 3), 4 + 14 * (number // 3) + seed % 4
        values[top : top + 7, left : left + 8] = number + 1
    return values


def image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, SIZE).astype(np.uint8)).save(path)
    return path


def mask(path: Path, values: np.ndarray, mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Image.fromarray(values)
    if mode == "P":
        made = made.convert("P")
        made = Image.fromarray(values, mode="P") if made.mode != "P" else made
        made.putdata(values.ravel().tolist())
        made.putpalette([number * 7 % 256 for number in range(768)])
    elif mode == "1":
        made = Image.fromarray(values > 0)
    elif mode != "L":
        made = made.convert(mode)
    made.save(path)
    return path


def pictures(root: Path, n: int = 4, *, ending: str = "", write: Callable[[Path, int], None] | None = None) -> Path:
    for number in range(n):
        image(root / "images" / f"cell {number}.png", number)
        path = root / "masks" / f"cell {number}{ending}.png"
        if write is None:
            mask(path, blobs(number, 2 + number))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path, number)
    return root


def converted(root: Path, told: list[str] | None = None) -> Manifest:
    say = (told if told is not None else []).append
    return read_manifest(to_manifest(root, root.with_name(f"{root.name}-out"), on_event=say))


def objects(manifest: Manifest) -> list[int]:
    return [len(read_case(manifest, case).objects) for case in manifest.cases]


LEFTOVERS = {
    "Thumbs.db": b"\xd0\xcf\x11\xe0",
    "desktop.ini": b"[x]",
    ".DS_Store": b"\0",
    "._cell 0.png": b"\0\x05\x16\x07",
    "readme.txt": b"notes",
    "cell 0.xmp": b"<x/>",
    "~$cell.docx": b"PK",
}


@pytest.mark.parametrize(("name", "content"), LEFTOVERS.items())
def test_leftovers_are_passed_over(tmp_path: Path, name: str, content: bytes) -> None:
    root = pictures(tmp_path / "set")
    for folder in ("images", "masks"):
        (root / folder / name).write_bytes(content)
        (root / folder / ".ipynb_checkpoints").mkdir()
        (root / folder / ".ipynb_checkpoints/cell 0-checkpoint.png").write_bytes(b"x")
    (root / "__MACOSX/images").mkdir(parents=True)
    assert objects(converted(root)) == [2, 3, 4, 5]


def test_names_in_another_form_of_unicode(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set", 2)
    for folder, form in (("images", "NFC"), ("masks", "NFD")):
        (root / folder / "cell 0.png").rename(root / folder / unicodedata.normalize(form, "Schädel.png"))
    manifest = converted(root)
    assert sorted(case.id for case in manifest.cases) == ["Schädel", "cell 1"]
    assert sum(objects(manifest)) == 5


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA"])
def test_masks_of_numbers_however_stored(tmp_path: Path, mode: str) -> None:
    root = pictures(tmp_path / "set", write=lambda path, n: mask(path, blobs(n, 2 + n), mode) and None)
    assert objects(converted(root)) == [2, 3, 4, 5]


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P"])
def test_masks_that_only_say_what_is_inside(tmp_path: Path, mode: str) -> None:
    """0 and 255, or one bit: each connected part is an object."""

    def write(path: Path, n: int) -> None:
        mask(path, (blobs(n, 2 + n) > 0).astype(np.uint8) * (1 if mode == "P" else 255), mode)

    told: list[str] = []
    assert objects(converted(pictures(tmp_path / "set", write=write), told)) == [2, 3, 4, 5]
    assert any("one number only, in 14 separate parts in 4 cases" in text for text in told)


def test_masks_of_one_in_some_pictures_and_of_255_in_others(tmp_path: Path) -> None:
    def write(path: Path, n: int) -> None:
        mask(path, (blobs(n, 2 + n) > 0).astype(np.uint8) * (255 if n % 2 else 1))

    manifest = converted(pictures(tmp_path / "set", write=write))
    assert objects(manifest) == [2, 3, 4, 5] and not any(i.ignore for case in manifest.cases for i in case.instances)


def test_the_border_of_pascal_voc_is_ignored(tmp_path: Path) -> None:
    root = tmp_path / "VOC"
    for number in range(3):
        values = blobs(number, 3)
        values[2, :] = 255
        image(root / "JPEGImages" / f"{number}.jpg", number)
        mask(root / "SegmentationObject" / f"{number}.png", values, "P")
    image(root / "JPEGImages/unlabelled.jpg")
    manifest = converted(root)
    assert len(manifest.cases) == 3 and objects(manifest) == [3, 3, 3]
    assert [len(read_case(manifest, case).ignored) for case in manifest.cases] == [1, 1, 1]


def voc(root: Path, write_class: bool = True) -> Path:
    """Three pictures of three objects, of the classes 9 and 15, with a border of 255 in both maps."""
    for number in range(3):
        values = blobs(number, 3)
        classes = np.select([values == 2, values > 0], [15, 9]).astype(np.uint8)
        classes[values.nonzero()[0][0], values.nonzero()[1][0]] = 15  # a slip in one pixel of an object
        values[2, :], classes[2, :] = 255, 255
        image(root / "JPEGImages" / f"{number}.jpg", number)
        mask(root / "SegmentationObject" / f"{number}.png", values, "P")
        if write_class:
            mask(root / "SegmentationClass" / f"{number}.png", classes, "P")
    return root


def classes_of(manifest: Manifest) -> list[list[str | None]]:
    return [[i.class_name for i in case.instances if not i.ignore] for case in manifest.cases]


def test_classes_of_pascal_voc(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOC")
    told: list[str] = []
    assert classes_of(converted(root, told)) == [["label 9", "label 15", "label 9"]] * 3
    assert any("label 9, label 15" in text for text in told)
    (root / "Annotations").mkdir()
    boxes = "<annotation><object>\n\t<name>person</name><part><name>head</name></part></object></annotation>"
    (root / "Annotations/0.xml").write_text(boxes)
    manifest = converted(root)
    assert classes_of(manifest) == [["chair", "person", "chair"]] * 3 and manifest.class_names == ("chair", "person")
    assert [len(read_case(manifest, case).ignored) for case in manifest.cases] == [1, 1, 1]
    names = ["_background_", *(f"c{n}" for n in range(1, 16))]
    (root / "class_names.txt").write_text("\n".join(["__ignore__", *names]))
    assert classes_of(converted(root)) == [["c9", "c15", "c9"]] * 3
    (root / "class_names.txt").write_text("\n".join(names[1:]))  # without the background
    assert classes_of(converted(root)) == [["c9", "c15", "c9"]] * 3
    (root / "class_names.txt").unlink()
    rows = [f"{name.strip('_')}:{n},0,0::" for n, name in enumerate(names)]
    (root / "labelmap.txt").write_text("\n".join(["# label:color_rgb:parts:actions", *rows]))
    assert classes_of(converted(root)) == [["c9", "c15", "c9"]] * 3


def test_classes_of_pascal_voc_as_somebody_says(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOC")
    said = ConversionOptions(ClassRules("auto", rename={"other": ""}), {9: "cell", 15: "other"})
    manifest = read_manifest(to_manifest(root, tmp_path / "out", options=said))
    assert classes_of(manifest) == [["cell", "cell"]] * 3


def test_classes_of_pascal_voc_that_are_missing(tmp_path: Path) -> None:
    root = voc(tmp_path / "VOC")
    (root / "SegmentationClass/1.png").rename(tmp_path / "kept.png")
    with pytest.raises(ReadError, match=r"1 maps of SegmentationObject have none of classes.*1\.png"):
        converted(root)
    mask(root / "SegmentationClass/1.png", np.zeros(SIZE, np.uint8), "P")
    with pytest.raises(ReadError, match=r"object 1 of 1\.png has no class"):
        converted(root)


def jpeg(path: Path, n: int) -> None:
    Image.fromarray(blobs(n) * 50).save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").rename(path)  # its bytes tell what it is


def soft(path: Path, n: int) -> None:
    """A mask that was resized by interpolation."""
    small = Image.fromarray(blobs(n, 9) * 28)
    small.resize((31, 27), Image.Resampling.BICUBIC).resize(SIZE[::-1], Image.Resampling.BICUBIC).save(path)


def smooth(path: Path, n: int) -> None:
    """A mask of 0 and 255 that was resized by interpolation: few numbers between."""
    inside = Image.fromarray((blobs(n) > 0).astype(np.uint8) * 255)
    inside.resize((96, 80), Image.Resampling.BILINEAR).resize(SIZE[::-1], Image.Resampling.BILINEAR).save(path)


def colours(path: Path, n: int) -> None:
    table = np.random.default_rng(0).integers(1, 255, (20, 3)).astype(np.uint8)
    table[0] = 0
    Image.fromarray(table[blobs(n)]).save(path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (jpeg, "is a JPEG, whose lossy compression changes the numbers"),
        (soft, "different numbers, many of them single pixels"),
        (smooth, "different numbers, many of them single pixels"),
        (colours, "is a picture of 4 colours, not a label map"),
    ],
)
def test_masks_that_are_no_labels(tmp_path: Path, write: Callable[[Path, int], None], said: str) -> None:
    with pytest.raises(ReadError, match=said):
        converted(pictures(tmp_path / "set", write=write))


def test_labels_without_an_image(tmp_path: Path) -> None:
    root = pictures(tmp_path / "set")
    (root / "images/cell 2.png").unlink()
    with pytest.raises(ReadError, match=r"masks holds label maps without an image in .*images: cell 2\.png"):
        converted(root)


@pytest.mark.parametrize(
    "form",
    [
        "images/{split}/{n}.png masks/{split}/{n}.png",
        "{split}/images/{n}.png {split}/masks/{n}.png",
        "{split}/{n}.jpg {split}/{n}_mask.png",
    ],
)
def test_folders_of_splits(tmp_path: Path, form: str) -> None:
    for split, count in (("train", 4), ("valid", 2), ("test", 2)):
        for number in range(count):
            one, other = (tmp_path / "set" / part.format(split=split, n=number) for part in form.split())
            image(one, number)
            mask(other, blobs(number, 2 + number))
    told: list[str] = []
    manifest = converted(tmp_path / "set", told)
    assert sorted(str(case.split) for case in manifest.cases) == ["test"] * 2 + ["train"] * 4 + ["val"] * 2
    assert sum(objects(manifest)) == 14 + 5 + 5 and any("the splits are the data set's own" in text for text in told)


@pytest.mark.parametrize("ending", ["_cp_masks.png", "_cp_masks.tif", "_mask.png", "_seg.png"])
def test_masks_beside_their_images(tmp_path: Path, ending: str) -> None:
    for number in range(3):
        image(tmp_path / "set" / f"well_{number}.png", number)
        mask(tmp_path / "set" / f"well_{number}{ending}", blobs(number, 2 + number))
    (tmp_path / "set/well_0_seg.npy").write_bytes(b"\x93NUMPY")
    assert detect_format(tmp_path / "set") == "instances" and objects(converted(tmp_path / "set")) == [2, 3, 4]


def test_images_and_masks_without_each_other_beside_them(tmp_path: Path) -> None:
    for number in range(4):
        image(tmp_path / "set" / f"w{number}.png", number)
        mask(tmp_path / "set" / f"w{number}_mask.png", blobs(number))
    (tmp_path / "set/w1.png").unlink()
    (tmp_path / "set/w2_mask.png").unlink()
    with pytest.raises(ReadError, match=r"2 files of .*: w2\.png, w1_mask\.png"):
        converted(tmp_path / "set")


def test_names_that_begin_with_what_the_file_is(tmp_path: Path) -> None:
    """LiTS: volume-0 and segmentation-0; unpacked into a folder in a folder."""
    for number in range(3):
        image(tmp_path / "set/inner/images" / f"volume-{number}.png", number)
        mask(tmp_path / "set/inner/labels" / f"segmentation-{number}.png", blobs(number, 2 + number))
    assert objects(converted(tmp_path / "set")) == [2, 3, 4]


def test_a_folder_of_one_picture_that_lacks_a_half(tmp_path: Path) -> None:
    for number in range(3):
        image(tmp_path / "set" / str(number) / "images/a.png", number)
        mask(tmp_path / "set" / str(number) / "masks/0.png", blobs(number, 1))
    (tmp_path / "set/1/images/a.png").unlink()
    (tmp_path / "set/1/images").rmdir()
    with pytest.raises(ReadError, match=r"1 folders of .* lack their images/ or masks/: 1\."):
        converted(tmp_path / "set")


def test_cellpose_masks_in_a_folder(tmp_path: Path) -> None:
    assert objects(converted(pictures(tmp_path / "set", ending="_cp_masks"))) == [2, 3, 4, 5]


def test_numbers_of_classes_in_pictures(tmp_path: Path) -> None:
    """The same two numbers in every picture, each in several parts: classes, whose parts are objects."""

    def write(path: Path, n: int) -> None:
        values = blobs(n, 6)
        mask(path, np.where(values > 3, 2, values > 0).astype(np.uint8))

    manifest = converted(pictures(tmp_path / "set", write=write))
    assert manifest.class_names == ("label 1", "label 2") and objects(manifest) == [6, 6, 6, 6]


def test_slices_of_one_patient_stay_together(tmp_path: Path) -> None:
    for patient in range(5):
        for number in range(6):
            name = f"pat{patient}_slice_{number:02d}.png"
            image(tmp_path / "set/images" / name, number)
            mask(tmp_path / "set/masks" / name, blobs(number, 4 + patient))
    told: list[str] = []
    manifest = converted(tmp_path / "set", told)
    assert {case.patient for case in manifest.cases} == {f"pat{n}" for n in range(5)}
    assert any("30 cases are taken to be of 5 patients by their names" in text for text in told)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", '{"shapes": [], "imagePath": "a.png"}', "an annotation of LabelMe"),
        ("via.json", '{"_via_img_metadata": {}}', "VGG Image Annotator"),
        ("via.json", '{"a.png123": {"filename": "a.png", "size": 1, "regions": []}}', "VGG Image Annotator"),
        ("labels/a.txt", "0 0.5 0.5 0.2 0.2\n", "a label file of YOLO"),
        ("Annotations/a.xml", "<annotation><object><bndbox></bndbox></object></annotation>", "annotation of boxes"),
        ("annotations.xml", "<annotations><version>1.1</version></annotations>", "an export of CVAT"),
        ("a.geojson.json", '{"type": "FeatureCollection", "features": []}', "GeoJSON"),
        ("a_seg.npy", "x", "a result of cellpose"),
        ("coco.json", '{"images": [], "categories": []}', "a COCO file without annotations"),
    ],
)
def test_labels_of_other_programs_are_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    root = tmp_path / "set"
    image(root / "images/a.png")
    (root / name).parent.mkdir(exist_ok=True)
    (root / name).write_text(content)
    with pytest.raises(ReadError, match=said):
        converted(root)
