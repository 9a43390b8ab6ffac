"""What an import or a command loads, seen from a fresh interpreter."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import medmaskrcnn

OURS = ("medmaskrcnn", "medmaskrcnn_kernels", "medmaskrcnn_datasets", "napari_medmaskrcnn")

# Runs a command of the CLI in this interpreter, swallows its exit, and reports the top-level modules it loaded.
COMMAND = """
import json, sys
from medmaskrcnn.cli.main import main
sys.argv = ["medmaskrcnn", *json.loads(sys.argv[1])]
try:
    main()
except SystemExit as stop:
    code = stop.code or 0
else:
    code = 0
print("\\nLOADED", json.dumps([code, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def loaded_by(code: str, *arguments: str, folder: Path) -> str:
    """The standard output of ``code`` in a fresh interpreter that starts in ``folder``."""
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_command(arguments: list[str], folder: Path) -> tuple[int, set[str], str]:
    """Exit code, top-level modules loaded and output of ``medmaskrcnn ARGUMENTS``."""
    out = loaded_by(COMMAND, json.dumps(arguments), folder=folder)
    shown, _, report = out.rpartition("\nLOADED ")
    code, modules = json.loads(report)
    return code, set(modules), shown


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small scan for ``info`` to describe."""
    nibabel = pytest.importorskip("nibabel")
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    nibabel.Nifti1Image(np.zeros((6, 5, 4), np.int16), np.diag([2.0, 2.0, 3.0, 1.0])).to_filename(path)
    return path


def test_kernels_load_torch_and_nothing_else_of_ours(tmp_path):
    code = "import sys, json, medmaskrcnn_kernels; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    modules = set(json.loads(loaded_by(code, folder=tmp_path)))
    assert "torch" in modules
    assert modules & set(OURS) == {"medmaskrcnn_kernels"}
    assert not modules & {"monai", "scipy", "pydantic"}


def test_import_medmaskrcnn_is_light(tmp_path):
    code = "import sys, json, medmaskrcnn; print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    modules = set(json.loads(loaded_by(code, folder=tmp_path)))
    assert not modules & {"torch", "numpy", "monai", "scipy", "pydicom", "medmaskrcnn_kernels", "medmaskrcnn_datasets"}


@pytest.mark.slow
def test_every_public_name_resolves_and_none_is_a_module():
    """Importing a submodule sets it as an attribute of its package, whatever stood there: so all are imported first."""
    rooms = {path.stem for path in Path(medmaskrcnn.__file__).parent.iterdir()}
    assert not rooms & {*medmaskrcnn.__all__}
    for home in sorted({*medmaskrcnn._HOMES.values()}):
        importlib.import_module(f"medmaskrcnn.{home}")
    found = [getattr(medmaskrcnn, name) for name in medmaskrcnn.__all__]
    assert len(found) >= 12 and not any(isinstance(one, ModuleType) for one in found)


def test_what_segments_a_scan_loads_no_more_than_it_runs(tmp_path):
    code = (
        "import json, sys, medmaskrcnn.batch_runs.steps, medmaskrcnn.export.write\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules} | {*sys.modules} & {'torch._dynamo'})))"
    )
    modules = set(json.loads(loaded_by(code, folder=tmp_path)))
    assert "torch" in modules
    assert not modules & {
        "monai",
        "torchvision",
        "torch._dynamo",
        "matplotlib",
        "pandas",
        "skimage",
        "lightning_fabric",
    }


def test_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'segmentt'"):
        _ = medmaskrcnn.segmentt


@pytest.mark.parametrize(
    ("command", "word"),
    [("--help", "Usage"), ("segment --help", "Usage"), ("models", "phantom-ct"), ("--version", "medmaskrcnn")],
)
def test_quick_commands_never_import_torch(command, word, tmp_path):
    code, modules, shown = run_command(command.split(), tmp_path)
    assert code == 0
    assert word in shown
    assert not modules & {"torch", "monai", "medmaskrcnn_kernels"}


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_info_never_imports_torch(options, nifti, tmp_path):
    code, modules, shown = run_command(["info", str(nifti), *options], tmp_path)
    assert code == 0
    assert "scan.nii.gz" in shown.replace("\n", "")
    assert "nibabel" in modules  # it did read the scan
    assert not modules & {"torch", "monai", "medmaskrcnn_kernels"}
