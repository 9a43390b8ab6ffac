"""A review without a screen: decisions, edits, the way back, and what is saved of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.structures.instances import Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import load_case, save_case
from napari_medmaskrcnn.core.items import divided
from napari_medmaskrcnn.core.review_model import ReviewModel

SHAPE = (8, 20, 24)
BLOCKS = [
    ("liver", 0.9, (0, 1, 1), (4, 8, 8)),
    ("tumour", 0.8, (1, 3, 3), (2, 2, 2)),
    ("tumour", 0.6, (5, 12, 12), (2, 3, 3)),
    ("tumour", 0.3, (5, 12, 18), (2, 3, 3)),
]


@pytest.fixture
def review(make_result) -> ReviewModel:
    return ReviewModel(*make_result(BLOCKS, SHAPE))


def block(start: tuple[int, int, int], extent: tuple[int, int, int]) -> Mask:
    return Mask(start, np.ones(extent, bool))


def kept_classes(review: ReviewModel) -> list[tuple[str, int]]:
    found = review.to_result().instances
    return [(found.class_names[label], mask.n_voxels) for label, mask in zip(found.labels, found.masks, strict=True)]


def test_thresholds_act_on_all_or_on_one_class(review):
    assert review.keys_in() == [1, 2, 3]
    review.set_threshold(0.2)
    assert review.keys_in() == [1, 2, 3, 4]
    review.set_threshold(0.7, "tumour")
    assert review.keys_in() == [1, 2]
    review.set_threshold(0.95)
    assert review.keys_in() == [2] and review.class_thresholds == {"tumour": 0.7}  # a class keeps its own
    review.clear_class_thresholds()
    assert review.keys_in() == []


def test_what_is_decided_outranks_the_score_and_is_saved(review, tmp_path: Path):
    review.decide([4], "accepted")
    review.decide([1], "rejected")
    assert review.keys_in() == [2, 3, 4]
    save_case(review.to_result(), tmp_path / "r.npz")
    again = ReviewModel(review.volume, load_case(tmp_path / "r.npz"))
    assert [again.items[k].score for k in again.keys_in()] == [again.items[k].score for k in (2, 3, 4)]
    assert {again.items[k].verdict for k in again.items} == {"", "accepted", "rejected"}
    again.decide([1], "")
    assert again.keys_in() == [1, 2, 3, 4]


def test_no_threshold_shows_what_was_removed_but_it_is_taken_in_on_request(make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    removed = np.array([0, 0, Removal.CONTAINED, Removal.DUPLICATE], np.uint8)
    result = replace(result, candidates=replace(result.candidates, removed=removed))
    review = ReviewModel(volume, result)
    review.set_threshold(0.0)
    review.set_threshold(0.0, "tumour")
    assert review.keys_in() == [1, 2] and review.keys_shown() == {1, 2}
    review.decide([4], "accepted")
    assert review.keys_in() == [1, 2, 4]
    save_case(review.to_result(), tmp_path / "r.npz")
    again = ReviewModel(volume, load_case(tmp_path / "r.npz"))
    assert [again.items[k].removed for k in again.items] == removed.tolist() and again.keys_in() == [1, 2, 4]
    again.decide([4], "")
    assert again.keys_in() == [1, 2]
    assert again.merge([2, 3]) == 2 and again.keys_in() == [1, 2]
    again.undo()
    again.repaint({3: ("tumour", block((5, 12, 12), (1, 2, 2)))})
    assert again.keys_in() == [1, 2, 3], "what a person drew is no longer what was removed"


def test_what_another_run_removed_stays_removed_when_it_is_added(make_result):
    review = ReviewModel(*make_result(BLOCKS[:1], SHAPE))
    _, other = make_result(BLOCKS[1:], SHAPE)
    removed = np.array([0, Removal.DUPLICATE, 0], np.uint8)
    keys = review.extend(replace(other, candidates=replace(other.candidates, removed=removed)))
    review.set_threshold(0.0)
    assert len(keys) == 3 and [review.items[key].score for key in review.keys_in()] == pytest.approx([0.9, 0.8, 0.3])


def test_hidden_instances_stay_in_the_result(review):
    review.set_hidden([1], hidden=True)
    assert review.keys_shown() == {2, 3} and review.keys_in() == [1, 2, 3]
    review.set_hidden([1], hidden=False)
    assert review.keys_shown() == {1, 2, 3}


def test_every_edit_is_undone_and_done_again(review):
    start = review.to_result()
    review.relabel([2], "cyst")
    review.merge([3, 4])
    review.split(1)
    review.delete([2])
    review.add("tumour", block((0, 15, 0), (2, 2, 2)))
    review.repaint({3: ("tumour", block((5, 12, 12), (1, 2, 2))), 40: ("tumour", block((7, 0, 0), (1, 1, 1)))})
    end = kept_classes(review)
    assert review.undo_text == "paint" and review.unused_key() == 41
    for _ in range(6):
        review.undo()
    assert review.undo_text == "" and review.redo_text == "relabel as cyst"
    now = review.to_result()
    assert now.review is None and now.measurements == start.measurements
    assert all(a is b for a, b in zip(now.candidates.masks, start.candidates.masks, strict=True))
    for _ in range(6):
        review.redo()
    assert kept_classes(review) == end and review.redo_text == ""
    review.undo()
    review.decide([3], "accepted")
    assert review.redo_text == ""  # a new change takes the place of what was undone


def test_listeners_hear_of_what_changed_and_of_nothing_else(review):
    heard: list[set[int]] = []
    review.edited.connect(heard.append)
    review.relabel([2, 3], "cyst")
    key = review.merge([2, 3])
    review.undo()
    assert key == 2 and heard == [{2, 3}, {2, 3}, {2, 3}]


def test_merging_unites_masks_under_the_most_certain(review):
    review.set_threshold(0.2)
    assert review.merge([4, 3]) == 3
    item = review.items[3]
    assert item.mask.start == (5, 12, 12) and item.mask.array.shape == (2, 3, 9) and item.mask.n_voxels == 36
    assert item.score == pytest.approx(0.6) and item.changed and 4 not in review.items
    assert item.size.volume_unit3 == 36 * 2.0  # 2 x 1 x 1 mm voxels
    with pytest.raises(ValueError, match="two or more"):
        review.merge([3])


def test_splitting_parts_that_do_not_touch(review):
    review.set_threshold(0.2)
    key = review.merge([3, 4])
    keys = review.split(key)
    assert keys == [3, 5] and [review.items[k].mask.n_voxels for k in keys] == [18, 18]
    assert review.items[5].class_name == "tumour" and review.items[5].changed


def test_a_dumbbell_falls_apart_at_its_neck():
    mask = np.zeros((5, 5, 14), bool)
    mask[:, :, :5] = mask[:, :, 9:] = True
    mask[2, 2, 5:9] = True
    pieces = divided(Mask((1, 2, 3), mask), (1.0, 1.0, 1.0))
    assert len(pieces) == 2 and sum(piece.n_voxels for piece in pieces) == mask.sum()
    assert sorted(piece.start[2] for piece in pieces) in ([3, 10], [3, 11])


def test_a_ball_is_cut_in_two_halves():
    grid = np.indices((9, 9, 9)) - 4
    pieces = divided(Mask((0, 0, 0), (grid**2).sum(axis=0) <= 16), (1.0, 1.0, 1.0))
    sizes = [piece.n_voxels for piece in pieces]
    assert len(sizes) == 2 and min(sizes) > 0.35 * sum(sizes)


def test_a_single_voxel_cannot_be_split(review):
    key = review.add("tumour", block((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ValueError, match="single voxel"):
        review.split(key)


def test_what_is_added_is_in_the_result_whatever_the_threshold(review):
    review.set_threshold(1.0)
    key = review.add("polyp", block((0, 0, 0), (1, 2, 2)))
    assert review.keys_in() == [key] and review.class_names == ("liver", "tumour", "polyp")
    result = review.to_result()
    assert len(result.candidates) == 5 and result.review.accepted == (0,) and result.review.changed == (0,)
    with pytest.raises(ValueError, match="nothing in this place"):
        review.add("polyp", Mask((0, 0, 0), np.zeros((1, 2, 2), bool)))
    with pytest.raises(ValueError, match="name"):
        review.relabel([key], "  ")


def test_painting_an_instance_away_deletes_it(review):
    review.repaint({2: ("tumour", Mask((1, 3, 3), np.zeros((2, 2, 2), bool)))})
    assert 2 not in review.items
    review.undo()
    assert 2 in review.items


def test_a_result_of_another_scan_is_refused(review, make_result):
    _, other = make_result(BLOCKS, (9, 20, 24))
    with pytest.raises(ValueError, match="grids differ"):
        ReviewModel(review.volume, other)


def test_without_any_decision_the_result_is_the_one_that_came(make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    save_case(result, tmp_path / "a.npz")
    save_case(ReviewModel(volume, result).to_result(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
