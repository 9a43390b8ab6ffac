"""A model knows how scans of its own kind look, and says so of those that look otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from medmaskrcnn.errors import UnsuitableScanError
from medmaskrcnn.hub.loaded_model import LoadedModel, load_model
from medmaskrcnn.hub.model_file import save_members
from medmaskrcnn.inference.familiarity import fit_familiarity, pooled_features, strangeness
from medmaskrcnn.inference.pipeline import segment
from medmaskrcnn.inference.prepare import prepare, turned_spacing
from medmaskrcnn.models.averaged import AveragedRCNN
from medmaskrcnn.structures.grid import Grid
from medmaskrcnn.structures.volume import Volume

Make = Callable[..., LoadedModel]
Blobs = Callable[..., Volume]


def own_scan(make_blobs: Blobs, seed: int) -> Volume:
    """Blobs with some noise, moved by a voxel or two."""
    random, scan = np.random.default_rng(seed), make_blobs((10, 40, 36))
    moved = np.roll(scan.array, random.integers(-2, 3, 3), axis=(1, 2, 3))
    return replace(scan, array=moved + random.normal(0, 0.02, moved.shape).astype(np.float32) * np.ptp(moved))


def stripes(make_blobs: Blobs) -> Volume:
    """Black and white in turn, slice by slice and column by column."""
    scan = make_blobs((10, 40, 36))
    pattern = np.indices(scan.array.shape[1:])[[0, 2]].sum(axis=0)[None] % 2
    return replace(scan, array=(pattern * np.ptp(scan.array)).astype(np.float32))


def remembering(model: LoadedModel, scans: list[Volume]) -> LoadedModel:
    prepared = [prepare(one, model.settings.preprocess) for one in scans]
    spacings = [turned_spacing(scan, one.axes) for scan, one in zip(scans, prepared, strict=True)]
    fitted = fit_familiarity([pooled_features(model, one.tensor) for one in prepared], spacings)
    assert fitted is not None
    return replace(model, settings=model.settings.model_copy(update={"familiarity": fitted}))


@pytest.mark.parametrize("dims", [2, 3])
def test_scans_of_its_own_kind_are_taken_and_others_stamped(tiny_model: Make, make_blobs: Blobs, dims: int) -> None:
    model = remembering(tiny_model(dims), [own_scan(make_blobs, seed) for seed in range(30)])
    for seed in (40, 41):
        assert not segment(own_scan(make_blobs, seed), model).record.out_of_domain
    stamped = segment(stripes(make_blobs), model, allow_out_of_domain=True).record
    assert stamped.out_of_domain and stamped.warnings[0].startswith("OUT OF DOMAIN: model tiny does not know")


def test_a_scan_far_beyond_the_others_is_refused(tiny_model: Make, make_blobs: Blobs) -> None:
    model = remembering(tiny_model(2), [own_scan(make_blobs, seed) for seed in range(12)])
    with pytest.raises(UnsuitableScanError, match=r"model tiny does not know scans that look like this one.*allow_out"):
        segment(stripes(make_blobs), model)


def test_between_the_thresholds_it_is_segmented_and_stamped(tiny_model: Make, make_blobs: Blobs) -> None:
    model = remembering(tiny_model(3), [own_scan(make_blobs, seed) for seed in range(12)])
    familiarity = model.settings.familiarity.model_copy(update={"refused_above": 1e6})
    model = replace(model, settings=model.settings.model_copy(update={"familiarity": familiarity}))
    record = segment(stripes(make_blobs), model).record
    assert record.out_of_domain and len(record.warnings) == 1


def test_voxels_far_coarser_than_its_own_are_stamped(tiny_model: Make, make_blobs: Blobs) -> None:
    scans = [own_scan(make_blobs, seed) for seed in range(8)]
    model = remembering(tiny_model(3), scans)
    spacing = model.settings.familiarity.coarsest_mm
    assert spacing == pytest.approx([scans[0].spacing_mm[axis] for axis in (0, 1, 2)])
    coarse = replace(
        scans[0], grid=Grid(scans[0].grid.shape, scans[0].grid.affine_vox_to_ras @ np.diag([2.0, 2, 2, 1]))
    )
    record = segment(coarse, model).record
    assert record.out_of_domain and any("knows voxels of at most" in one for one in record.warnings)


def test_the_distance_is_mahalanobis_where_the_axes_hold_everything() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(4, 4))
    scans = [(random.normal(size=(5, 4)) @ mixing + 3).astype(np.float32) for _ in range(200)]
    fitted = fit_familiarity(scans)
    rows = np.concatenate(scans)
    inverse, centre = np.linalg.inv(np.cov(rows.T, bias=True)), rows.mean(0)
    near, far = centre + mixing[0], centre + 6 * mixing[0]
    measured = [strangeness(fitted, one[None].astype(np.float32)) for one in (near, far)]
    expected = [np.log((one - centre) @ inverse @ (one - centre)) for one in (near, far)]
    assert measured[1] - measured[0] == pytest.approx(expected[1] - expected[0], abs=0.3)
    own = [strangeness(fitted, one) for one in scans]
    assert np.mean(np.array(own) > fitted.stamped_above) <= 0.07 and max(own) < fitted.refused_above
    assert fitted.scans == 200


def test_too_few_scans_say_nothing(tiny_model: Make, make_blobs: Blobs) -> None:
    model = tiny_model(2)
    features = pooled_features(model, prepare(own_scan(make_blobs, 0), model.settings.preprocess).tensor)
    assert len(features) == 6 and fit_familiarity([features] * 7) is None


def test_a_model_file_holds_it_and_the_first_of_several_networks_is_asked(
    tiny_model: Make, make_blobs: Blobs, tmp_path: Path
) -> None:
    model = remembering(tiny_model(3), [own_scan(make_blobs, seed) for seed in range(8)])
    save_members([model.network], model.settings, tmp_path / "one.safetensors")
    loaded = load_model(tmp_path / "one.safetensors", device="cpu", precision="fp32")
    assert loaded.settings.familiarity == model.settings.familiarity
    tensor = prepare(own_scan(make_blobs, 3), model.settings.preprocess).tensor
    mirrored = replace(model, network=AveragedRCNN([model.network], (2,)))
    np.testing.assert_array_equal(pooled_features(mirrored, tensor), pooled_features(model, tensor))


def test_both_precisions_say_the_same(tiny_model: Make, make_blobs: Blobs) -> None:
    model = remembering(tiny_model(3), [own_scan(make_blobs, seed) for seed in range(12)])
    tensor = prepare(own_scan(make_blobs, 30), model.settings.preprocess).tensor
    exact = strangeness(model.settings.familiarity, pooled_features(model, tensor))
    rounded = replace(model, network=model.network.run_in("bf16"))
    assert strangeness(model.settings.familiarity, pooled_features(rounded, tensor)) == pytest.approx(exact, abs=0.2)


def test_settings_that_contradict_each_other() -> None:
    scans = list(np.random.default_rng(0).normal(size=(10, 3, 5)).astype(np.float32))
    settings = fit_familiarity(scans).model_dump()
    for change in ({"scale": (1.0,)}, {"variances": (1.0,)}, {"refused_above": -1e6}):
        with pytest.raises(ValidationError):
            type(fit_familiarity(scans))(**{**settings, **change})
