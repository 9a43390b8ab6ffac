"""The manifest: what it must hold, and what the user is told where it does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medmaskrcnn.data.manifest import Manifest, read_manifest
from medmaskrcnn.errors import ReadError

Labelled = Callable[..., Path]


def test_what_is_written_is_read(labelled: Labelled) -> None:
    path = labelled()
    manifest = read_manifest(path)
    assert manifest.class_names == ("liver", "tumour") and manifest.modality == "CT"
    (case,) = manifest.cases
    assert manifest.path(case.image) == path.parent / "scan.nii.gz"
    assert [(i.value, i.class_name, i.part_of) for i in case.instances] == [(1, "liver", None), (2, "tumour", 1)]


def test_relative_paths_start_at_the_manifest(labelled: Labelled, monkeypatch: pytest.MonkeyPatch) -> None:
    path = labelled()
    monkeypatch.chdir(path.parent)
    manifest = read_manifest("manifest.json")
    monkeypatch.chdir("/")
    assert manifest.path(manifest.cases[0].image).is_file()
    assert manifest.path("/elsewhere/x.nii.gz") == Path("/elsewhere/x.nii.gz")


DOCS = Path(__file__).parents[2] / "docs"


def test_the_schema_in_the_docs_is_the_definition() -> None:
    written = json.loads((DOCS / "manifest.schema.json").read_text())
    assert written == Manifest.model_json_schema(by_alias=True, mode="serialization")


def test_the_example_in_the_docs_is_a_manifest() -> None:
    text = (DOCS / "training-data.md").read_text()
    manifest = Manifest.model_validate_json(text.split("```json\n")[1].split("```")[0])
    assert manifest.cases[0].images == ("p1_a_t1.nii.gz", "p1_a_t2.nii.gz")


def test_manifests_without_the_newer_keys_are_read(labelled: Labelled) -> None:
    (case,) = read_manifest(labelled()).cases
    assert (case.fold, case.case_labels, [i.map for i in case.instances]) == (None, {}, [0, 0])


def case_with(*instances: dict[str, Any], name: str = "c1") -> dict[str, Any]:
    return {"id": name, "patient": "p", "image": "i", "label": "l", "split": None, "instances": list(instances)}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 2}, "version: "),
        ({"surplus": 1}, "surplus: Extra inputs"),
        ({"cases": [{"id": "x"}]}, r"cases\.0\.patient: Field required"),
        ({"cases": [case_with({"value": 1, "class": "spleen"})]}, r"case c1 names classes.*lacks: \['spleen'\]"),
        ({"cases": [case_with({"value": 0, "class": "liver"})]}, r"cases\.0\.instances\.0\.value"),
        ({"cases": [case_with(*[{"value": 1, "class": "liver"}] * 2)]}, "gives one value to two instances"),
        ({"cases": [case_with({"value": 1, "class": "tumour", "part_of": 7})]}, r"part of none of its .*: \{7\}"),
        ({"cases": [case_with(), case_with()]}, r"these case ids occur twice: \['c1'\]"),
        ({"cases": [{**case_with(), "split": "holdout"}]}, r"cases\.0\.split"),
        ({"cases": [case_with({"value": 1})]}, "value 1 has no class"),
        ({"cases": [{**case_with(), "annotated": ["spleen"]}]}, r"case c1 names classes.*lacks: \['spleen'\]"),
        ({"cases": [{**case_with(), "annotated": ["liver", "liver"]}]}, "annotated class twice"),
        (
            {"cases": [{**case_with({"value": 1, "class": "tumour"}), "annotated": ["liver"]}]},
            r"case c1 holds instances of classes that it does not name as annotated: \['tumour'\]",
        ),
    ],
)
def test_a_manifest_that_contradicts_itself(labelled: Labelled, changes: dict[str, Any], words: str) -> None:
    path = labelled(**changes)
    with pytest.raises(ReadError, match=f"manifest.json is no manifest: .*{words}"):
        read_manifest(path)


def test_classes_annotated_in_a_case_and_regions_to_ignore(labelled: Labelled) -> None:
    ignored = [{"value": 3, "ignore": True}, {"value": 4, "class": "tumour", "ignore": True}]
    cases = [
        {**case_with({"value": 1, "class": "liver"}, *ignored), "annotated": ["liver"]},
        {**case_with(name="c2"), "annotated": []},
        case_with(name="c3"),
    ]
    manifest = read_manifest(labelled(cases=cases))
    one, none, all_of_them = manifest.cases
    assert [i.ignore for i in one.instances] == [False, True, True] and one.instances[1].class_name is None
    assert [manifest.annotated_in(case) for case in (one, none, all_of_them)] == [("liver",), (), ("liver", "tumour")]
    assert all_of_them.annotated is None


def test_files_that_are_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"cannot read manifest .*nothing\.json: No such file"):
        read_manifest(tmp_path / "nothing.json")
    with pytest.raises(ReadError, match="cannot read manifest"):
        read_manifest(tmp_path)
    for name, content, words in (
        ("text.json", b"organs", "is no manifest: Invalid JSON"),
        ("list.json", b"[]", "is no manifest: "),
        ("bytes.json", b"\xff\xfe\x00\x81", "is not a text file"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match=words):
            read_manifest(tmp_path / name)
