"""Every example runs to its end, each in a folder of its own."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {
    "train_with_lightning.py": ("lightning",),
    "train_with_monai.py": ("ignite",),
    "nibabel_in_sitk_out.py": ("pandas",),
}
"""What only one example needs; all of it is in the extra ``test-all``."""
SCRIPTS = sorted(EXAMPLES.glob("*.py"))
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.usefixtures("quick_phantom_ct")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))  # as for `python examples/SCRIPT`
    monkeypatch.setattr(sys, "argv", [script.name])
    for name in NEEDS.get(script.name, ()):
        pytest.importorskip(name)
    runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.strip()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_phantom_ct")
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook(notebook, tmp_path, monkeypatch):
    """Its cells run one after the other; none needs a kernel of its own, and none keeps what it once printed."""
    monkeypatch.chdir(tmp_path)
    cells = [c for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if c["cell_type"] == "code"]
    assert cells
    names: dict[str, object] = {}
    for number, cell in enumerate(cells):
        assert cell["outputs"] == []
        exec(compile("".join(cell["source"]), f"{notebook.name}, cell {number}", "exec"), names)


def test_each_is_listed():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in (*SCRIPTS, *NOTEBOOKS) if path.name not in text] == []
