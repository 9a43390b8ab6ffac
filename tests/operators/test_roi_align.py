"""RoIAlign against a pencil, against torchvision in 2D, against the reference in 3D, and against itself."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from medmaskrcnn_kernels import library, reference, roi_align, roi_align_portable, separable

VALUE_TOLERANCE = 1e-5  # float32 sums of a few hundred products of numbers near 1
GRADIENT_TOLERANCE = 1e-5  # relative to the largest gradient: many boxes may add up in one cell
INTERPRETED = bool(os.environ.get("TRITON_INTERPRET"))  # see test_triton_in_interpreter.py: small shapes only
SMALL_2D, SMALL_3D = ((2, 6), (1, 3)) if INTERPRETED else ((9, 36), (2, 8))
EXAMPLES = 8 if INTERPRETED else 20
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"  # where our operator runs; the oracles stay on the CPU
STEP_DISTANCE = 1e-3  # in cells: how far drawn samples stay from where the definition jumps, far above rounding


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan() -> Iterator[None]:
    """Fill what ``torch.empty`` returns with NaN, so that an element nobody writes fails the test."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def pull_of(value: Tensor) -> Tensor:
    """What ``value_and_gradient`` multiplies a value by before it sums."""
    return torch.linspace(-1, 1, value.numel(), dtype=torch.float64).cos()


@dataclass(frozen=True)
class Case:
    """One call of RoIAlign."""

    features: Tensor
    boxes: Tensor
    batch_index: Tensor
    output_size: tuple[int, ...]
    spatial_scale: tuple[float, ...]
    sampling_ratio: int
    aligned: bool

    def run(self, operator: Callable[..., Tensor] = roi_align) -> Tensor:
        device = DEVICE if operator is roi_align else "cpu"
        return operator(
            self.features.to(device),
            self.boxes.to(device),
            self.batch_index.to(device),
            output_size=self.output_size,
            spatial_scale=self.spatial_scale,
            sampling_ratio=self.sampling_ratio,
            aligned=self.aligned,
        ).to(self.features.device)

    def value_and_gradient(self, operator: Callable[..., Tensor] = roi_align) -> tuple[Tensor, Tensor]:
        features = self.features.detach().clone().requires_grad_()
        pooled = replace(self, features=features).run(operator)
        pull = pull_of(pooled).view(pooled.shape)
        if not pooled.requires_grad:  # the reference read no cell: no box, or none with a sample
            return pooled.detach(), torch.zeros_like(features)
        (pooled * pull.to(pooled)).sum().backward()
        assert features.grad is not None
        return pooled.detach(), features.grad


def far_from_steps(case: Case, box: list[float]) -> bool:
    """Whether rounding cannot decide what this box reads: no sample at -1 or size, no adaptive ratio at an integer."""
    dims = len(case.output_size)
    for axis in range(dims):
        scale, bins = case.spatial_scale[axis], case.output_size[axis]
        low, high = (box[a] * scale - 0.5 * case.aligned for a in (axis, dims + axis))
        length = high - low if case.aligned else max(high - low, 1.0)
        if not case.aligned and abs(high - low - 1) < STEP_DISTANCE:
            return False
        bin_size = length / bins
        if case.sampling_ratio == 0 and 0 < abs(bin_size - round(bin_size)) < STEP_DISTANCE:
            return False
        count = case.sampling_ratio or math.ceil(bin_size)
        points = [low + (p + (k + 0.5) / count) * bin_size for p in range(bins) for k in range(count)]
        if any(abs(p - step) < STEP_DISTANCE for p in points for step in (-1, case.features.shape[2 + axis])):
            return False
    return True


@st.composite
def cases(draw: st.DrawFn, dims: int, most: int, cells: int) -> Case:
    """Up to ``cells`` cells and ``most`` bins an axis, boxes partly or wholly outside, empty lists, any ratio."""
    sizes = draw(st.lists(st.integers(1, cells), min_size=dims, max_size=dims))
    images, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    case = Case(
        features=torch.randn(
            images, channels, *sizes, generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
        ),
        boxes=torch.zeros(0, 2 * dims),
        batch_index=torch.zeros(0, dtype=torch.int64),
        output_size=tuple(draw(st.lists(st.integers(1, most), min_size=dims, max_size=dims))),
        spatial_scale=(draw(st.sampled_from([1.0, 0.5, 0.25, 0.3])),) * dims,
        sampling_ratio=draw(st.integers(0, 3)),
        aligned=draw(st.booleans()),
    )
    edge = st.floats(-1.0, 1.5, width=32)
    boxes = []
    for pairs in draw(st.lists(st.tuples(*[st.tuples(edge, edge)] * dims), max_size=2 * most)):
        extent = [size / scale for size, scale in zip(sizes, case.spatial_scale, strict=True)]
        box = [min(p) * e for p, e in zip(pairs, extent, strict=True)]
        box = torch.tensor(box + [max(p) * e for p, e in zip(pairs, extent, strict=True)]).tolist()
        if far_from_steps(case, box):
            boxes.append(box)
    index = draw(st.lists(st.integers(0, images - 1), min_size=len(boxes), max_size=len(boxes)))
    return replace(case, boxes=torch.tensor(boxes).view(-1, 2 * dims), batch_index=torch.tensor(index).long())


