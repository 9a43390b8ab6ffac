"""Settings under the names of format 1 become those of format 2, each in its place."""

from __future__ import annotations

import pytest

from medmaskrcnn.settings import ModelFileSettings
from medmaskrcnn.settings.migration import RENAMED, to_current_names, to_current_path, to_first_names
from medmaskrcnn.training.plan import Plan


def nested(path: str, value: object) -> dict[str, object]:
    for name in reversed(path.split(".")):
        value = {name: value}
    return value  # type: ignore[return-value]


@pytest.mark.parametrize(("path", "new"), RENAMED.items())
def test_each_name_is_replaced_where_it_stood(path: str, new: str) -> None:
    assert to_current_names(nested(path, 7)) == nested(to_current_path(path), 7)
    assert to_current_path(path).endswith(f".{new}")


def test_every_new_name_is_a_setting_and_no_old_one_is() -> None:
    parts = {"train", "augment"}
    for path, new in RENAMED.items():
        *parents, old = path.split(".")
        fields = (Plan if parents[0] in parts else ModelFileSettings).model_fields
        for name in parents:
            fields = fields[name].annotation.model_fields  # type: ignore[union-attr]
        assert new in fields and old not in fields, path


def test_order_and_other_settings_stay() -> None:
    old = {"format_version": 1, "inference": {"tile": [1, 2, 3], "covered": 0.5, "score": 0.2}, "card": {"name": "a"}}
    now = to_current_names(old)
    assert list(now["inference"]) == ["tile", "max_containment", "score"]
    assert now["format_version"] == 2 and now["card"] == {"name": "a"}
    assert to_current_names(now) == now, "what has today's names stays"


def test_both_names_at_once_are_left_to_be_refused() -> None:
    both = {"inference": {"covered": 0.5, "max_containment": 0.4}}
    assert to_current_names(both) == both


@pytest.mark.parametrize("content", [None, [1], "text", {"inference": None}, {"model": {"detection": [1]}}])
def test_what_is_no_mapping_is_left_to_validation(content: object) -> None:
    assert to_current_names(content) == content


def test_first_names_of_a_run_record() -> None:
    record = {"score": 0.5, "inference": {"max_containment": None, "post_nms_top_n_test": 40, "tile": [1]}}
    assert to_first_names(record)["inference"] == {"covered": None, "proposals": 40, "tile": [1]}
    assert to_first_names({"score": 0.5}) == {"score": 0.5}
