"""One object that several tiles saw is one; two that touch are two."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medmaskrcnn.inference.detection import Detection
from medmaskrcnn.inference.merge_tiles import Tile, merge_tiles, tile_starts
from medmaskrcnn.structures.mask import Mask

SHAPE = (4, 6, 40)
LEFT = Tile((0, 0, 0), (4, 6, 24))
RIGHT = Tile((0, 0, 16), (4, 6, 40))
Make = Callable[..., Detection]
Dense = Callable[..., np.ndarray]


def bar(first: int, last: int) -> np.ndarray:
    """A bar along W from voxel ``first`` to ``last - 1``."""
    dense = np.zeros(SHAPE, bool)
    dense[1:3, 2:5, first:last] = True
    return dense


def seen_by(tile: Tile, dense: np.ndarray) -> np.ndarray:
    """What of an object lies in a tile."""
    inside = np.zeros(SHAPE, bool)
    inside[tuple(slice(a, b) for a, b in zip(tile.low, tile.high, strict=True))] = True
    return dense & inside


def test_an_object_cut_by_a_border_is_joined(as_found: Make, as_dense: Dense) -> None:
    whole = bar(10, 34)
    seen = [(as_found(seen_by(t, whole), score=s), t) for t, s in ((LEFT, 0.6), (RIGHT, 0.8))]
    (joined,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(joined, SHAPE), whole)
    assert joined.score == 0.8 and joined.box.tolist() == [1, 2, 10, 3, 5, 34]


def test_a_cut_piece_with_the_better_score_does_not_hide_the_whole(as_found: Make, as_dense: Dense) -> None:
    whole = bar(18, 30)  # RIGHT holds it, LEFT cuts it
    seen = [(as_found(seen_by(LEFT, whole), score=0.9), LEFT), (as_found(whole, score=0.7), RIGHT)]
    (joined,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(joined, SHAPE), whole)
    assert joined.score == 0.7


def test_a_piece_that_ends_short_of_the_border_is_a_piece_all_the_same(as_found: Make, as_dense: Dense) -> None:
    """The network seldom draws a cut object right up to its tile's border."""
    seen = [(as_found(bar(10, 22), score=0.9), LEFT), (as_found(bar(17, 34), score=0.5), RIGHT)]
    (joined,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(joined, SHAPE), bar(10, 34))


def test_duplicates_become_the_more_certain_one(as_found: Make, as_dense: Dense) -> None:
    seen = [(as_found(bar(17, 22), score=0.6), LEFT), (as_found(bar(18, 23), score=0.8), RIGHT)]
    (one,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(one, SHAPE), bar(18, 23))
    assert one.score == 0.8


def test_two_touching_objects_stay_two(as_found: Make) -> None:
    a, b = bar(10, 20), bar(20, 30)
    seen = [(as_found(seen_by(t, d), score=s), t) for d, s in ((a, 0.9), (b, 0.8)) for t in (LEFT, RIGHT)]
    merged = merge_tiles(seen, merge_iou=0.3)
    assert sorted(m.mask.n_voxels for m in merged) == [60, 60]


def test_two_that_one_tile_tells_apart_are_not_joined_by_another(as_found: Make, as_dense: Dense) -> None:
    a, b = bar(17, 20), bar(20, 23)
    seen = [(as_found(a, score=0.9), LEFT), (as_found(b, score=0.8), LEFT), (as_found(a | b, score=0.95), RIGHT)]
    merged = merge_tiles(seen, merge_iou=0.3)
    assert len(merged) == 2
    assert any(np.array_equal(as_dense(m, SHAPE), b) or np.array_equal(as_dense(m, SHAPE), a) for m in merged)


def test_objects_that_agree_too_little_stay_two(as_found: Make) -> None:
    seen = [(as_found(bar(16, 19), score=0.6), LEFT), (as_found(bar(18, 24), score=0.8), RIGHT)]
    assert len(merge_tiles(seen, merge_iou=0.3)) == 2  # 1 of 8 voxels along W
    assert len(merge_tiles(seen, merge_iou=0.1)) == 1


def test_agreement_is_asked_only_where_both_looked(as_found: Make) -> None:
    """A long object shares few of its voxels with the other tile, but all that the other can know of."""
    tiles = Tile((0, 0, 0), (4, 6, 22)), Tile((0, 0, 20), (4, 6, 40))
    seen = [(as_found(seen_by(t, bar(0, 40))), t) for t in tiles]
    assert len(merge_tiles(seen, merge_iou=0.9)) == 1