def torchvision_roi_align(features: Tensor, boxes: Tensor, batch_index: Tensor, **settings: object) -> Tensor:
    """torchvision's operator with our arguments: it wants (image, x1, y1, x2, y2) and one scale."""
    rois = torch.cat([batch_index[:, None].to(boxes.dtype), boxes[:, [1, 0, 3, 2]]], 1)
    scale = settings.pop("spatial_scale")
    assert isinstance(scale, tuple)
    assert len(set(scale)) == 1
    return torchvision.ops.roi_align(features, rois, spatial_scale=scale[0], **settings)


def assert_agree(case: Case, oracle: Callable[..., Tensor]) -> None:
    value, gradient = case.value_and_gradient()
    expected, expected_gradient = case.value_and_gradient(oracle)
    torch.testing.assert_close(value, expected, atol=VALUE_TOLERANCE, rtol=0)
    largest = max(float(expected_gradient.abs().max()), 1e-6)
    torch.testing.assert_close(gradient / largest, expected_gradient / largest, atol=GRADIENT_TOLERANCE, rtol=0)


@pytest.mark.any_implementation
@settings(max_examples=EXAMPLES)
@given(cases(2, *SMALL_2D))
def test_agrees_with_torchvision(case: Case) -> None:
    assert_agree(case, torchvision_roi_align)


@pytest.mark.slow
@settings(max_examples=250)
@given(cases(2, 9, 36))
def test_agrees_with_torchvision_often(case: Case) -> None:
    assert_agree(case, torchvision_roi_align)


@pytest.mark.any_implementation
@settings(max_examples=EXAMPLES)
@given(cases(3, *SMALL_3D))
def test_agrees_with_reference_in_3d(case: Case) -> None:
    assert_agree(case, reference.roi_align)


@pytest.mark.slow
@settings(max_examples=100)  # the reference reads one voxel at a time
@given(cases(3, 3, 12))
def test_agrees_with_reference_in_3d_often(case: Case) -> None:
    assert_agree(case, reference.roi_align)


@pytest.mark.any_implementation
@settings(max_examples=5 if INTERPRETED else 20)
@given(cases(2, *SMALL_2D))
def test_one_slice_in_3d_equals_2d(case: Case) -> None:
    boxes = case.boxes
    stacked = replace(
        case,
        features=case.features[:, :, None],
        boxes=torch.stack([torch.zeros(len(boxes)), *boxes[:, :2].T, torch.ones(len(boxes)), *boxes[:, 2:].T], 1),
        output_size=(1, *case.output_size),
        spatial_scale=(1.0, *case.spatial_scale),
    )
    value, gradient = case.value_and_gradient()
    value_3d, gradient_3d = stacked.value_and_gradient()
    torch.testing.assert_close(value_3d[:, :, 0], value, atol=VALUE_TOLERANCE, rtol=0)
    torch.testing.assert_close(gradient_3d[:, :, 0], gradient, atol=VALUE_TOLERANCE, rtol=VALUE_TOLERANCE)


@settings(max_examples=20)
@given(cases(2, 6, 24))
def test_transposing_image_and_boxes_transposes_the_result(case: Case) -> None:
    turned = replace(
        case,
        features=case.features.transpose(2, 3),
        boxes=case.boxes[:, [1, 0, 3, 2]],
        output_size=case.output_size[::-1],
        spatial_scale=case.spatial_scale[::-1],
    )
    torch.testing.assert_close(turned.run().transpose(2, 3), case.run(), atol=VALUE_TOLERANCE, rtol=0)


RAMP = torch.arange(5.0)[:, None] * 10 + torch.arange(5.0)  # cell (y, x) holds 10 y + x
NO_IMAGE = torch.zeros(1, dtype=torch.int64)


