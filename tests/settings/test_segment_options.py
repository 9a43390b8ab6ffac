"""The options that every interface hands on: checked once, and a wrong one is named."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from medmaskrcnn.errors import InvalidOptionError
from medmaskrcnn.settings import OutputOptions, SegmentOptions
from medmaskrcnn.settings.segment_options import options_from


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("device", "tpu", "device must be 'auto', 'cpu', 'cuda' or 'mps', got 'tpu'"),
        ("precision", "fp8", "precision must be 'auto', 'fp32', 'bf16' or 'int8', got 'fp8'"),
        ("engine", "tensorrt", "engine must be 'auto', 'torch', 'openvino' or 'torch-compile', got 'tensorrt'"),
        ("score", 1.5, r"score must lie in 0\.\.1, got 1\.5"),
        ("score", float("nan"), r"score must lie in 0\.\.1, got nan"),
        ("classes", "liver", "classes cannot be used: .*tuple, got 'liver'"),
        ("track", "perhaps", "track cannot be used: .*boolean.*, got 'perhaps'"),
    ],
)
def test_a_wrong_option_is_named(option: str, value: object, sentence: str) -> None:
    with pytest.raises(InvalidOptionError, match=sentence) as caught:
        options_from(None, SegmentOptions, **{option: value})
    assert caught.value.option == option


@pytest.mark.parametrize("formats", ["nifti", ["nifti", "jpeg"]])
def test_formats_are_a_list_of_known_ones(formats: object) -> None:
    with pytest.raises(InvalidOptionError, match="formats must be a list out of nifti, csv") as caught:
        options_from(None, OutputOptions, formats=formats)
    assert caught.value.option == "formats"


def test_an_object_or_keywords() -> None:
    given = SegmentOptions(device="cpu")
    assert options_from(given, SegmentOptions, device="auto", score=None) is given
    assert options_from(None, SegmentOptions, device="cpu", classes=["liver"]).classes == ("liver",)
    with pytest.raises(ValueError, match=r"not both; got options and score$"):
        options_from(given, SegmentOptions, device="auto", score=0.5)


def test_options_are_frozen_and_know_their_names() -> None:
    with pytest.raises(ValidationError, match="devise"):
        SegmentOptions.model_validate({"devise": "cpu"})
    options = SegmentOptions()
    with pytest.raises(ValidationError, match="frozen"):
        options.device = "cpu"  # type: ignore[misc]


def test_a_region_may_come_of_numpy_and_goes_through_json() -> None:
    low, high = np.array([0, 1, 2]), np.array([3, 4, 5])
    options = SegmentOptions(region=(low, high), classes=("liver",))  # type: ignore[arg-type]
    assert options.region == ((0, 1, 2), (3, 4, 5))
    assert SegmentOptions.model_validate(options.model_dump(mode="json")) == options


def test_classes_are_those_of_the_model() -> None:
    assert SegmentOptions().labels_among(("liver", "spleen")) == {0, 1}
    assert SegmentOptions(classes=("spleen",)).labels_among(("liver", "spleen")) == {1}
    with pytest.raises(InvalidOptionError, match="no class heart; its classes are: liver") as caught:
        SegmentOptions(classes=("heart",)).labels_among(("liver",))
    assert caught.value.option == "classes"
