"""Cells that a spreadsheet or a terminal would obey."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from pydantic import ValidationError
from result_case import put
from tiny_models import tiny_settings

from medmaskrcnn.errors import ModelFileError
from medmaskrcnn.export.tracks import write_tracks
from medmaskrcnn.hub.model_file import read_model_settings
from medmaskrcnn.report.instance_table import write_table
from medmaskrcnn.structures.grid import pixel_grid
from medmaskrcnn.structures.volume import Volume
from medmaskrcnn.system.tables import TableWriter, harmless

FORMULAS = [
    "=cmd|'/C calc'!A0",
    "+1+cmd",
    "-2+3",
    "@SUM(A1)",
    " =1+1",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "-x",
    "+",
    "=",
]


@pytest.mark.parametrize("cell", FORMULAS)
def test_formulas_become_text(cell: str):
    shown = str(harmless(cell))
    assert shown.startswith("'")


@pytest.mark.parametrize("cell", ["-1.5", "+3", "-1e-07", ".5", "liver", "T2-weighted", "a=b", "", 3, -2.5, None, True])
def test_numbers_and_words_stay(cell: object):
    assert harmless(cell) == cell


def test_terminals_get_nothing_to_obey():
    assert "\x1b" not in str(harmless("liver\x1b]0;owned\x07\x1b[2J"))
    stream = io.StringIO()
    TableWriter(stream).writerows([["a\nb", "c,d"], ["\x9b31m", "=e"]])
    assert list(csv.reader(io.StringIO(stream.getvalue()))) == [["a b", "c,d"], ["\N{REPLACEMENT CHARACTER}31m", "'=e"]]


def test_tables_of_results(tmp_path: Path):
    import numpy as np

    volume = Volume(np.zeros((1, 1, 4, 5), np.uint8), pixel_grid((1, 4, 5)))
    result = put(volume, {"=cmd|'/C calc'!A0": [np.ones((1, 4, 5), bool)], "a\x1b[2J": [np.ones((1, 4, 5), bool)]})
    for write in (write_table, lambda one, stream: write_tracks(one, None, stream)):
        stream = io.StringIO(newline="")
        write(result, stream)
        assert "\x1b" not in stream.getvalue()
        assert not any(cell.startswith("=") for row in csv.reader(io.StringIO(stream.getvalue())) for cell in row)


NAMES = ["", "  ", "a\x1b[2J", "a\nb", "a\0", "\u202eexe.nrevil", "x" * 201]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_a_model_are_plain(name: str):
    with pytest.raises(ValidationError, match="printable"):
        tiny_settings(model={"class_names": (name, "liver")})
    with pytest.raises(ValidationError, match="printable"):
        tiny_settings(card={"name": name})


def test_a_model_file_with_a_name_that_steers_terminals_is_refused(tmp_path: Path):
    import json
    import struct

    from medmaskrcnn.hub.model_file import shipped_models

    content = next(iter(shipped_models().values())).read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = json.dumps(header)
    name = json.loads(next(v for v in header["__metadata__"].values() if "class_names" in v))["model"]["class_names"][0]
    changed = text.replace(f'\\"{name}\\"', '\\"a\\\\u001b[2J\\"').encode()
    assert changed != text.encode()
    file = tmp_path / "evil.safetensors"
    file.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])
    with pytest.raises(ModelFileError, match="printable"):
        read_model_settings(file)
