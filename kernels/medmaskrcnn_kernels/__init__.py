"""RoIAlign, non-maximum suppression and mask pasting for 2D and 3D images, in PyTorch and, on GPUs, in Triton."""

from medmaskrcnn_kernels.choice import checked, implementation, use_implementation
from medmaskrcnn_kernels.operators import batched_nms, multiscale_roi_align, nms, paste_masks, roi_align
from medmaskrcnn_kernels.paste import mask_windows
from medmaskrcnn_kernels.roi_pool import roi_pool
from medmaskrcnn_kernels.self_check import disagreement

__all__ = [
    "batched_nms",
    "checked",
    "disagreement",
    "implementation",
    "mask_windows",
    "multiscale_roi_align",
    "nms",
    "paste_masks",
    "roi_align",
    "roi_pool",
    "use_implementation",
]
