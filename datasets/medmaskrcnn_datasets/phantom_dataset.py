"""A folder of phantoms with its manifest: the training data of the demo model."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medmaskrcnn.data.manifest import Manifest, ManifestCase, ManifestInstance, Split
from medmaskrcnn.export.nifti import write_nifti
from medmaskrcnn.structures.volume import PHANTOM_GENERATOR
from medmaskrcnn.system.files import make_folder
from medmaskrcnn_datasets.manifest import write_manifest
from medmaskrcnn_datasets.phantom import CLASS_NAMES, Phantom, make_phantom
from medmaskrcnn_datasets.phantom_settings import Shape3, random_settings

LICENCE = "CC0-1.0 (synthetic)"


@dataclass(frozen=True)
class _Job:
    """The arguments with which a worker process makes one case."""

    folder: Path
    seed: int
    max_shape: Shape3
    split: Split


def phantom_dataset(
    out_dir: Path | str,
    seeds: Sequence[int],
    *,
    max_shape: Shape3 = (128, 256, 256),
    val: Collection[int] = (),
    test: Collection[int] = (),
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Make phantoms with settings drawn from their seeds, and write them as NIfTI pairs.

    Args:
        out_dir: Gets ``images/``, ``labels/`` and ``manifest.json``.
        seeds: One case each.
        max_shape: See :func:`medmaskrcnn_datasets.phantom_settings.random_settings`.
        val: Seeds for validation; seeds in neither list are for training.
        test: Seeds for testing.
        workers: Processes; 1 uses the calling one. With more, a script that calls this needs the usual
            ``if __name__ == "__main__":``.
        progress: Called with the number of finished cases and their total.

    Returns:
        Path of the manifest.

    Raises:
        ValueError: if seeds repeat, or a seed is in both ``val`` and ``test``.
        OutputError: if the folder cannot be written.
    """
    if len(set(seeds)) != len(seeds) or set(val) & set(test):
        raise ValueError("each seed must occur once, and in val or test but not both")
    folder = make_folder(out_dir)
    cases: dict[int, ManifestCase] = {}
    for seed, case in _made(folder, seeds, max_shape, val, test, workers):
        cases[seed] = case
        if progress:
            progress(len(cases), len(seeds))
    manifest = Manifest(
        name="phantom-ct",
        modality="CT",
        licence=LICENCE,
        class_names=CLASS_NAMES,
        cases=tuple(cases[s] for s in seeds),
    )
    return write_manifest(manifest, folder / "manifest.json")


def write_case(phantom: Phantom, folder: Path, *, case_id: str, split: Split | None = None) -> ManifestCase:
    """Write image and label map of one phantom; returns its entry for a manifest in ``folder``.

    Raises:
        OutputError: if a file cannot be written.
    """
    image, label = f"images/{case_id}.nii.gz", f"labels/{case_id}_label.nii.gz"
    volume = phantom.volume
    write_nifti(volume.array[0], volume.grid, folder / image, description=PHANTOM_GENERATOR)
    write_nifti(phantom.labels, volume.grid, folder / label, description=PHANTOM_GENERATOR)
    instances = tuple(
        ManifestInstance(value=i.value, class_name=i.class_name, part_of=i.part_of) for i in phantom.instances
    )
    return ManifestCase(id=case_id, patient=case_id, image=image, label=label, split=split, instances=instances)


def _made(
    folder: Path, seeds: Sequence[int], max_shape: Shape3, val: Collection[int], test: Collection[int], workers: int
) -> Iterator[tuple[int, ManifestCase]]:
    """Yield cases as they are finished."""
    jobs = [_Job(folder, s, max_shape, "val" if s in val else "test" if s in test else "train") for s in seeds]
    if workers <= 1:
        yield from (_make_one(job) for job in jobs)
        return
    with _single_threaded_children():
        context = multiprocessing.get_context("spawn")  # fork is unsafe once torch has threads
        with ProcessPoolExecutor(min(workers, max(1, len(jobs))), mp_context=context) as pool:
            waiting: list[Future[tuple[int, ManifestCase]]] = [pool.submit(_make_one, job) for job in jobs]
            try:
                for done in as_completed(waiting):
                    yield done.result()
            finally:
                for future in waiting:
                    future.cancel()


def _make_one(job: _Job) -> tuple[int, ManifestCase]:
    phantom = make_phantom(random_settings(job.seed, max_shape=job.max_shape))
    return job.seed, write_case(phantom, job.folder, case_id=f"phantom_{job.seed:04d}", split=job.split)


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """Processes started here use one BLAS thread each, since more would compete for the same cores."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
