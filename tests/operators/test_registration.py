"""The operators as graph nodes: torch's own check of the registration, torch.compile and torch.export."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from medmaskrcnn_kernels import library, multiscale_roi_align, nms

INDEX = torch.tensor([0, 1, 1])


def pyramid(dims: int, *, last: bool, gradient: bool) -> list[Tensor]:
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    maps = [torch.randn(2, 3, *[size] * dims) for size in (8, 4)]
    return [(m.contiguous(memory_format=layout) if last else m).requires_grad_(gradient) for m in maps]


def boxes(dims: int) -> Tensor:
    return torch.tensor([[1.0] * dims + [9.0] * dims, [0.0] * dims + [30.0] * dims, [3.0] * dims + [5.0] * dims])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("last", [False, True])
def test_roi_align_is_registered_soundly(dims: int, last: bool) -> None:
    arguments = (boxes(dims), INDEX, [0.25] * dims + [0.125] * dims, [400.0], [2] * dims, 2, True)
    torch.library.opcheck(library.roi_align, (pyramid(dims, last=last, gradient=True), *arguments))


def test_nms_is_registered_soundly() -> None:
    scores = torch.tensor([0.5, 0.6, 0.7])
    torch.library.opcheck(library.nms, (boxes(3), scores, 0.5))
    torch.library.opcheck(library.batched_nms, (boxes(3), scores, INDEX, 0.5))


class Pooler(nn.Module):
    """What a detector does with boxes: choose some, pool them, weigh them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, fine: Tensor, coarse: Tensor, boxes: Tensor, index: Tensor) -> Tensor:
        pooled = multiscale_roi_align([fine, coarse], boxes, index, output_size=3, strides=[4, 8], canonical_size=40)
        return pooled * self.weight


def test_compiles_to_one_graph_with_gradients() -> None:
    model, maps = Pooler(), pyramid(2, last=False, gradient=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    expected = model(*maps, boxes(2), INDEX)
    expected.square().sum().backward()
    gradients = [m.grad for m in maps]
    for m in maps:
        m.grad = None
    found = compiled(*maps, boxes(2), INDEX)
    found.square().sum().backward()
    torch.testing.assert_close(found, expected)
    for own, theirs in zip(maps, gradients, strict=True):
        torch.testing.assert_close(own.grad, theirs)


def test_nms_compiles_to_one_graph() -> None:
    @torch.compile(fullgraph=True, backend="aot_eager")
    def best(found: Tensor, scores: Tensor) -> Tensor:
        return found[nms(found, scores, 0.5)] * 2

    scores = torch.tensor([0.5, 0.6, 0.7])
    assert torch.equal(best(boxes(2), scores), boxes(2)[nms(boxes(2), scores, 0.5)] * 2)


def test_exports() -> None:
    model, maps = Pooler(), pyramid(3, last=False, gradient=False)
    program = torch.export.export(model, (*maps, boxes(3), INDEX))
    torch.testing.assert_close(program.module()(*maps, boxes(3), INDEX), model(*maps, boxes(3), INDEX))
    with pytest.raises(ValueError, match="boxes row 0 is not a box"):
        program.module()(*maps, boxes(3).flip(1), INDEX)


def test_a_first_call_does_not_load_the_compiler() -> None:
    code = (
        "import sys, torch, medmaskrcnn_kernels as kernels\n"
        "boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]], requires_grad=False)\n"
        "kernels.nms(boxes, torch.ones(1), 0.5)\n"
        "features = torch.zeros(1, 2, 8, 8, requires_grad=True)\n"
        "kernels.roi_align(features, boxes, torch.zeros(1, dtype=torch.int64), output_size=2, spatial_scale=1.0)\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
