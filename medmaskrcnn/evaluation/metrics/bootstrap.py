"""Confidence intervals by percentile bootstrap over patients.

Scans of one patient are correlated, so patients are drawn with replacement, not scans (a patient's scans are drawn
together). A figure's interval lies between percentiles of its values over the draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medmaskrcnn.structures.grid import FloatArray

REPLICATES = 1000
LEVEL = 0.95
_FEWEST_PATIENTS = 2


@dataclass(frozen=True)
class Estimate:
    """A figure and its confidence interval; ``None`` if undefined, never a sentinel number."""

    value: float | None
    low: float | None = None
    high: float | None = None


def patient_weights(patients: Sequence[str], *, replicates: int = REPLICATES, seed: int = 0) -> FloatArray:
    """``(1 + replicates, C)`` how often each case counts: the first row is all ones, the others are draws of patients.

    Args:
        patients: Patient of each of the C cases.
        replicates: Number of draws; none are made for fewer than two patients.
        seed: The same seed gives the same draws.
    """
    names, owner = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
    if len(names) < _FEWEST_PATIENTS:
        replicates = 0
    draws = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=replicates)
    return np.concatenate([np.ones((1, len(patients))), draws[:, owner].astype(np.float64)])


def estimate(values: FloatArray, *, level: float = LEVEL) -> Estimate:
    """The figure at the first weighting of ``(R,)``, with the interval from the others.

    Draws in which the figure is undefined (no object of the class was drawn) are left out; if these are half of them
    or more, or there are no draws, the interval is ``None``.
    """
    value, draws = values[0], values[1:]
    defined = draws[~np.isnan(draws)]
    if np.isnan(value):
        return Estimate(None)
    if len(defined) <= len(draws) / 2:
        return Estimate(float(value))
    low, high = np.percentile(defined, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(float(value), float(low), float(high))


def mean_of_defined(values: FloatArray) -> FloatArray:
    """``(R,)`` mean of ``(K, R)`` over the classes in which a figure is defined; NaN if it is defined in none."""
    defined = ~np.isnan(values)
    total, n = np.where(defined, values, 0).sum(axis=0), defined.sum(axis=0)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)
