"""Coded terms are the standard's own; UIDs name content."""

from __future__ import annotations

import re

import pytest
from pydicom.sr._concepts_dict import concepts

from medmaskrcnn.export.codes import (
    ANATOMY,
    CHANGES,
    MORPHOLOGY,
    PRIVATE_SCHEME,
    SIDES,
    STRUCTURES,
    TISSUE,
    Term,
    coding_of,
)
from medmaskrcnn.export.uids import uid_of

# What the standard's context groups call each SNOMED CT code that they use.
MEANINGS: dict[str, set[str]] = {}
for entries in concepts["SCT"].values():
    for code, (meaning, _) in entries.items():
        MEANINGS.setdefault(code, set()).add(meaning.lower())
ALL = [*STRUCTURES.values(), *CHANGES.values(), *SIDES.values(), ANATOMY, MORPHOLOGY, TISSUE]


@pytest.mark.parametrize("term", ALL, ids=lambda term: term.meaning)
def test_each_code_means_what_we_say(term: Term) -> None:
    known = MEANINGS[term.value]
    words = set(term.meaning.lower().split())
    assert term.meaning.lower() in known or any(words <= set(re.findall(r"\w+", text)) for text in known), known


@pytest.mark.parametrize(
    ("name", "type_", "modifier", "region", "side"),
    [
        ("liver", "Liver", None, None, None),
        ("Right Kidney", "Kidney", "Right", None, None),
        ("kidney_left", "Kidney", "Left", None, None),
        ("Kidney-L", "Kidney", "Left", None, None),
        ("vertebrae_L5", "Vertebra", None, None, None),
        ("rib_left_7", "Rib", "Left", None, None),
        ("lungs", "Lung", None, None, None),
        ("heart_atrium_left", "Left atrium", None, None, None),
        ("urinary bladder", "Bladder", None, None, None),
        ("bladder", "Bladder", None, None, None),
        ("anterior hippocampus", "Hippocampus", "Anterior", None, None),
        ("tumor", "Neoplasm", None, None, None),
        ("GTV", "Neoplasm", None, None, None),
        ("liver tumour", "Neoplasm", None, "Liver", None),
        ("tumour of the liver", "Neoplasm", None, "Liver", None),
        ("left kidney cyst", "Cyst", None, "Kidney", "Left"),
        ("cell nucleus", "Nucleus", None, None, None),
    ],
)
def test_names(name: str, type_: str, modifier: str | None, region: str | None, side: str | None) -> None:
    coding = coding_of(name)
    found = [term.meaning if term else None for term in (coding.modifier, coding.region, coding.region_modifier)]
    assert coding.type.meaning == type_
    assert found == [modifier, region, side]
    assert coding.category == (MORPHOLOGY if coding.type in CHANGES.values() else ANATOMY)


@pytest.mark.parametrize("name", ["frobnicator", "left", "left frobnicator", "liverwurst", "frobnicator tumour", ""])
def test_an_unknown_name_gets_a_code_of_our_own(name: str) -> None:
    coding = coding_of(name)
    assert coding.type.scheme == PRIVATE_SCHEME
    assert len(coding.type.value) <= 16
    assert coding.type.meaning
    assert coding_of(name + "x").type.value != coding.type.value


def test_the_card_overrides_the_table() -> None:
    extra = {"liver": {"type": ["99X", "1", "Mine"], "category": ["SCT", "85756007", "Tissue"]}}
    assert coding_of("liver", extra).type == Term("1", "Mine", "99X")
    assert coding_of("liver", extra).category == TISSUE
    assert coding_of("spleen", extra) == coding_of("spleen")
    with pytest.raises(ValueError, match="needs a type"):
        coding_of("liver", {"liver": {"category": ["SCT", "85756007", "Tissue"]}})


def test_a_uid_is_valid_and_names_its_parts() -> None:
    seen = {uid_of(*parts) for parts in (("a",), ("b",), ("a", "b"), ("ab",), ("a", "", "b"), (b"\xff",), ())}
    assert len(seen) == 7
    assert all(re.fullmatch(r"2\.25\.(0|[1-9]\d{0,38})", uid) for uid in seen)
