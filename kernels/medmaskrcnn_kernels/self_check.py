"""A small problem on which both implementations are compared before Triton is used on a new device."""

from __future__ import annotations

import torch
from torch import Tensor

from medmaskrcnn_kernels.choice import before_first_use, use_implementation
from medmaskrcnn_kernels.operators import multiscale_roi_align, nms, paste_masks

TOLERANCE = 1e-4
BOXES = 12


@before_first_use
def disagreement(device: torch.device) -> str:
    """Name of an operator whose two implementations disagree on this device; empty if all agree."""
    found = {}
    for name in ("portable", "triton"):
        with use_implementation(name):
            found[name] = _results(device)
    for what, expected in found["portable"].items():
        got = found["triton"][what]
        if got.shape != expected.shape or not torch.allclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE):
            return f"triton's {what} disagrees with the portable form on this device"
    return ""


def _results(device: torch.device) -> dict[str, Tensor]:
    results: dict[str, Tensor] = {}
    for dims in (2, 3):
        draw = torch.Generator().manual_seed(dims)
        low = torch.rand(BOXES, dims, generator=draw) * 20 - 4
        boxes = torch.cat([low, low + torch.rand(BOXES, dims, generator=draw) * 20], 1).to(device)
        index = torch.randint(0, 2, (BOXES,), generator=draw).to(device)
        maps = [torch.randn(2, 20, *[n] * dims, generator=draw).to(device).requires_grad_() for n in (6, 3)]
        pooled = multiscale_roi_align(maps, boxes, index, output_size=3, strides=[4, 8], canonical_size=16)
        pooled.square().sum().backward()
        results[f"{dims}D RoIAlign"] = pooled.detach()
        for m in maps:
            assert m.grad is not None
            results[f"{dims}D RoIAlign backward {m.shape[-1]}"] = m.grad / m.grad.abs().max().clamp(min=1e-6)
        results[f"{dims}D NMS"] = nms(boxes, torch.rand(BOXES, generator=draw).to(device), 0.05).float()
        windows = torch.tensor([[0] * dims + [9] * dims] * BOXES, device=device)
        masks = torch.rand(BOXES, *[6] * dims, generator=draw).to(device)
        results[f"{dims}D mask pasting"] = torch.stack(paste_masks(masks, boxes, windows))
    return results
