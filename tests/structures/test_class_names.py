"""Which classes of two sources are the same: spelling, aliases, what the user says, and what is left."""

from __future__ import annotations

import pytest

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.structures.class_names import (
    match_class_names,
    normalised,
    nothing_shared,
    one_spelling,
    suggested,
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Left Kidney", "left_kidney"),
        ("kidney-left", "left kidney"),
        ("Kidney_L", "LeftKidney"),
        ("kidney (right)", "Right kidney"),
        ("oesophagus", "Esophagus"),
        ("Tumours", "tumors"),
        ("parotid_right", "right parotid"),
    ],
)
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert normalised(one) == normalised(other)
    match = match_class_names([one, "liver"], ["spleen", other])
    assert match.names == (other,) and match.first == {one: other} and match.second == {other: other}
    assert match.only_first == ("liver",) and match.only_second == ("spleen",)


@pytest.mark.parametrize(
    ("one", "other"),
    [("left kidney", "right kidney"), ("lung", "lung nodule"), ("vertebra L5", "vertebra L4"), ("hour", "horn")],
)
def test_different_classes_stay_different(one: str, other: str) -> None:
    assert not match_class_names([one], [other]).names


def test_names_that_differ_in_case_alone_within_one_source_match_exactly() -> None:
    match = match_class_names(["Tumour", "tumour"], ["tumour", "Tumour"])
    assert match.first == {"Tumour": "Tumour", "tumour": "tumour"}


def test_aliases() -> None:
    aliases = {"anterior hippocampus": ("Anterior",), "posterior hippocampus": ("Posterior",)}
    match = match_class_names(list(aliases), ["Anterior", "POSTERIOR"], aliases=aliases)
    assert match.names == ("Anterior", "POSTERIOR")
    assert match.spelt_otherwise == {"anterior hippocampus": "Anterior", "posterior hippocampus": "POSTERIOR"}
    # a class of that very name is no other class's alias
    both = match_class_names(["anterior", "anterior hippocampus"], ["Anterior"], aliases=aliases)
    assert both.first == {"anterior": "Anterior"} and both.only_first == ("anterior hippocampus",)


def test_renaming_from_either_side() -> None:
    data = match_class_names(["anterior hippocampus"], ["Anterior"], rename={"Anterior": "anterior hippocampus"})
    model = match_class_names(["anterior hippocampus"], ["Anterior"], rename={"anterior hippocampus": "Anterior"})
    assert data.second == {"Anterior": "anterior hippocampus"} and data.names == ("anterior hippocampus",)
    assert model.first == {"anterior hippocampus": "Anterior"} and model.names == ("Anterior",)


def test_several_renamed_to_one_and_two_swapped() -> None:
    sides = {"left kidney": "kidney", "right kidney": "kidney"}
    match = match_class_names(["kidney", "liver"], ["left kidney", "right kidney", "liver"], rename=sides)
    assert match.names == ("kidney", "liver") and match.second["right kidney"] == "kidney"
    assert match_class_names(["right kidney", "left kidney"], ["kidney"], rename=sides).first == sides
    swapped = match_class_names(["left", "right"], ["left", "right"], rename={"left": "right", "right": "left"})
    assert swapped.first == {"left": "left", "right": "right"} and swapped.second == {"left": "right", "right": "left"}


def test_renaming_what_is_not_there() -> None:
    with pytest.raises(InvalidOptionError, match=r"'lung'.*liver, spleen") as caught:
        match_class_names(["liver"], ["spleen"], rename={"lung": "liver"})
    assert caught.value.option == "rename"


def test_nothing_shared_lists_both_and_suggests() -> None:
    match = match_class_names(["anterior hippocampus", "posterior hippocampus"], ["Anterior", "Posterior"])
    assert suggested(match) == {"Anterior": "anterior hippocampus", "Posterior": "posterior hippocampus"}
    text = str(nothing_shared(match, "the model", "the manifest"))
    for name in ("anterior hippocampus", "posterior hippocampus", "Anterior=anterior hippocampus", "Posterior"):
        assert name in text
    assert suggested(match_class_names(["nucleus"], ["object"])) == {"object": "nucleus"}


def test_one_spelling() -> None:
    names = one_spelling(["tumour", "Tumor", "lesion", "liver"], {"lesion": "tumour"})
    assert names == {"tumour": "tumour", "Tumor": "tumour", "lesion": "tumour", "liver": "liver"}
    assert one_spelling(["Tumor", "tumour"], {"tumour": "mass"}) == {"Tumor": "mass", "tumour": "mass", "mass": "mass"}
    with pytest.raises(InvalidOptionError, match="brain"):
        one_spelling(["liver"], {"brain": "liver"})