def by_hand(box: list[float], **changes: object) -> Tensor:
    case = Case(RAMP[None, None], torch.tensor([box]), NO_IMAGE, (1, 1), (1.0, 1.0), 1, True)
    return replace(case, **changes).run()[0, 0]


@pytest.mark.any_implementation
def test_aligned_bin_over_one_cell_gives_that_cell() -> None:
    assert by_hand([2, 3, 3, 4]).item() == 23.0


@pytest.mark.any_implementation
def test_unaligned_bin_is_half_a_cell_further() -> None:
    assert by_hand([2, 3, 3, 4], aligned=False).item() == 10 * 2.5 + 3.5


@pytest.mark.any_implementation
def test_bins_of_a_linear_map_give_its_value_at_their_centres() -> None:
    # Box rows 1..4, columns 1..3 in 3 x 2 bins: centres at rows 1.5, 2.5, 3.5 less the half cell, columns likewise.
    expected = torch.tensor([[11.0, 12.0], [21.0, 22.0], [31.0, 32.0]])
    assert torch.equal(by_hand([1, 1, 4, 3], output_size=(3, 2), sampling_ratio=2), expected)


@pytest.mark.any_implementation
def test_scale_per_axis() -> None:
    # Rows are 2 voxels, columns 4 voxels a cell: the box over cell (1, 3).
    assert by_hand([2, 12, 4, 16], spatial_scale=(0.5, 0.25)).item() == 13.0


@pytest.mark.any_implementation
@pytest.mark.parametrize(
    ("low", "expected"),
    [
        (-1.0, 0.5 * 20 + 0.5 * 20),  # sample at -1 exactly: counts, clamped to column 0
        (-1.0 - 2**-20, 0.0),  # just beyond
        (5.0, 24.0),  # sample at size exactly: counts, clamped to the last column
        (5.0 + 2**-20, 0.0),
        (4.0, 24.0),  # on the last cell's centre
        (0.0, 20.0),
    ],
)
def test_samples_at_the_steps_of_the_definition(low: float, expected: float) -> None:
    # A box of one column's width whose one sample lies at column index `low`.
    case = Case(RAMP[None, None], torch.tensor([[2, low, 3, low + 1]]), NO_IMAGE, (1, 1), (1.0, 1.0), 1, True)
    assert case.run().item() == expected
    assert case.run(torchvision_roi_align).item() == expected


@pytest.mark.any_implementation
@pytest.mark.parametrize("extent", [2.0, 4.0, 4.0 + 2**-20])
def test_adaptive_ratio_at_whole_bin_sizes(extent: float) -> None:
    case = Case(
        RAMP[None, None], torch.tensor([[0.5, 0.5, 0.5 + extent, 0.5 + extent]]), NO_IMAGE, (2, 2), (1.0, 1.0), 0, True
    )
    torch.testing.assert_close(case.run(), case.run(torchvision_roi_align), atol=VALUE_TOLERANCE, rtol=0)


@pytest.mark.any_implementation
def test_box_without_extent() -> None:
    assert by_hand([2.5, 3.5, 2.5, 3.5], sampling_ratio=0).item() == 0.0  # an empty sampling grid
    assert by_hand([2.5, 3.5, 2.5, 3.5], sampling_ratio=2).item() == 23.0  # all samples in one point
    assert by_hand([2, 3, 2, 3], sampling_ratio=2, aligned=False).item() == 10 * 2.5 + 3.5  # at least one cell long


@pytest.mark.any_implementation
def test_box_wholly_outside_gives_zeros_and_no_gradient() -> None:
    case = Case(
        RAMP[None, None],
        torch.tensor([[20.0, 20, 25, 25], [-9, 0, -3, 4]]),
        NO_IMAGE.expand(2),
        (2, 2),
        (1.0,) * 2,
        2,
        True,
    )
    value, gradient = case.value_and_gradient()
    assert not value.any()
    assert not gradient.any()


