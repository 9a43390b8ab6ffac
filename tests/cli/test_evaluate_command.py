"""``medmaskrcnn evaluate``, and ``medmaskrcnn.evaluate`` behind it, with a small model on cases on disk."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

import medmaskrcnn
from medmaskrcnn.errors import MedMaskRCNNError
from medmaskrcnn.evaluation.metrics.summary import MetricSettings


@pytest.fixture
def data(tmp_path, write_scan):
    """Two test cases, one whose label map is missing, and one for training; the model does not know the spleen."""
    labels = np.zeros((4, 40, 48), np.int16)
    labels[1:3, 10:25, 8:24] = 1
    labels[0, 30:36, 30:40] = 2
    cases = []
    for k, split in enumerate(("test", "test", "test", "train")):
        write_scan(tmp_path / f"scan{k}.nii.gz")
        if k != 2:
            nib.save(nib.Nifti1Image(labels.T, np.diag([1.5, 1.5, 4, 1])), tmp_path / f"labels{k}.nii.gz")
        instances = [{"value": 1, "class": "liver"}, {"value": 2, "class": "spleen"}]
        files = {"image": f"scan{k}.nii.gz", "label": f"labels{k}.nii.gz"}
        cases.append({"id": f"case{k}", "patient": f"p{k}", "split": split, "instances": instances, **files})
    path = tmp_path / "manifest.json"
    classes = ["liver", "spleen"]
    path.write_text(json.dumps({"version": 1, "name": "blocks", "class_names": classes, "cases": cases}))
    return path


def test_a_bad_case_is_told_and_the_others_count(run, data, tiny_model, tmp_path):
    ran = run("evaluate", tiny_model, data, "-o", tmp_path / "out", "--replicates", 50)
    assert ran.code == 1
    assert "case2" in ran.err and "labels2.nii.gz" in ran.err
    assert "tiny on 2 cases of blocks, test" in ran.out
    assert "not judged" in ran.out and "spleen" in ran.out and "left kidney" in ran.out
    document = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert document["class_names"] == ["liver"] and document["n_cases"] == 2
    assert [failed["id"] for failed in document["failed"]] == ["case2"]
    assert document["classes"]["liver"]["references"] == 2
    assert document["model"]["name"] == "tiny" and len(document["model"]["sha256"]) == 64
    assert "case2" in (tmp_path / "out" / "evaluation.html").read_text()
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        "evaluation.json",
        "cases.csv",
        "froc.png",
        "evaluation.html",
    }


def test_tables_by_the_labels_of_the_cases(run, data, tiny_model):
    document = json.loads(data.read_text())
    for case, scanner in zip(document["cases"], "ABAB", strict=True):
        case["case_labels"] = {"scanner": scanner}
    data.write_text(json.dumps(document))
    ran = run("evaluate", tiny_model, data, "--ids", "case0,case1", "--by", "scanner", "--replicates", 20)
    assert ran.code == 0, ran.err
    assert "by scanner" in ran.out
    ran = run("evaluate", tiny_model, data, "--ids", "case0,case1", "--by", "sex")
    assert ran.code == 2 and "--by" in ran.err and "scanner" in ran.err


def test_json_is_all_that_stdout_gets(run, data, tiny_model):
    ran = run("evaluate", tiny_model, data, "--ids", "case0, case3", "--json", "--operating-score", "0.99")
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert {case["id"] for case in document["cases"]} == {"case0", "case3"}
    assert document["model"]["precision"] in ("fp32", "bf16") and document["model"]["engine"].startswith("torch ")
    assert document["operating_score"] == 0.99
    assert document["dataset"] == {"name": "blocks", "split": "chosen cases"}
    assert document["overall"]["predictions"] == 0


def test_the_precision_asked_for_is_that_of_the_figures(run, data, tiny_model):
    ran = run("evaluate", tiny_model, data, "--ids", "case0", "--json", "--precision", "bf16", "--engine", "torch")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["model"]["precision"] == "bf16"
    assert "has no 8-bit form" in run("evaluate", tiny_model, data, "--precision", "int8", "--engine", "openvino").err


def test_what_is_not_there_is_told(run, data, tiny_model, tmp_path):
    assert "no case in split 'val'" in run("evaluate", tiny_model, data, "--split", "val").err
    assert "no case nobody" in run("evaluate", tiny_model, data, "--ids", "nobody").err
    assert run("evaluate", "no-such-model", data).code == 2
    assert run("evaluate", tiny_model, tmp_path / "nothing.json").code == 1


def test_from_python(data, tiny_model):
    seen = []
    settings = MetricSettings(replicates=0, surfaces=False)
    got = medmaskrcnn.evaluate(
        tiny_model, data, cases=["case1"], score=0.0, settings=settings, progress=lambda *a: seen.append(a)
    )
    assert seen == [(0, 1), (1, 1)]
    (case,) = got.cases
    assert case.seconds is not None and case.patient == "p1"
    assert got.overall.predictions == sum(o.predicted is not None for o in case.objects) > 0
    assert got.overall.outline["hd95"].value is None
    with pytest.raises(MedMaskRCNNError, match="none of 1 cases"):
        medmaskrcnn.evaluate(tiny_model, data, cases=["case2"])


def with_classes(data, *names):
    """The manifest with other names of its two classes."""
    document = json.loads(data.read_text())
    document["class_names"] = list(names)
    for case in document["cases"]:
        for instance, name in zip(case["instances"], names, strict=True):
            instance["class"] = name
    data.write_text(json.dumps(document))


def test_model_and_data_without_a_common_class(run, data, tiny_model):
    with_classes(data, "spleen", "left kidney stone")
    with pytest.raises(ValueError, match=r"the model has liver, left kidney; the manifest has spleen, left kidney st"):
        medmaskrcnn.evaluate(tiny_model, data)
    ran = run("evaluate", tiny_model, data)
    assert ran.code == 2 and "--rename" in ran.err and "internal" not in ran.err
    for name in ("liver", "left kidney", "spleen", "left kidney stone"):
        assert name in ran.err


def test_classes_that_are_spelt_otherwise(run, data, tiny_model):
    with_classes(data, "LIVER", "Kidney_Left")
    ran = run("evaluate", tiny_model, data, "--ids", "case0", "--replicates", 0)
    assert ran.code == 0, ran.err
    assert "left kidney = Kidney_Left" in ran.out and "not judged" not in ran.out


def test_classes_renamed_by_the_user(run, data, tiny_model):
    with_classes(data, "hepar", "spleen")
    ran = run("evaluate", tiny_model, data, "--ids", "case0", "--rename", "hepar=liver", "--json", "--replicates", 0)
    assert ran.code == 0, ran.err
    document = json.loads(ran.out)
    assert document["class_names"] == ["liver"] and document["spelt_otherwise"] == {"hepar": "liver"}
    assert document["only_predicted"] == ["left kidney"] and document["only_reference"] == ["spleen"]
    assert document["classes"]["liver"]["references"] == 1
    for wrong in ("hepar", "brain=liver"):
        ran = run("evaluate", tiny_model, data, "--rename", wrong)
        assert ran.code == 2 and wrong.partition("=")[0] in ran.err


def test_aliases_of_the_card(run, data, save_tiny, tmp_path):
    with_classes(data, "Hepar", "spleen")
    model = save_tiny(tmp_path / "alias.safetensors", aliases={"liver": ["hepar"]})
    ran = run("evaluate", model, data, "--ids", "case0", "--json", "--replicates", 0)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["class_names"] == ["Hepar"]


def test_shipped_models_know_the_names_of_their_own_data(medmaskrcnn_data):
    """As the data sets' own files name the classes, and as folders of masks are read."""
    from medmaskrcnn.hub.model_file import read_model_settings, resolve_model
    from medmaskrcnn.structures.class_names import match_class_names

    own = {"hippocampus-mr": "Task04_Hippocampus", "abdomen-mr": "AbdomenMR", "sarcoma-mr": "SarcomaMR"}
    names = {"nuclei": ["object"]}
    for model, folder in own.items():
        labels = json.loads((medmaskrcnn_data / folder / "dataset.json").read_text())["labels"]
        names[model] = [name for value, name in labels.items() if int(value)]
    for model, there in names.items():
        settings = read_model_settings(resolve_model(model))
        match = match_class_names(settings.model.class_names, there, aliases=settings.card.aliases)
        assert (match.only_first, match.only_second) == ((), ()), model
