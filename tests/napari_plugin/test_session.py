"""A review without a screen: decisions, edits, the way back, and what is saved of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.structures.store import load_case, save_case
from napari_medmaskrcnn.core.items import divided, united
from napari_medmaskrcnn.core.session import Session

SHAPE = (8, 20, 24)
BLOCKS = [
    ("liver", 0.9, (0, 1, 1), (4, 8, 8)),
    ("tumour", 0.8, (1, 3, 3), (2, 2, 2)),
    ("tumour", 0.6, (5, 12, 12), (2, 3, 3)),
    ("tumour", 0.3, (5, 12, 18), (2, 3, 3)),
]


@pytest.fixture
def session(make_result) -> Session:
    return Session(*make_result(BLOCKS, SHAPE))


def kept_classes(session: Session) -> list[tuple[str, int]]:
    found = session.to_result().instances
    return [(found.class_names[label], int(mask.sum())) for label, mask in zip(found.labels, found.masks, strict=True)]


def test_thresholds_act_on_all_or_on_one_class(session):
    assert session.keys_in() == [1, 2, 3]
    session.set_threshold(0.2)
    assert session.keys_in() == [1, 2, 3, 4]
    session.set_threshold(0.7, "tumour")
    assert session.keys_in() == [1, 2]
    session.set_threshold(0.95)
    assert session.keys_in() == [] and session.class_thresholds == {}


def test_what_is_decided_outranks_the_score_and_is_saved(session, tmp_path: Path):
    session.decide([4], "accepted")
    session.decide([1], "rejected")
    assert session.keys_in() == [2, 3, 4]
    save_case(session.to_result(), tmp_path / "r.npz")
    again = Session(session.volume, load_case(tmp_path / "r.npz"))
    assert [again.items[k].score for k in again.keys_in()] == [again.items[k].score for k in (2, 3, 4)]
    assert {again.items[k].verdict for k in again.items} == {"", "accepted", "rejected"}
    again.decide([1], "")
    assert again.keys_in() == [1, 2, 3, 4]


def test_hidden_instances_stay_in_the_result(session):
    session.set_hidden([1], hidden=True)
    assert session.keys_shown() == {2, 3} and session.keys_in() == [1, 2, 3]
    session.set_hidden([1], hidden=False)
    assert session.keys_shown() == {1, 2, 3}


def test_every_edit_is_undone_and_done_again(session):
    start = session.to_result()
    session.relabel([2], "cyst")
    session.merge([3, 4])
    session.split(1)
    session.delete([2])
    session.add("tumour", (0, 15, 0), np.ones((2, 2, 2), bool))
    session.repaint(
        {3: ("tumour", (5, 12, 12), np.ones((1, 2, 2), bool)), 40: ("tumour", (7, 0, 0), np.ones((1, 1, 1), bool))}
    )
    end = kept_classes(session)
    assert session.undo_text == "paint" and session.unused_key() == 41
    for _ in range(6):
        session.undo()
    assert session.undo_text == "" and session.redo_text == "relabel as cyst"
    now = session.to_result()
    assert now.review is None and now.measurements == start.measurements
    assert all(a is b for a, b in zip(now.candidates.masks, start.candidates.masks, strict=True))
    for _ in range(6):
        session.redo()
    assert kept_classes(session) == end and session.redo_text == ""
    session.undo()
    session.decide([3], "accepted")
    assert session.redo_text == ""  # a new change takes the place of what was undone


def test_listeners_hear_of_what_changed_and_of_nothing_else(session):
    heard: list[set[int]] = []
    session.edited.connect(heard.append)
    session.relabel([2, 3], "cyst")
    key = session.merge([2, 3])
    session.undo()
    assert key == 2 and heard == [{2, 3}, {2, 3}, {2, 3}]


def test_merging_unites_masks_under_the_most_certain(session):
    session.set_threshold(0.2)
    assert session.merge([4, 3]) == 3
    item = session.items[3]
    assert item.start == (5, 12, 12) and item.mask.shape == (2, 3, 9) and item.mask.sum() == 36
    assert item.score == pytest.approx(0.6) and item.changed and 4 not in session.items
    assert item.size.volume == 36 * 2.0  # 2 x 1 x 1 mm voxels
    with pytest.raises(ValueError, match="two or more"):
        session.merge([3])


def test_splitting_parts_that_do_not_touch(session):
    session.set_threshold(0.2)
    key = session.merge([3, 4])
    keys = session.split(key)
    assert keys == [3, 5] and [int(session.items[k].mask.sum()) for k in keys] == [18, 18]
    assert session.items[5].class_name == "tumour" and session.items[5].changed


def test_a_dumbbell_falls_apart_at_its_neck():
    mask = np.zeros((5, 5, 14), bool)
    mask[:, :, :5] = mask[:, :, 9:] = True
    mask[2, 2, 5:9] = True
    pieces = divided((1, 2, 3), mask, (1.0, 1.0, 1.0))
    assert len(pieces) == 2 and sum(int(m.sum()) for _, m in pieces) == mask.sum()
    assert sorted(start[2] for start, _ in pieces) in ([3, 10], [3, 11])


def test_a_ball_is_cut_in_two_halves():
    grid = np.indices((9, 9, 9)) - 4
    pieces = divided((0, 0, 0), (grid**2).sum(axis=0) <= 16, (1.0, 1.0, 1.0))
    sizes = [int(m.sum()) for _, m in pieces]
    assert len(sizes) == 2 and min(sizes) > 0.35 * sum(sizes)


def test_a_single_voxel_cannot_be_split(session):
    key = session.add("tumour", (0, 0, 0), np.ones((1, 1, 1), bool))
    with pytest.raises(ValueError, match="single voxel"):
        session.split(key)


def test_union_of_crops_by_pencil():
    start, mask = united([((1, 1, 1), np.ones((1, 1, 2), bool)), ((2, 1, 0), np.ones((1, 1, 1), bool))])
    assert start == (1, 1, 0)
    assert mask.astype(int).tolist() == [[[0, 1, 1]], [[1, 0, 0]]]


def test_what_is_added_is_in_the_result_whatever_the_threshold(session):
    session.set_threshold(1.0)
    key = session.add("polyp", (0, 0, 0), np.ones((1, 2, 2), bool))
    assert session.keys_in() == [key] and session.class_names == ("liver", "tumour", "polyp")
    result = session.to_result()
    assert len(result.candidates) == 5 and result.review.accepted == (0,) and result.review.changed == (0,)
    with pytest.raises(ValueError, match="nothing in this place"):
        session.add("polyp", (0, 0, 0), np.zeros((1, 2, 2), bool))
    with pytest.raises(ValueError, match="name"):
        session.relabel([key], "  ")


def test_painting_an_instance_away_deletes_it(session):
    session.repaint({2: ("tumour", (1, 3, 3), np.zeros((2, 2, 2), bool))})
    assert 2 not in session.items
    session.undo()
    assert 2 in session.items


def test_a_result_of_another_scan_is_refused(session, make_result):
    _, other = make_result(BLOCKS, (9, 20, 24))
    with pytest.raises(ValueError, match="grids differ"):
        Session(session.volume, other)


def test_without_any_decision_the_result_is_the_one_that_came(make_result, tmp_path: Path):
    volume, result = make_result(BLOCKS, SHAPE)
    save_case(result, tmp_path / "a.npz")
    save_case(Session(volume, result).to_result(), tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
