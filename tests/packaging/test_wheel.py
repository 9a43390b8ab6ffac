"""What is in the wheel: four import packages, the weights, the plugin's manifest, the licences, and nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path, PurePosixPath

import pytest

from medmaskrcnn.hub.model_file import read_model_settings, shipped_models

CHECKOUT = Path(__file__).parents[2]
PACKAGES = {
    "medmaskrcnn": "medmaskrcnn",
    "medmaskrcnn_kernels": "kernels/medmaskrcnn_kernels",
    "medmaskrcnn_datasets": "datasets/medmaskrcnn_datasets",
    "napari_medmaskrcnn": "napari_plugin/napari_medmaskrcnn",
}
MAX_WHEEL_BYTES = 60e6
MAX_WEIGHTS_BYTES = 55e6  # of the 60 MB that the wheel may have


def build(target: str, folder: Path) -> Path:
    """Build one distribution of the checkout with the backend that pip would call; no network."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout."""
    return zipfile.ZipFile(build("wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile):
    """The wheel's METADATA as headers."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return HeaderParser().parsestr(wheel.read(name).decode())


def test_top_level_names_are_exactly_the_four_packages(wheel):
    top = {PurePosixPath(name).parts[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == set(PACKAGES)
    assert len(top) == len(PACKAGES) + 1


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_each_package_is_in_the_wheel(wheel, package):
    root = CHECKOUT / PACKAGES[package]
    wanted = {
        f"{package}/{path.relative_to(root).as_posix()}"
        for path in root.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert f"{package}/__init__.py" in wanted
    assert wanted == {name for name in wheel.namelist() if name.startswith(f"{package}/")}


def test_weights_are_inside_and_small(wheel):
    sizes = {i.filename: i.file_size for i in wheel.infolist() if i.filename.endswith(".safetensors")}
    assert sizes, "the wheel holds no model"
    assert all(name.startswith("medmaskrcnn/weights/") for name in sizes)
    assert sum(sizes.values()) <= MAX_WEIGHTS_BYTES, sizes


def test_metadata_and_notice_name_the_licence_on_every_models_card(metadata):
    notice = (CHECKOUT / "NOTICE").read_text(encoding="utf-8")
    licences = {"Apache-2.0"}
    for name, path in shipped_models().items():
        licence = read_model_settings(path).card.licence
        section = notice.split(f"\n{name}\n")[1].split("\n\n")[0]
        assert re.search(rf"Licence: ([^,]*\()?{re.escape(licence)}", section), (name, licence, section)
        licences.add(licence)
    assert set(metadata["License-Expression"].split(" AND ")) == licences


def test_licence_and_notice_are_inside(wheel):
    licences = {PurePosixPath(name).name: name for name in wheel.namelist() if ".dist-info/licenses/" in name}
    assert set(licences) == {"LICENSE", "NOTICE"}
    assert b"Apache License" in wheel.read(licences["LICENSE"])


def test_wheel_is_small(wheel):
    assert Path(wheel.filename).stat().st_size < MAX_WHEEL_BYTES


def test_entry_points(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/entry_points.txt")]
    text = wheel.read(name).decode()
    assert "medmaskrcnn = medmaskrcnn.cli.main:main" in text
    assert "medmaskrcnn = napari_medmaskrcnn:napari.yaml" in text
    assert "napari_medmaskrcnn/napari.yaml" in wheel.namelist()


def test_no_requirement_pins_or_caps_torch_or_numpy(metadata):
    requirements = metadata.get_all("Requires-Dist")
    assert "torch>=2.8" in requirements
    assert "numpy" in requirements
    assert not [line for line in requirements if "<" in line.split(";")[0] or "==" in line.split(";")[0]]


def test_the_same_sources_give_the_same_wheel(wheel, tmp_path):
    assert build("wheel", tmp_path).read_bytes() == Path(wheel.filename).read_bytes()


def test_editable_install_points_at_the_four_folders(tmp_path):
    editable = zipfile.ZipFile(build("wheel:editable", tmp_path))
    lines = [
        line for name in editable.namelist() if name.endswith(".pth") for line in editable.read(name).decode().split()
    ]
    assert {Path(line) for line in lines} == {(CHECKOUT / path).parent for path in PACKAGES.values()}


def test_sdist_carries_what_the_wheel_is_built_from(tmp_path):
    with tarfile.open(build("sdist", tmp_path)) as archive:
        names = {PurePosixPath(*PurePosixPath(name).parts[1:]).as_posix() for name in archive.getnames()}
    wanted = {
        "pyproject.toml",
        "LICENSE",
        "NOTICE",
        "README.md",
        *(f"{path}/__init__.py" for path in PACKAGES.values()),
    }
    assert wanted <= names
