"""Phantoms that several tests look at; small, because each costs about a second."""

from __future__ import annotations

import pytest

from medmaskrcnn_datasets.phantom import Phantom, PhantomSettings, make_phantom

SETTINGS = PhantomSettings(
    seed=5,
    shape=(66, 128, 128),
    spacing_mm=(5.0, 2.9, 2.9),
    tumours=8,
    touching=True,
    rotation_degrees=(3.0, -2.0, 4.0),
)


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """Eight tumours, two of them touching, on a slightly oblique grid."""
    return make_phantom(SETTINGS)


@pytest.fixture(scope="session")
def tiny_phantom() -> Phantom:
    """Few and large voxels, for what is about files."""
    return make_phantom(PhantomSettings(seed=7, shape=(18, 48, 40), spacing_mm=(16.0, 8.0, 9.0), tumours=3))
