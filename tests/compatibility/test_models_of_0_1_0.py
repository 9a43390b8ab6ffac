"""Model files of 0.1.0 are read with every setting, and find what they found then."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import medmaskrcnn
from medmaskrcnn.hub.model_file import model_sha256, shipped_models

Leaves = Callable[[Any], Counter[str]]

SCANS = {"plane": "pictures/4.png", "slices": "scan/scan.nii.gz", "volume": "scan/scan.nii.gz"}


def settings_in(path: Path) -> dict[str, Any]:
    """The settings as they stand in the file's header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(json.loads(file.read(length))["__metadata__"]["medmaskrcnn"])


@pytest.mark.parametrize("name", SCANS)
def test_model_file_of_0_1_0_is_read(made: Path, name: str, leaves: Leaves) -> None:
    """No setting is lost, whatever it is called now: each value of the file is among those of the model."""
    path = made / "models" / f"{name}.safetensors"
    written = leaves({name: part for name, part in settings_in(path).items() if name != "format_version"})
    read = leaves(medmaskrcnn.load_model(path, device="cpu").settings.model_dump(mode="json"))
    assert sum(written.values()) > 80
    assert written - read == Counter()


@pytest.mark.parametrize("name", SCANS)
def test_model_of_0_1_0_finds_what_it_found(
    made: Path, tmp_path: Path, name: str, assert_same_candidates: Callable[[Path, Path], None]
) -> None:
    """Weights have found their layers, and settings mean what they meant."""
    model = made / "models" / f"{name}.safetensors"
    result = medmaskrcnn.segment(made / SCANS[name], model, device="cpu", precision="fp32")
    medmaskrcnn.save_case(result, tmp_path / "found.npz")
    assert_same_candidates(tmp_path / "found.npz", made / "models" / f"{name}_finds.npz")


def test_models_that_shipped_with_0_1_0_ship(made: Path) -> None:
    names = json.loads((made / "names.json").read_text())["models"]
    assert set(names) <= set(medmaskrcnn.shipped_models())


SHIPPED_SHA256 = {
    "abdomen-mr": "fbd6c7a309f467b799f25501e79b23001dfa1503160b0e7596ab77487d96d0a9",
    "hippocampus-mr": "dc3e2671ef1182db1345c3034c43b3df0c4c073c0458ac585f93f07137b5f2e6",
    "nuclei": "7c92506b105db5bc499bee93ef8abdaea4bed7e7e3dcdf98b766d34565a3e290",
    "phantom-ct": "5b1e69e819f222839337361c33dfd897291a6e25a20315f848cf27c4e95f5964",
    "sarcoma-mr": "455fa1297b4453f80ad7749176a3ec91e24b7069075be2e615018bdc22bca32c",
}


def test_shipped_files_are_the_same_bytes() -> None:
    """Their SHA-256 stands in results and ledgers: a model that is trained anew gets a line here, nothing else does."""
    assert {name: model_sha256(path) for name, path in shipped_models().items()} == SHIPPED_SHA256