@pytest.mark.any_implementation
@pytest.mark.parametrize("box", [[-1e9, -1e9, 1e9, 1e9], [-3e38, -3e38, 3e38, 3e38], [3e38, 3e38, 3e38, 3e38]])
def test_boxes_far_beyond_the_map_stay_within_it(box: list[float]) -> None:
    case = Case(RAMP[None, None], torch.tensor([box]), NO_IMAGE, (3, 3), (1.0, 1.0), 2, True)
    value, gradient = case.value_and_gradient()
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize(("dims", "aligned", "ratio"), [(2, True, 2), (2, False, 0), (3, True, 0), (3, False, 2)])
def test_gradcheck(dims: int, aligned: bool, ratio: int) -> None:
    features = torch.randn(2, 1, *(4, 3, 2)[:dims], dtype=torch.float64, requires_grad=True)
    low = torch.tensor([[0.3, 1.1, 2.2], [-1.7, 0.4, 0.6], [1.0, 1.0, 1.0]], dtype=torch.float64)[:, :dims]
    boxes = torch.cat([low, low + torch.tensor([[3.3, 2.7, 5.1], [9.3, 0.2, 4.4], [0.1, 0.1, 0.1]])[:, :dims]], 1)

    def align(values: Tensor) -> Tensor:
        index = torch.tensor([0, 1, 1])
        return roi_align(values, boxes, index, output_size=2, spatial_scale=0.7, sampling_ratio=ratio, aligned=aligned)

    assert torch.autograd.gradcheck(align, features)


@pytest.mark.any_implementation
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_by_hand(dtype: torch.dtype) -> None:
    box = torch.tensor([[1.0, 1.0, 4.0, 3.0]])
    case = Case(RAMP[None, None].to(dtype), box, NO_IMAGE, (3, 2), (1.0, 1.0), 2, True)
    value, gradient = case.value_and_gradient()
    assert value.dtype == gradient.dtype == dtype
    assert torch.equal(value[0, 0].float(), torch.tensor([[11.0, 12.0], [21.0, 22.0], [31.0, 32.0]]))


@pytest.mark.any_implementation
@pytest.mark.parametrize("dims", [2, 3])
def test_bad_rows_give_zeros_where_values_are_not_checked(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "values_are_checked", lambda device: False)
    good, nan, huge = [1.0] * dims + [3.0] * dims, float("nan"), float("inf")
    bad = [[nan] * 2 * dims, [1.0] * dims + [huge] * dims, [3.0] * dims + [1.0] * dims, good, good]
    boxes, index = torch.tensor([good, *bad]), torch.tensor([0, 0, 0, 0, -1, 7])
    features = torch.ones(1, 2, *[4] * dims).to(DEVICE).requires_grad_()
    for ratio in (2, 0):
        pooled = roi_align(
            features, boxes.to(DEVICE), index.to(DEVICE), output_size=2, spatial_scale=1.0, sampling_ratio=ratio
        )
        assert torch.equal(pooled[0], torch.ones_like(pooled[0]))
        assert not pooled[1:].any()
        (gradient,) = torch.autograd.grad(pooled.sum(), features)
        assert float(gradient.sum()) == pytest.approx(2 * 2**dims), "what the one good box spreads"


@pytest.mark.any_implementation
def test_a_box_that_needs_too_many_samples_gives_zeros_where_values_are_not_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(library, "values_are_checked", lambda device: False)
    boxes = torch.tensor([[0.0, 0.0, 1e6, 1e6], [0.0, 0.0, 4.0, 4.0]])
    case = Case(torch.ones(1, 1, 4, 4), boxes, torch.zeros(2, dtype=torch.int64), (1, 1), (1.0, 1.0), 0, True)
    value, gradient = case.value_and_gradient()
    assert value.flatten().tolist() == [0.0, 1.0]
    assert float(gradient.sum()) == pytest.approx(pull_of(value)[1].item())


