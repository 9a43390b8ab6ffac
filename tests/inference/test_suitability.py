"""Which scans a model may be run on, and what the user is told."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from medmaskrcnn.errors import UnsuitableScanError
from medmaskrcnn.hub.loaded_model import LoadedModel
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.suitability import check_suitable
from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.structures.grid import Grid, pixel_grid
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR, Provenance, Volume

Make = Callable[..., LoadedModel]
SHAPE = (10, 40, 36)


def four_dimensional(kind: Any) -> Volume:
    return Volume(np.zeros((3, 4, 8, 8), np.int16), Grid((4, 8, 8), np.eye(4)), channel_kind=kind)


@pytest.mark.parametrize(("kind", "words"), [("unknown", r"volumes \(time points"), ("colour", "3 colours")])
def test_more_channels_than_the_model_takes(tiny_model: Make, kind: str, words: str) -> None:
    with pytest.raises(UnsuitableScanError, match=rf"{words}.*model tiny wants 1\. Give it one of them"):
        segment(four_dimensional(kind), tiny_model(3))


def test_windows_make_channels_of_one(tiny_model: Make) -> None:
    settings = tiny_model(3).settings.model_dump()
    settings["model"]["image_channels"] = 2
    settings["preprocess"] |= {"windows": ((-1000, 600), (0, 100)), "percentiles": None}
    check_suitable(Volume(np.zeros((1, 4, 8, 8), np.int16), Grid((4, 8, 8), np.eye(4))), ModelFileSettings(**settings))


def test_unknown_spacing(tiny_model: Make) -> None:
    picture = Volume(np.zeros((1, 1, 40, 40), np.uint8), pixel_grid((1, 40, 40)))
    with pytest.raises(UnsuitableScanError, match="does not tell the size of its pixels, which model tiny needs"):
        segment(picture, tiny_model(2, preprocess={"spacing_mm": (None, 1.0, 1.0)}))
    result = segment(picture, tiny_model(2))
    assert all(m.unit == "px" for m in result.measurements)


def test_one_slice_for_a_model_of_volumes(tiny_model: Make, make_blobs: Callable[..., Volume]) -> None:
    with pytest.raises(UnsuitableScanError, match="is a single slice, model tiny works on volumes"):
        segment(make_blobs((1, 40, 36)), tiny_model(3))


def test_the_scan_is_named_by_its_file_or_folder(tiny_model: Make, make_blobs: Callable[..., Volume]) -> None:
    flat = make_blobs((1, 40, 36))
    names = {("/a/b/x.nii.gz",): "/a/b/x.nii.gz", ("/a/b/1.dcm", "/a/b/2.dcm"): "/a/b", (): "this scan"}
    for files, name in names.items():
        with pytest.raises(UnsuitableScanError, match=f"^{name} is a single slice"):
            check_suitable(replace(flat, provenance=Provenance(files=files)), tiny_model(3).settings)


def test_out_of_domain_is_refused_or_stamped(tiny_model: Make, make_blobs: Callable[..., Volume]) -> None:
    model = tiny_model(3, card={"domain": PHANTOM_GENERATOR})
    real = make_blobs(SHAPE)
    with pytest.raises(UnsuitableScanError, match=f"scans made by '{PHANTOM_GENERATOR}'.*allow_out_of_domain=True"):
        segment(real, model)
    stamped = segment(real, model, allow_out_of_domain=True)
    assert stamped.record.out_of_domain and stamped.record.warnings[0].startswith("OUT OF DOMAIN: model tiny")
    phantom = replace(real, provenance=Provenance(generator=PHANTOM_GENERATOR))
    for allow in (False, True):
        result = segment(phantom, model, allow_out_of_domain=allow)
        assert not result.record.out_of_domain and result.record.warnings == ()


@pytest.mark.parametrize(
    ("model_for", "scan_is", "lowest", "reason"),
    [
        ("MR", "CT", 0, "was made for MR, and this scan is CT"),
        ("CT", "MR", 0, "was made for CT, and this scan is MR"),
        ("CT", "PT", 0, "was made for CT, and this scan is PT"),
        ("SM", "CT", 0, "was made for SM, and this scan is CT"),
        ("MR", None, -1024, "was made for MR, and values down to -1024 look like those of a CT"),
        ("MR", None, -125, "was made for MR, and values down to -125 look like those of a CT"),
        ("MR", None, -20, None),
        ("CT", None, 0, "was made for CT, and values from 0 on are no Hounsfield units"),
        ("SM", "GM", 0, None),
        ("SM", None, 0, None),
        ("MR", None, 0, None),
        ("MR", "MR", -1024, None),
        (None, "CT", -1024, None),
        ("CT", None, -1024, None),
        ("CT", "CT", 0, None),
    ],
)
def test_another_modality_is_refused_or_stamped(
    tiny_model: Make,
    make_blobs: Callable[..., Volume],
    caplog: pytest.LogCaptureFixture,
    model_for: str | None,
    scan_is: str | None,
    lowest: int,
    reason: str | None,
) -> None:
    volume, model = make_blobs(SHAPE, modality=scan_is), tiny_model(3, card={"modality": model_for})
    volume.array[...] = np.maximum(volume.array, 0)
    volume.array[0, 0, 0, 0] = lowest
    if reason is None:
        assert check_suitable(volume, model.settings) == ()
        return
    if scan_is is not None:  # what the header says is refused, what values suggest is stamped
        with pytest.raises(UnsuitableScanError, match=f"model tiny {reason}.*allow_out_of_domain=True"):
            segment(volume, model)
    with caplog.at_level(logging.WARNING, "medmaskrcnn"):
        result = segment(volume, model, allow_out_of_domain=scan_is is not None)
    assert len(caplog.records) == 1 and result.record.out_of_domain
    (warning,) = result.record.warnings
    assert warning.startswith(f"OUT OF DOMAIN: model tiny {reason}")


@pytest.mark.parametrize(
    ("dims", "section", "change", "words"),
    [
        (2, "preprocess", {"spacing_mm": (5.0, 1.0, 1.0)}, "a 2D model keeps the scan's slices"),
        (3, "preprocess", {"pad_multiple": (32, 32)}, "pad_multiple must be multiples of the strides"),
        (3, "preprocess", {"pad_multiple": (8, 32, 32)}, "pad_multiple must be multiples of the strides"),
        (3, "preprocess", {"mean": (0.1, 0.2)}, "mean and std must have one value or one per image channel"),
        (3, "preprocess", {"windows": ((0, 1), (0, 2)), "percentiles": None}, "2 windows cannot make up 1 image"),
        (3, "inference", {"one_per_scan_classes": ("spleen",)}, "names classes that the model lacks"),
    ],
)
def test_settings_that_contradict_each_other(
    tiny_model: Make, dims: int, section: str, change: dict[str, Any], words: str
) -> None:
    settings = tiny_model(dims).settings.model_dump()
    ModelFileSettings(**settings)
    with pytest.raises(ValidationError, match=words):
        ModelFileSettings(**{**settings, section: {**settings[section], **change}})
