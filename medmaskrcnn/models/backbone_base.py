"""What a backbone is: the base class of the bottom-up networks, the library's own and those of users."""

from __future__ import annotations

from torch import Tensor, nn


class Backbone(nn.Module):
    """Base class of backbones, whose maps the pyramid is built on; custom networks subclass it.

    ``forward`` takes an image batch ``(B, C, *spatial)`` and returns ``[C2, C3, C4, C5]``, each smaller than the image
    by the strides of the settings. It uses no batch statistics.

    Args:
        out_channels: Channels of C2..C5.
        last_on_regions: Whether the last stage runs on regions, in :meth:`res5` (``pyramid: c4``).
    """

    def __init__(self, out_channels: tuple[int, ...], *, last_on_regions: bool = False) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.last_on_regions = last_on_regions

    def res5(self, regions: Tensor) -> Tensor:
        """Regions of C4 ``(R, C4, *bins)`` through the last stage: ``(R, C5, *bins / 2)``."""
        raise NotImplementedError(f"{type(self).__name__} has no last stage for regions: pyramid c4 needs a ResNet")

    def fold_norms(self) -> None:
        """Fold frozen normalisations into the convolutions before them, in place; by default there are none."""
