"""What a ledger knows its work by: a half-done batch of an older version goes on."""

from __future__ import annotations

import json
from dataclasses import replace

from medmaskrcnn.batch_runs.settings import Work
from medmaskrcnn.batch_runs.task import Task
from medmaskrcnn.settings import OutputOptions, SegmentOptions

PLAIN = Work("m", "a" * 64, SegmentOptions(), OutputOptions(paths_in_run=False))
FULL = Work(
    "m",
    "b" * 64,
    SegmentOptions(
        score=0.7, classes=("liver", "left kidney"), resample_irregular=True, allow_out_of_domain=True, track=True
    ),
    OutputOptions(formats=("seg", "nifti", "sr"), label_map_seg=True, deidentify=True, paths_in_run=False),
)


def test_digests_are_those_that_stand_in_ledgers() -> None:
    """Computed before precision, engine and SUV could be asked for."""
    assert PLAIN.digest() == "2fc807ea9b78fd0576a00ddbe14505b89828f45b7df6943168438efa73fa9df3"
    assert FULL.digest() == "7a9b9b20064cf167351296ab6ce0c786670726fecb1b7303f76745f9ef88b1e0"


def test_what_changes_results_changes_the_digest_and_where_it_runs_does_not() -> None:
    def digest(**options: object) -> str:
        return replace(PLAIN, options=SegmentOptions.model_validate(options)).digest()

    assert digest(device="cpu") == replace(PLAIN, model="elsewhere").digest() == PLAIN.digest()
    changed = [digest(precision="bf16"), digest(engine="openvino"), digest(suv=True), digest(track=True)]
    assert len({PLAIN.digest(), *changed}) == 5


def test_a_task_goes_through_json() -> None:
    task = Task(3, "/out", "p/s", ("/a.dcm",), "", ("/a.zip", 2), FULL.options, FULL.output, ("/secret",))
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
