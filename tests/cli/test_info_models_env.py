"""``info``, ``models`` and ``env``: what they say."""

from __future__ import annotations

import getpass
import json
import platform
import sys
from pathlib import Path

import numpy as np
import pytest

import medmaskrcnn
from medmaskrcnn.cli.env import cpu_features
from medmaskrcnn.cli.info import fitting_models
from medmaskrcnn.settings import ModelCard


def test_version(run):
    assert run("--version").out.strip() == f"medmaskrcnn {medmaskrcnn.__version__}"


@pytest.mark.parametrize("command", ["segment", "info", "models", "demo", "env"])
def test_help_shows_examples_and_exit_codes(run, command):
    ran = run(command, "--help")
    assert ran.code == 0
    assert f"  medmaskrcnn {command}" in ran.out
    assert "0 all right, 1 some case failed or was refused, 2 wrong use" in ran.out


def test_no_command_shows_the_help_as_wrong_use(run):
    ran = run()
    assert ran.code == 2
    assert "segment" in ran.out + ran.err


def test_info_tells_geometry_and_reasons(run, ct_series, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "ct").symlink_to(ct_series)
    for number, file in enumerate(sorted(ct_series.iterdir())):
        (tmp_path / f"{number}").write_bytes(file.read_bytes())
    ran = run("info", tmp_path)
    assert ran.code == 0
    assert "6 x 48 x 48" in ran.out
    assert "40 x 8 x 8" in ran.out
    assert "S P L" in ran.out
    assert "notes.txt\n     cannot be segmented: " in ran.out


def test_info_as_json_is_a_list_of_scans(run, ct_series):
    (one,) = json.loads(run("info", ct_series, "--json").out)
    assert one["modality"] == "CT"
    assert one["shape"] == [1, 6, 48, 48]
    assert one["spacing_mm"] == pytest.approx([40, 8, 8])
    assert one["segmentable"] is True
    assert one["number"] == 1


def test_info_of_a_result_shows_what_was_found(run, scan, tiny_model, tmp_path):
    out = tmp_path / "out"
    shown = run("segment", scan, "-o", out, "--model", tiny_model).out
    for path in (out, out / "instances.npz"):
        ran = run("info", path)
        assert ran.code == 0
        table = [line for line in shown.splitlines() if " liver " in line]
        assert table
        assert all(line in ran.out for line in table)
        assert "tiny" in ran.out
    assert json.loads(run("info", out, "--json").out) == json.loads((out / "result.json").read_text())


def test_info_of_a_folder_of_results_shows_each(run, scan, write_scan, tiny_model, tmp_path):
    other = write_scan(tmp_path / "other.nii.gz")
    run("segment", scan, other, "-o", tmp_path / "out", "--model", tiny_model, "-q")
    ran = run("info", tmp_path / "out")
    assert [name in ran.out for name in ("other", "scan")] == [True, True]
    assert len(json.loads(run("info", tmp_path / "out", "--json").out)) == 2


def test_info_of_a_model_shows_its_card(run, tiny_model):
    ran = run("info", tiny_model)
    assert ran.code == 0
    assert "Random weights." in ran.out
    assert "liver, left kidney" in ran.out
    assert "CC0-1.0" in ran.out
    card = json.loads(run("info", tiny_model, "--json").out)
    assert card["kind"] == "model"
    assert card["classes"] == ["liver", "left kidney"]
    assert card["file"] == tiny_model.name


@pytest.mark.parametrize("name", ["nothing.npz", "nothing.safetensors", "nothing.nii"])
def test_info_of_what_is_not_there(run, tmp_path, name):
    ran = run("info", tmp_path / name)
    assert ran.code == 1
    assert name in ran.err


@pytest.mark.parametrize("name", ["broken.npz", "broken.safetensors", "broken.nii", "broken.dcm"])
def test_info_of_noise(run, tmp_path, name):
    (tmp_path / name).write_bytes(np.random.default_rng(0).bytes(4000))
    ran = run("info", tmp_path / name)
    assert ran.code == 1
    assert name in ran.err


def test_models_that_fit_a_modality():
    cards = [
        ModelCard(name="any"),
        ModelCard(name="mr", modality="MR"),
        ModelCard(name="p", modality="CT", domain="ph"),
    ]
    assert fitting_models("MR", cards) == ["any", "mr"]
    assert fitting_models("CT", cards) == ["any", "p (only scans from: ph)"]
    assert fitting_models(None, cards) == ["any"]


def test_models_lists_each_card(run, save_tiny, tmp_path, monkeypatch):
    files = {name: save_tiny(tmp_path / f"{name}.safetensors", limits=("Finds nothing.",)) for name in ("one", "two")}
    monkeypatch.setattr("medmaskrcnn.cli.models.shipped_models", lambda: files)
    ran = run("models")
    assert ran.code == 0
    assert ran.out.count("Finds nothing.") == 2
    cards = json.loads(run("models", "--json").out)
    assert [card["file"] for card in cards] == ["one.safetensors", "two.safetensors"]
    assert cards[0]["limits"] == ["Finds nothing."]


def test_models_that_really_ship_have_whole_cards(run):
    for card in json.loads(run("models", "--json").out):
        assert all(card[key] for key in ("name", "summary", "data", "licence", "scores", "limits", "made_by")), card


def test_env_tells_versions_and_nothing_of_the_user(run):
    ran = run("env", "--json")
    assert ran.code == 0
    facts = json.loads(ran.out)
    assert facts["system"]["medmaskrcnn"] == medmaskrcnn.__version__
    assert facts["packages"]["torch"]
    assert facts["DICOM decoders"]["RLE Lossless"]
    assert "pylibjpeg" in facts["DICOM decoders"]["JPEG 2000"]
    for private in (str(Path.home()), sys.prefix, platform.node(), str(Path.cwd())):
        assert len(private) < 3 or private not in ran.out
    assert f"/{getpass.getuser()}" not in ran.out


def test_env_for_people(run):
    ran = run("env")
    assert ran.code == 0
    assert any(line.split()[:1] == ["torch:"] for line in ran.out.splitlines())


def test_cpu_features_are_read_from_the_flags(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu avx2 amx_tile fma\nbugs\t\t: bf16\n")
    assert cpu_features(info) == ["avx2", "fma", "amx_tile"]
    assert cpu_features(tmp_path / "missing") == []
