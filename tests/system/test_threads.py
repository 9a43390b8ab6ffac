"""Processes that work side by side take no more threads together than there are cores."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest
import torch

from medmaskrcnn.system.threads import threads_beside, use_one_thread


@pytest.mark.parametrize(
    ("cores", "workers", "threads"), [(1, 2, 1), (2, 2, 2), (4, 2, 2), (8, 2, 6), (8, 0, 8), (16, 4, 12)]
)
def test_a_core_is_left_to_each_worker(monkeypatch: pytest.MonkeyPatch, cores: int, workers: int, threads: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    assert threads_beside(workers) == threads


def test_a_process_of_several_takes_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=use_one_thread) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