def some_case(dims: int, device: torch.device | str = "cpu") -> Case:
    """Forty boxes of all sizes, some beyond the map, in two images."""
    draw = torch.Generator().manual_seed(7)
    low = torch.rand(40, dims, generator=draw) * 40 - 8
    boxes = torch.cat([low, low + torch.rand(40, dims, generator=draw) ** 3 * 60], 1)
    features = torch.randn(2, 20, *(9, 14, 11)[:dims], generator=draw)
    index = torch.randint(0, 2, (40,), generator=draw)
    return Case(
        features.to(device), boxes.to(device), index.to(device), (3, 4, 2)[:dims], (0.25, 0.5, 0.4)[:dims], 2, True
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_agrees_with_reference_on_each_device(dims: int, device: torch.device) -> None:
    case = some_case(dims)
    on_device = some_case(dims, device)
    value, gradient = on_device.value_and_gradient()
    expected = case.run(reference.roi_align)
    torch.testing.assert_close(value.cpu(), expected, atol=VALUE_TOLERANCE, rtol=0)
    torch.testing.assert_close(gradient.cpu(), case.value_and_gradient()[1], atol=1e-4, rtol=GRADIENT_TOLERANCE)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("ratio", [0, 2])
def test_seams_of_chunks_do_not_show(dims: int, ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = replace(some_case(dims), sampling_ratio=ratio)
    expected, expected_gradient = case.value_and_gradient()
    monkeypatch.setattr(roi_align_portable, "CHUNK_ELEMENTS", 300)
    monkeypatch.setattr(roi_align_portable, "FEWEST_CHANNELS", 3)
    monkeypatch.setattr(roi_align_portable, "PLAN_BOXES", 7)
    monkeypatch.setattr(separable, "SAMPLES_AT_ONCE", 5)
    value, gradient = case.value_and_gradient()
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dims", [2, 3])
def test_windows_never_exceed_their_memory(dims: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roi_align_portable, "CHUNK_ELEMENTS", 4000)
    case = some_case(dims)
    windows, bags = [], []
    contract, weighted_rows = roi_align_portable.contract, roi_align_portable.weighted_rows

    def watch_windows(values: Tensor, weights: list[Tensor]) -> Tensor:
        found = contract(values, weights)
        windows.append((values.shape[0], max(values.numel(), found.numel())))
        return found

    def watch_bags(table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        boxes = rows.shape[0] // math.prod(case.output_size)
        bags.append((boxes, rows.shape[0] * max(rows.shape[1], table.shape[1])))
        return weighted_rows(table, rows, weights)

    monkeypatch.setattr(roi_align_portable, "contract", watch_windows)
    monkeypatch.setattr(roi_align_portable, "weighted_rows", watch_bags)
    case.value_and_gradient()
    for used in (windows, bags):
        assert max((numbers for boxes, numbers in used if boxes > 1), default=0) <= 4000
    assert len(windows) < 40 * 2, "boxes of like size run together"


@pytest.mark.parametrize("dims", [2, 3])
def test_layout_is_kept_and_does_not_matter(dims: int) -> None:
    case = some_case(dims)
    layout = torch.channels_last if dims == 2 else torch.channels_last_3d
    last = replace(case, features=case.features.contiguous(memory_format=layout))
    strided = replace(
        case,
        features=case.features.repeat_interleave(2, -1)[..., ::2],
        boxes=case.boxes.repeat_interleave(2, 1)[:, ::2],
        batch_index=case.batch_index.repeat_interleave(3)[::3],
    )
    assert not strided.features.is_contiguous()
    expected, expected_gradient = case.value_and_gradient()
    assert expected.is_contiguous()
    for other in (last, strided):
        value, gradient = other.value_and_gradient()
        assert torch.equal(value, expected)
        assert torch.equal(gradient, expected_gradient)
    assert last.run().is_contiguous(memory_format=layout)
    assert last.value_and_gradient()[1].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dims", [2, 3])
def test_half_precision_is_the_float32_result_rounded_once(dims: int, dtype: torch.dtype) -> None:
    case = some_case(dims)
    half = replace(case, features=case.features.to(dtype))
    wide = replace(case, features=half.features.float())
    value = half.run()
    assert value.dtype == dtype
    assert torch.equal(value, wide.run().to(dtype))
    assert half.value_and_gradient()[1].dtype == dtype


def test_autocast_changes_nothing() -> None:
    case = some_case(3)
    expected, expected_gradient = case.value_and_gradient()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = case.value_and_gradient()
    assert torch.equal(value, expected)
    assert torch.equal(gradient, expected_gradient)


def test_same_work_twice_gives_the_same_bits() -> None:
    case = some_case(3)
    first, second = case.value_and_gradient(), case.value_and_gradient()
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_order_of_boxes_is_the_callers(device: torch.device) -> None:
    case = some_case(2, device)
    turned = replace(case, boxes=case.boxes.flip(0), batch_index=case.batch_index.flip(0))
    torch.testing.assert_close(turned.run().flip(0), case.run(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dims", [2, 3])
def test_no_boxes_and_no_images(dims: int) -> None:
    case = some_case(dims)
    features = case.features.requires_grad_()
    none = replace(case, features=features, boxes=case.boxes[:0], batch_index=case.batch_index[:0])
    value = none.run()
    assert value.shape == (0, 20, *case.output_size)
    value.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()
    assert replace(none, features=case.features[:0]).run().shape == value.shape


def test_boxes_get_no_gradient() -> None:
    case = some_case(2)
    boxes = case.boxes.clone().requires_grad_()
    assert not replace(case, boxes=boxes).run().requires_grad
