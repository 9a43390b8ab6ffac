"""The operators alone, in 3D: RoIAlign, non-maximum suppression, mask pasting. Needs PyTorch and nothing else."""

from __future__ import annotations

import torch

from medmaskrcnn_kernels import batched_nms, implementation, mask_windows, paste_masks, roi_align


def main() -> None:
    """A map, a few boxes, their regions, the best of them, their masks."""
    torch.manual_seed(0)
    features = torch.randn(1, 32, 16, 32, 32)  # (B, C, D, H, W): a cell for 2 x 4 x 4 voxels
    low = torch.rand(20, 3) * torch.tensor([16.0, 60.0, 60.0])
    boxes = torch.cat([low, low + 10 + 20 * torch.rand(20, 3)], dim=1)  # (N, 6): minima D, H, W, then maxima, in voxels
    scores, classes = torch.rand(20), torch.randint(0, 2, (20,))

    kept = batched_nms(boxes, scores, classes, 0.5)
    print(f"{len(kept)} of {len(boxes)} boxes stay, on {implementation('cpu')[0]} operators")

    image = torch.zeros(len(kept), dtype=torch.int64)  # which image each box is of
    regions = roi_align(features, boxes[kept], image, output_size=7, spatial_scale=(1 / 2, 1 / 4, 1 / 4))
    print("regions:", tuple(regions.shape))

    probabilities = torch.rand(len(kept), 28, 28, 28)
    windows = mask_windows(boxes[kept], (32, 128, 128))
    masks = paste_masks(probabilities, boxes[kept], windows)
    print("first mask:", tuple(masks[0].shape), "voxels of its window")


if __name__ == "__main__":
    main()
