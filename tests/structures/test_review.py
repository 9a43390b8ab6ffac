"""What a person decided outranks scores, in the result and on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medmaskrcnn.errors import ReadError
from medmaskrcnn.structures.case_result import CaseResult, Measurement, Review, RunRecord
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.instances import Instances, Removal
from medmaskrcnn.structures.mask import Mask
from medmaskrcnn.structures.store import load_case, save_case

SIZE = Measurement("mm", 1.0, 1.0, 1.0, (0.0, 0.0, 0.0), 1.0, 1.0, 1.0)
GRID = Grid((1, 1, 8), np.eye(4))


def result(review: Review | None = None) -> CaseResult:
    """Livers of 0.9, 0.4; tumours of 0.8, 0.6, 0.2; threshold 0.5."""
    scores = np.array([0.9, 0.8, 0.6, 0.4, 0.2], np.float32)
    starts = np.array([[0, 0, i] for i in range(5)])
    found = Instances(
        grid=GRID,
        class_names=("liver", "tumour"),
        labels=np.array([0, 1, 1, 0, 1]),
        scores=scores,
        boxes=np.concatenate([starts, starts + 1], axis=1).astype(np.float32),
        masks=tuple(Mask(start, np.ones((1, 1, 1), bool)) for start in starts),
    )
    record = RunRecord("medmaskrcnn 0", "m", "0" * 64, "CC0", "cpu", "fp32")
    return CaseResult(found, 0.5, (SIZE,) * 5, record, review=review)


def test_accepted_candidates_are_in_and_rejected_ones_out_whatever_their_score():
    assert result().kept == [0, 1, 2]
    assert result(Review()).kept == [0, 1, 2]
    assert result(Review(accepted=(4,), rejected=(0, 1))).kept == [2, 4]


def test_a_class_may_have_a_threshold_of_its_own():
    assert result(Review(class_thresholds={"tumour": 0.7})).kept == [0, 1]
    assert result(Review(class_thresholds={"liver": 0.4, "tumour": 0.2})).kept == [0, 3, 1, 2, 4]
    assert result(Review(rejected=(3,), class_thresholds={"liver": 0.0})).kept == [0, 1, 2]


def test_no_threshold_takes_in_what_was_removed_but_a_person_may():
    plain = result()
    removed = np.array([0, Removal.CONTAINED, 0, Removal.DUPLICATE, 0], np.uint8)
    found = replace(plain, candidates=replace(plain.candidates, removed=removed))
    assert found.kept == [0, 2]
    assert replace(found, score_threshold=0.0).kept == [0, 2, 4]
    everything = Review(class_thresholds={"liver": 0.0, "tumour": 0.0})
    assert replace(found, review=everything).kept == [0, 2, 4]
    assert replace(found, review=replace(everything, accepted=(3,))).kept == [0, 3, 2, 4]
    assert found.candidates.without_removed().scores.tolist() == plain.candidates.scores[[0, 2, 4]].tolist()


def test_a_review_is_stored_without_loss(tmp_path: Path):
    review = Review((4,), (0, 1), (2, 4), {"tumour": 0.25})
    save_case(result(review), tmp_path / "reviewed.npz")
    again = load_case(tmp_path / "reviewed.npz")
    assert again.review == review and again.kept == result(review).kept


def test_without_a_review_the_file_is_as_it_was_before_there_were_any(tmp_path: Path):
    save_case(result(), tmp_path / "plain.npz")
    header = np.load(tmp_path / "plain.npz", allow_pickle=False)["header"].tobytes()
    assert b"review" not in header and load_case(tmp_path / "plain.npz").review is None


def test_a_review_of_candidates_that_are_not_there_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"names candidates that are not there: \[5\]"):
        result(Review(accepted=(5,)))
    good = result(Review(accepted=(4,)))
    object.__setattr__(good.review, "accepted", (9,))
    save_case(good, tmp_path / "bad.npz")
    with pytest.raises(ReadError, match="is damaged"):
        load_case(tmp_path / "bad.npz")


def test_replacing_a_review_leaves_the_candidates():
    reviewed = replace(result(), review=Review(rejected=(0,)))
    assert len(reviewed.candidates) == 5 and len(reviewed.instances) == 2
