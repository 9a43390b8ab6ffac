"""Names that users and their programs know from 0.1.0 are still there."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

import medmaskrcnn
import medmaskrcnn_kernels

needs_napari = pytest.mark.skipif(find_spec("napari") is None, reason="napari is not installed")


@pytest.fixture(scope="module")
def names(made: Path) -> dict[str, Any]:
    return json.loads((made / "names.json").read_text(encoding="utf-8"))


def test_public_names_of_0_1_0_are_there(names: dict[str, Any]) -> None:
    assert len(names["medmaskrcnn"]) == 19  # eighteen and __version__
    for package in (medmaskrcnn, medmaskrcnn_kernels):
        known = names[package.__name__]
        assert set(known) <= set(package.__all__)
        for name in known:
            assert getattr(package, name) is not None
    with pytest.raises(AttributeError):
        _ = medmaskrcnn.no_such_name


RENAMED = {"train": {"tell"}, "Instances": {"mask_starts"}}
"""Called ``on_event`` now; and a mask now holds its own start."""


def test_public_functions_take_the_arguments_of_0_1_0(names: dict[str, Any]) -> None:
    known = names["parameters"]
    taken = {name: inspect.signature(getattr(medmaskrcnn, name)).parameters for name in known}
    gone = {name: [one for one in known[name] if one not in {*taken[name], *RENAMED.get(name, ())}] for name in known}
    assert {name: parameters for name, parameters in gone.items() if parameters} == {}
    assert sum(map(len, known.values())) > 100


_HELP_OF_ALL = """
import contextlib, io, json, sys
from {module} import {function}
said = {{}}
for command in json.loads(sys.argv[1]):
    sys.argv = ["medmaskrcnn", *command.split(), "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        {function}()
    said[command] = out.getvalue()
print(json.dumps(said))
"""


def test_commands_take_the_options_of_0_1_0(names: dict[str, Any]) -> None:
    (script,) = entry_points(group="console_scripts", name="medmaskrcnn")
    module, _, function = script.value.partition(":")
    program = _HELP_OF_ALL.format(module=module, function=function)
    command = [sys.executable, "-c", program, json.dumps(list(names["commands"]))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    missing = {}
    for name, text in json.loads(done.stdout).items():
        there = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))
        if gone := [option for option in names["commands"][name] if option not in there]:
            missing[name] = gone
    assert missing == {} and len(names["commands"]) > 15


def test_datasets_are_a_program() -> None:
    command = [sys.executable, "-m", "medmaskrcnn_datasets", "--help"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    for name in ("auto", "msd", "nnunet", "coco", "instances", "semantic", "dicom", "phantoms", "study"):
        assert re.search(rf"\b{name}\b", said), name


def plugin_manifest() -> dict[str, Any]:
    (entry,) = entry_points(group="napari.manifest", name="medmaskrcnn")
    package, _, name = entry.value.partition(":")
    return yaml.safe_load((files(package) / name).read_text(encoding="utf-8"))


@needs_napari
def test_napari_commands_of_0_1_0_are_there(made: Path) -> None:
    """napari keeps these ids in its users' settings (which reader opens what, shortcuts, where panels lie)."""
    manifest, known = plugin_manifest(), json.loads((made / "napari.json").read_text())
    assert manifest["name"] == "medmaskrcnn"
    now = manifest["contributions"]
    assert set(known["commands"]) <= {one["id"] for one in now["commands"]}
    assert set(known["sample_data"]) <= {one["key"] for one in now["sample_data"]}
    assert as_sets(known["writers"]) <= as_sets([one["command"], *one["filename_extensions"]] for one in now["writers"])
    assert as_sets(known["widgets"]) <= as_sets([one["command"], one["display_name"]] for one in now["widgets"])
    for reader, *patterns in known["readers"]:
        (read,) = (one for one in now["readers"] if one["command"] == reader)
        assert set(patterns) <= set(read["filename_patterns"])
    for one in now["commands"]:
        module, _, name = one["python_name"].partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def as_sets(rows: Any) -> set[tuple[str, ...]]:
    return {tuple(row) for row in rows}


_PANEL = """
import importlib, sys
from qtpy.QtCore import QSettings
from qtpy.QtWidgets import QApplication, QPushButton
app = QApplication([])
from napari.components import ViewerModel
module, _, name = sys.argv[1].partition(":")
for folder in sys.argv[2:]:
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, folder)
    panel = getattr(importlib.import_module(module), name)(ViewerModel())
    (button,) = (one for one in panel.findChildren(QPushButton) if one.text() == "Got it")
    print("hidden" if button.isHidden() else "shown")
    panel.close()
"""


@needs_napari
def test_napari_settings_of_0_1_0_are_read(made: Path, tmp_path: Path) -> None:
    """Who has clicked "Got it" is not told how to begin once more."""
    seen, new = tmp_path / "seen", tmp_path / "new"
    (seen / "medmaskrcnn").mkdir(parents=True)
    shutil.copy(made / "napari.ini", seen / "medmaskrcnn" / "napari.ini")
    contributions = plugin_manifest()["contributions"]
    (panel,) = (one["python_name"] for one in contributions["commands"] if one["id"] == "medmaskrcnn.panel")
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", _PANEL, panel, str(seen), str(new)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["hidden", "shown"]
