"""Folder names of cases: safe, distinct, recognisable."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmaskrcnn.batch_runs.case_names import name_cases
from medmaskrcnn.system.paths import MAX_LENGTH


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["/d/scan.nii.gz"], ["scan"]),
        (["/d/scan.NII"], ["scan"]),
        (["/d/p.1/"], ["p.1"]),
        (["/d/.nii"], ["nii"]),
        (["/d/leber müller.mha"], ["leber_müller"]),
        (["/d/../x/a;rm -rf.nii"], ["a_rm_-rf"]),
        (["/d/con.nii"], ["_con"]),
        (["/"], ["scan"]),
        (["/p1/CT", "/p2/CT"], ["p1_CT", "p2_CT"]),
        (["/a/p1/CT", "/b/p1/CT", "/b/p2"], ["a_p1_CT", "b_p1_CT", "p2"]),
        (["/d/Scan.nii", "/d/scan.nii.gz"], ["d_Scan", "d_scan-2"]),
        (["/d/scan.nii", "/d/scan.nii"], ["d_scan", "d_scan-2"]),
    ],
)
def test_by_pencil(inputs, names):
    assert name_cases([Path(one) for one in inputs]) == names


PARTS = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=3), max_size=6))
def test_names_are_safe_and_distinct(parts):
    names = name_cases([Path("/", *one) for one in parts])
    assert len(names) == len(parts)
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert 0 < len(name) <= MAX_LENGTH + 8
        assert not set(name) & set('/\\:*?"<>|\0 \n')
        assert not name.startswith(".")
        assert not name.endswith(".")


def test_a_name_that_is_no_utf8_becomes_one_that_is():
    (name,) = name_cases([Path(os.fsdecode(b"/d/M\xfcller.nii"))])
    assert name == "M_ller"
