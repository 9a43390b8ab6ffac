"""Anchors: worked by hand, and against torchvision's generator."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from medmaskrcnn.models.anchors import base_anchors, grid_anchors, level_strides
from medmaskrcnn.settings import AnchorSettings

CPU = torch.device("cpu")
STRIDES_2D = ((4, 4), (8, 8), (16, 16), (32, 32), (64, 64))
ROUNDING = 1e-4  # voxels; float32 of coordinates up to 1,000


def test_base_anchors_keep_their_area() -> None:
    anchors = base_anchors((8, 8), (0.25, 1.0, 4.0), rounded=False)
    # height over width: 4 x 16, 8 x 8, 16 x 4
    torch.testing.assert_close(anchors, torch.tensor([[-2.0, -8, 2, 8], [-4, -4, 4, 4], [-8, -2, 8, 2]]))


def test_base_anchors_of_a_thick_volume_keep_their_depth() -> None:
    anchors = base_anchors((5, 8, 8), (1.0, 4.0), rounded=False)
    torch.testing.assert_close(anchors, torch.tensor([[-2.5, -4, -4, 2.5, 4, 4], [-2.5, -8, -2, 2.5, 8, 2]]))


def test_rounding_takes_half_to_even() -> None:
    anchors = base_anchors((5, 7), (1.0,), rounded=True)
    assert anchors.tolist() == [[-2, -4, 2, 4]]


def test_cells_are_row_major_and_anchors_of_a_cell_side_by_side() -> None:
    settings = AnchorSettings(sizes=((2, 2),) * 5, ratios=(1.0, 4.0))
    levels = grid_anchors(settings, image=(8, 12), maps=((2, 3),) * 5, strides=((4, 4),) * 5, device=CPU)
    centres = (levels[0][:, :2] + levels[0][:, 2:]) / 2
    # the first cell's centre lies half a stride in
    assert centres.tolist() == [
        [2, 2], [2, 2], [2, 6], [2, 6], [2, 10], [2, 10], [6, 2], [6, 2], [6, 6], [6, 6], [6, 10], [6, 10],
    ]  # fmt: skip
    edges = levels[0][:, 2:] - levels[0][:, :2]
    assert edges[:2].tolist() == [[2, 2], [4, 1]]


def test_strides_are_per_axis_in_3d() -> None:
    settings = AnchorSettings(sizes=((4, 8, 8),) * 5, ratios=(1.0,), offset=0.0)
    level = grid_anchors(settings, image=(4, 16, 16), maps=((4, 4, 4),) * 5, strides=((1, 4, 4),) * 5, device=CPU)[0]
    assert level.shape == (64, 6)
    assert level[0].tolist() == [-2, -4, -4, 2, 4, 4]
    assert level[-1].tolist() == [1, 8, 8, 5, 16, 16]


@pytest.mark.parametrize("image", [(64, 96), (832, 1088), (96, 160)], ids=str)
def test_torchvision_as_oracle(image: tuple[int, int]) -> None:
    sizes, ratios = (32, 64, 128, 256, 512), (0.5, 1.0, 2.0)
    maps = [(image[0] // s, image[1] // s) for s in (4, 8, 16, 32)]
    maps.append(((maps[-1][0] + 1) // 2, (maps[-1][1] + 1) // 2))  # P6: of an odd P5 half a cell more
    oracle = AnchorGenerator(tuple((s,) for s in sizes), (ratios,) * 5)
    images = ImageList(torch.zeros(1, 3, *image), [image])
    (expected,) = oracle(images, [torch.zeros(1, 1, *m) for m in maps])
    settings = AnchorSettings(sizes=tuple((s, s) for s in sizes), offset=0.0, rounded=True, stride_from_size=True)
    ours = torch.cat(grid_anchors(settings, image=image, maps=tuple(maps), strides=STRIDES_2D, device=CPU))
    torch.testing.assert_close(ours[:, [1, 0, 3, 2]], expected, atol=ROUNDING, rtol=0)


def test_stride_rules_differ_where_p5_is_odd() -> None:
    image, maps = (96, 160), ((24, 40), (12, 20), (6, 10), (3, 5), (2, 3))
    network = level_strides(image, maps, STRIDES_2D, AnchorSettings())
    torchvision = level_strides(image, maps, STRIDES_2D, AnchorSettings(stride_from_size=True))
    assert network == [(4, 4), (8, 8), (16, 16), (32, 32), (64, 64)]
    assert torchvision == [(4, 4), (8, 8), (16, 16), (32, 32), (48, 53)]
