"""The page ``example-trace.html``: what ``medmaskrcnn trace`` makes of a phantom CT, to look at before one tries."""

from __future__ import annotations

import medmaskrcnn
from medmaskrcnn_datasets.phantom import PhantomSettings, make_phantom

TARGET = "example-trace.html"
PHANTOM = PhantomSettings(seed=1, shape=(16, 80, 80), spacing_mm=(8.0, 4.5, 4.5))


def text() -> str:
    """The page."""
    return medmaskrcnn.trace(make_phantom(PHANTOM).volume, model="phantom-ct", device="cpu").html