@pytest.mark.parametrize("scores", [(0.9, 0.5, 0.8), (0.5, 0.9, 0.8), (0.9, 0.8, 0.5), (0.7, 0.7, 0.7)])
def test_three_tiles_in_a_chain(as_found: Make, as_dense: Dense, scores: tuple[float, ...]) -> None:
    """The outer two share no voxel; only the middle piece holds them together, however uncertain it is."""
    tiles = [Tile((0, 0, a), (4, 6, b)) for a, b in ((0, 16), (12, 28), (24, 40))]
    whole = bar(3, 37)
    seen = [(as_found(seen_by(t, whole), score=s), t) for t, s in zip(tiles, scores, strict=True)]
    (joined,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(joined, SHAPE), whole)
    assert joined.score == max(scores)


def test_a_whole_object_in_the_middle_of_three_tiles(as_found: Make, as_dense: Dense) -> None:
    tiles = [Tile((0, 0, a), (4, 6, b)) for a, b in ((0, 20), (10, 30), (20, 40))]
    whole = bar(12, 28)
    seen = [(as_found(seen_by(t, whole), score=s), t) for t, s in zip(tiles, (0.9, 0.6, 0.8), strict=True)]
    (joined,) = merge_tiles(seen, merge_iou=0.3)
    np.testing.assert_array_equal(as_dense(joined, SHAPE), whole)
    assert joined.score == 0.6


def test_classes_never_merge(as_found: Make) -> None:
    seen = [(as_found(bar(17, 22), label=0), LEFT), (as_found(bar(17, 22), label=1), RIGHT)]
    assert {m.label for m in merge_tiles(seen, merge_iou=0.0)} == {0, 1}


def test_detections_of_one_tile_stay_as_they_are(as_found: Make) -> None:
    seen = [(as_found(bar(5, 15), score=0.5), LEFT), (as_found(bar(6, 15), score=0.9), LEFT)]
    assert [m.score for m in merge_tiles(seen, merge_iou=0.1)] == [0.9, 0.5]


def test_nothing_and_objects_without_voxels(as_found: Make) -> None:
    assert merge_tiles([], merge_iou=0.3) == []
    empty = Detection(0, 0.9, np.zeros(6, np.float32), Mask((1, 2, 3), np.zeros((0, 0, 0), bool)))
    seen = [(empty, LEFT), (as_found(bar(17, 22), score=0.5), RIGHT)]
    assert [m.mask.n_voxels for m in merge_tiles(seen, merge_iou=0.0)] == [0, 30]


def test_every_object_of_a_cube_of_tiles_is_found_once(as_found: Make, as_dense: Dense) -> None:
    """Perfect detections of random boxes in 27 tiles: the merged objects are the boxes."""
    shape, rng = (24, 24, 24), np.random.default_rng(2)
    starts = tile_starts(24, 12, 0.4)
    tiles = [Tile((a, b, c), (a + 12, b + 12, c + 12)) for a in starts for b in starts for c in starts]
    objects = []
    for cell in np.ndindex(2, 2, 2):
        low = np.array(cell) * 12 + rng.integers(0, 4, 3)
        dense = np.zeros(shape, bool)
        dense[tuple(slice(a, a + n) for a, n in zip(low, rng.integers(4, 9, 3), strict=True))] = True
        objects.append(dense)
    seen = []
    for tile in tiles:
        window = tuple(slice(a, b) for a, b in zip(tile.low, tile.high, strict=True))
        for dense in objects:
            inside = np.zeros(shape, bool)
            inside[window] = dense[window]
            if inside.any():
                seen.append((as_found(inside, score=float(rng.random())), tile))
    merged = merge_tiles(seen, merge_iou=0.3)
    assert len(seen) > len(merged) == 8
    for dense in objects:
        assert any(np.array_equal(as_dense(m, shape), dense) for m in merged)


@given(st.integers(1, 400), st.integers(1, 200), st.floats(0, 0.95))
def test_tiles_cover_everything_with_the_overlap_asked(length: int, tile: int, overlap: float) -> None:
    starts = tile_starts(length, tile, overlap)
    if length <= tile:
        assert starts == [0]
        return
    assert starts[0] == 0 and starts[-1] + tile == length
    for a, b in pairwise(starts):
        assert a < b <= a + tile  # no tile twice, no gap
        assert a + tile - b >= min(tile * overlap, tile - 1) - 1e-6


def test_tile_starts_by_hand() -> None:
    assert tile_starts(300, 160, 0.25) == [0, 70, 140]  # two steps of at most 120
    assert tile_starts(160, 160, 0.25) == [0]
    assert tile_starts(161, 160, 0.25) == [0, 1]
    assert tile_starts(10, 5, 0.0) == [0, 5]
