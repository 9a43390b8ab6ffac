"""Subclasses of tensors (MONAI's MetaTensor, parameters, one of a user's own) go in; plain tensors come out."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn

from medmaskrcnn_kernels import (
    batched_nms,
    mask_windows,
    multiscale_roi_align,
    nms,
    paste_masks,
    roi_align,
    roi_pool,
)
from medmaskrcnn_kernels.plain import plain

Make = Callable[[Tensor], Tensor]
INDEX = torch.tensor([0, 1, 1])
SCORES = torch.tensor([0.5, 0.6, 0.7])


class Tagged(Tensor):
    """A subclass of a user's own, with a method of PyTorch's that takes its arguments otherwise."""

    def new_empty(self, size: tuple[int, ...], **options: object) -> Tensor:  # type: ignore[override]
        return super().new_empty(tuple(size), **options)  # type: ignore[no-any-return]


def metatensor(tensor: Tensor) -> Tensor:
    from monai.data import MetaTensor

    made: Tensor = MetaTensor(tensor)
    return made


def parameter(tensor: Tensor) -> Tensor:
    return nn.Parameter(tensor, requires_grad=tensor.is_floating_point())


def tagged(tensor: Tensor) -> Tensor:
    return tensor.as_subclass(Tagged)  # type: ignore[attr-defined]


# The operators' tests also run where nothing but torch is installed.
KINDS = pytest.mark.parametrize("make", [*([metatensor] if find_spec("monai") else []), parameter, tagged])


def boxes(dims: int) -> Tensor:
    return torch.tensor([[1.0] * dims + [9.0] * dims, [0.0] * dims + [30.0] * dims, [3.0] * dims + [5.0] * dims])


def operators(dims: int, make: Make) -> dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]]:
    """Every operator with its tensors, each made by ``make``."""
    draw = torch.Generator().manual_seed(dims)
    maps = [torch.randn(2, 3, *[size] * dims, generator=draw) for size in (8, 4)]
    masks, windows = torch.rand(3, *[4] * dims, generator=draw), mask_windows(boxes(dims), (40,) * dims)

    def align(features: Tensor, own: Tensor, index: Tensor) -> Tensor:
        return roi_align(features, own, index, output_size=3, spatial_scale=0.25)

    def over_pyramid(fine: Tensor, coarse: Tensor, own: Tensor, index: Tensor) -> Tensor:
        return multiscale_roi_align([fine, coarse], own, index, output_size=3, strides=[4, 8], canonical_size=40)

    def pool(features: Tensor, own: Tensor, index: Tensor) -> Tensor:
        return roi_pool(features, own, index, output_size=3, spatial_scale=0.25)

    found: dict[str, tuple[Callable[..., object], tuple[Tensor, ...]]] = {
        "roi_align": (align, (maps[0], boxes(dims), INDEX)),
        "multiscale_roi_align": (over_pyramid, (*maps, boxes(dims), INDEX)),
        "roi_pool": (pool, (maps[0], boxes(dims), INDEX)),
        "nms": (lambda own, scores: nms(own, scores, 0.05), (boxes(dims), SCORES)),
        "batched_nms": (lambda own, scores, i: batched_nms(own, scores, i, 0.05), (boxes(dims), SCORES, INDEX)),
        "mask_windows": (lambda own: mask_windows(own, (40,) * dims), (boxes(dims),)),
        "paste_masks": (paste_masks, (masks, boxes(dims), windows)),
    }
    return {name: (call, tuple(map(make, tensors))) for name, (call, tensors) in found.items()}


def as_list(result: object) -> list[Tensor]:
    return result if isinstance(result, list) else [result]  # type: ignore[list-item]


@KINDS
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("recorded", [True, False])
def test_operators_read_them_and_give_plain_tensors(make: Make, dims: int, recorded: bool) -> None:
    as_they_are = operators(dims, lambda tensor: tensor)
    for name, (call, tensors) in operators(dims, make).items():
        expected = as_list(as_they_are[name][0](*as_they_are[name][1]))
        with torch.set_grad_enabled(recorded), torch.autocast("cpu", dtype=torch.bfloat16):
            found = as_list(call(*tensors))
        assert [type(one) for one in found] == [Tensor] * len(expected), name
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == other.dtype, name
            assert torch.equal(one, other), name


@KINDS
@pytest.mark.parametrize("name", ["roi_align", "multiscale_roi_align", "roi_pool"])
def test_gradients_reach_them(make: Make, name: str) -> None:
    def gradient(kind: Make, weight: Make) -> Tensor:
        call, (features, *others) = operators(3, lambda tensor: tensor)[name]
        features = kind(features).requires_grad_()
        pooled = call(features, *others)
        assert isinstance(pooled, Tensor)
        pooled.backward(weight(torch.linspace(0, 1, pooled.numel()).view(pooled.shape)))
        assert features.grad is not None
        return features.grad

    expected = gradient(lambda tensor: tensor, lambda tensor: tensor)
    assert torch.equal(plain(gradient(make, lambda tensor: tensor)), expected)
    if make is not parameter:
        assert torch.equal(plain(gradient(make, make)), expected)


@KINDS
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_they_go_through_compiled_functions(make: Make, backend: str) -> None:
    for name in ("multiscale_roi_align", "nms"):
        call, tensors = operators(2, make)[name]
        torch._dynamo.reset()
        found = torch.compile(call, backend=backend)(*tensors)
        assert type(found) is Tensor, name
        assert torch.equal(found, call(*tensors)), name


def test_a_tensor_that_stands_for_its_values_is_left_to_pytorch() -> None:
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        fake = torch.empty(1, 2, 8, 8)
        pooled = roi_align(fake, torch.empty(3, 4), torch.empty(3, dtype=torch.int64), output_size=2, spatial_scale=1.0)
    assert isinstance(pooled, FakeTensor) and pooled.shape == (3, 2, 2, 2)


def test_nothing_is_copied() -> None:
    own = tagged(torch.ones(3))
    assert plain(own).data_ptr() == own.data_ptr()
    tensor = torch.ones(3)
    assert plain(tensor) is tensor
