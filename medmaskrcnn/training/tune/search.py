"""Hyperparameter search with Optuna: many short trainings, each scored on the validation cases.

A search has a folder: ``study.db`` (Optuna, SQLite) records every trial, so an interrupted search resumes where it
stopped, including the trial that was running. Beside it are ``trials.csv``, ``trials.png``, ``best.yaml`` and one
folder for each trial's training.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from medmaskrcnn.errors import MedMaskRCNNError, MissingExtraError, OutputError, ReadError
from medmaskrcnn.settings.migration import to_current_path, to_first_path
from medmaskrcnn.system.files import make_folder, write_bytes
from medmaskrcnn.system.paths import path_below
from medmaskrcnn.training.plan import Plan, parse_plan, plan_text
from medmaskrcnn.training.tune.space import Choices, SearchSpace, changed_plan
from medmaskrcnn.training.tune.table import Trial, draw_trials, write_trials

log = logging.getLogger(__name__)

Method = Literal["grid", "random", "tpe"]

Objective = Callable[[Plan, Path], float]
"""Trains a plan in a folder, which may hold an interrupted training, and returns its score; higher is better."""

STUDY, TABLE, PLOT, BEST, TRIALS = "study.db", "trials.csv", "trials.png", "best.yaml", "trials"

_NAME = "plan"  # of the only study in the file
_ENDED, _FOLDER, _BROKEN = "ended", "folder", "broken"  # attributes of a trial
_QUEUED = "queued"  # attribute of the study: its grid has been queued
_DRAW_SECONDS = 60.0  # between plots
_MOST_INTERRUPTIONS = 3  # of one trial: a fourth start would likely end the same way (memory)


@dataclass(frozen=True)
class SearchResult:
    """Result of a search so far.

    Attributes:
        trials: Every trial that has ended, in the order in which they started.
        best: The one with the highest score; ``None`` if all failed.
        plan: The best trial's plan.
        folder: The search's folder.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    plan: Plan | None
    folder: Path


def search(
    plan: Plan,
    space: SearchSpace,
    objective: Objective,
    folder: Path,
    *,
    trials: int,
    method: Method = "tpe",
    seed: int = 0,
    conditions: Mapping[str, str] | None = None,
    on_event: Callable[[Trial], None] = lambda trial: None,
    starting: Callable[[int, Plan], None] = lambda number, plan: None,
) -> SearchResult:
    """Run trials until ``trials`` of them have ended, including those of earlier calls on the same folder.

    Args:
        plan: The base plan; values that ``space`` does not name are unchanged.
        space: The values to search over.
        objective: Trains and scores a plan. If it raises, the trial has failed and the search continues.
        folder: The search's folder, new or that of an earlier call with the same plan and space.
        trials: Total number of trials; a grid may have fewer points.
        method: ``"grid"`` tries every combination, ``"random"`` samples at random, ``"tpe"`` samples where earlier
            trials were good (tree-structured Parzen estimator, Bergstra et al. 2011).
        seed: Seed of the sampling.
        conditions: What else the scores depend on (data, steps); a search can be resumed only with the same.
        on_event: Called with each trial when it has ended.
        starting: Called with each trial's number and plan when it starts.

    Returns:
        All trials and the best.

    Raises:
        OutputError: if the folder holds a search with another plan, space, method or other conditions, or cannot be
            written to.
        ReadError: if the grid is too large.
        MissingExtraError: if Optuna is not installed.
    """
    optuna = _optuna()
    dimensions = {to_first_path(path): one.model_dump(mode="json") for path, one in space.root.items()}
    known = {
        "plan": plan_text(plan),
        "space": json.dumps(dimensions, separators=(",", ":"), ensure_ascii=False),
        "method": method,
        **(conditions or {}),
    }
    study = _open(optuna, make_folder(folder), known, method, seed)
    _take_up(optuna, study, method, space)
    drawn_at = time.monotonic()
    while len(ended_trials(study)) < trials:
        if method == "grid" and not _waiting(optuna, study):
            break
        ended = _one_trial(optuna, study, plan, space, objective, folder, starting)
        result = _write(study, plan, space, folder)
        if time.monotonic() - drawn_at > _DRAW_SECONDS:
            draw_trials(result.trials, space, folder / PLOT)
            drawn_at = time.monotonic()
        on_event(ended)
    result = _write(study, plan, space, folder)
    draw_trials(result.trials, space, folder / PLOT)
    return result


def ended_trials(study: Any) -> tuple[Trial, ...]:
    """The trials of a study that have ended; those that were interrupted and restarted are not counted."""
    ended = [Trial(**one.user_attrs[_ENDED]) for one in study.trials if _ENDED in one.user_attrs]
    return tuple(
        replace(one, values={to_current_path(path): value for path, value in one.values.items()}) for one in ended
    )


def _optuna() -> Any:
    try:
        optuna = import_module("optuna")
    except ImportError as error:
        raise MissingExtraError('a search needs Optuna: pip install "medmaskrcnn[tune]"') from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _open(optuna: Any, folder: Path, known: Mapping[str, str], method: Method, seed: int) -> Any:
    storage = optuna.storages.RDBStorage(f"sqlite:///{(folder / STUDY).resolve()}")
    study = optuna.create_study(storage=storage, study_name=_NAME, direction="maximize", load_if_exists=True)
    before = study.user_attrs
    for key, value in known.items():
        if not _same(key, before.get(key, value), value):
            raise OutputError(f"{folder} holds a search with another {key}: give the same one, or another folder")
        study.set_user_attr(key, value)
    seed += len(study.trials)  # a resumed search must not draw the same values again
    samplers = optuna.samplers
    study.sampler = samplers.TPESampler(seed=seed) if method == "tpe" else samplers.RandomSampler(seed=seed)
    return study


def _same(key: str, before: str, now: str) -> bool:
    """Whether a search was begun with the same; plans are compared by what they ask for, not by their text."""
    if before == now or key != "plan":
        return before == now
    try:
        return parse_plan(before) == parse_plan(now)
    except ReadError:  # a plan of a version whose settings are no longer known
        return False


def _take_up(optuna: Any, study: Any, method: Method, space: SearchSpace) -> None:
    """Queue again the trials that were running when the search was interrupted; once, queue all points of a grid."""
    states = optuna.trial.TrialState
    if method == "grid" and not study.user_attrs.get(_QUEUED, False):
        begun = bool(study.trials)
        for values in space.grid():
            study.enqueue_trial(_encoded(space, values), skip_if_exists=begun)
        study.set_user_attr(_QUEUED, True)
    for one in study.get_trials(states=(states.RUNNING,)):
        about = one.user_attrs
        if _ENDED not in about:
            again = {**about, _BROKEN: about.get(_BROKEN, 0) + 1}
            study.enqueue_trial(one.params or one.system_attrs.get("fixed_params", {}), user_attrs=again)
        score = about.get(_ENDED, {}).get("score")
        study.tell(one.number, score, state=states.FAIL if score is None else states.COMPLETE)


def _waiting(optuna: Any, study: Any) -> bool:
    return bool(study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.WAITING,)))


def _one_trial(
    optuna: Any,
    study: Any,
    plan: Plan,
    space: SearchSpace,
    objective: Objective,
    folder: Path,
    starting: Callable[[int, Plan], None],
) -> Trial:
    trial = study.ask()
    values = _suggested(trial, space)
    name = trial.user_attrs.get(_FOLDER, f"{TRIALS}/{trial.number:04d}")
    trial.set_user_attr(_FOLDER, name)
    broken = trial.user_attrs.get(_BROKEN, 0)
    started, score, error = time.monotonic(), None, ""
    try:
        if broken >= _MOST_INTERRUPTIONS:
            raise MedMaskRCNNError(f"broken off {broken} times; was memory short?")
        candidate = changed_plan(plan, values)
        starting(trial.number, candidate)
        score = float(objective(candidate, make_folder(path_below(folder, name))))
        if not isfinite(score):
            raise MedMaskRCNNError(f"the score is {score}")
    except KeyboardInterrupt:
        trial.set_user_attr(_BROKEN, broken - 1)  # stopping by the user does not count as an interruption
        raise
    except Exception as failure:  # any error is recorded, and the other trials are not lost
        log.warning("trial %d failed", trial.number, exc_info=failure)
        score, error = None, " ".join(f"{type(failure).__name__}: {failure}".split())
    ended = Trial(trial.number, values, score, time.monotonic() - started, error, name)
    trial.set_user_attr(_ENDED, asdict(ended))
    states = optuna.trial.TrialState
    study.tell(trial, score, state=states.FAIL if score is None else states.COMPLETE)
    return ended


def _suggested(trial: Any, space: SearchSpace) -> dict[str, Any]:
    """Draw a value for every path; choices are stored as JSON, since Optuna does not support lists.

    Names are those of format 1, so that a search that began before a setting was renamed can continue.
    """
    values: dict[str, Any] = {}
    for path, one in space.root.items():
        name = to_first_path(path)
        if isinstance(one, Choices):
            values[path] = json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in one.choices]))
        elif one.whole:
            values[path] = trial.suggest_int(name, one.low, one.high, log=one.log, step=one.step or 1)
        else:
            drawn = trial.suggest_float(name, one.low, one.high, log=one.log, step=one.step)
            values[path] = float(f"{drawn:.10g}")
    return values


def _encoded(space: SearchSpace, values: dict[str, Any]) -> dict[str, Any]:
    """Values as Optuna stores them."""
    return {
        to_first_path(path): json.dumps(value) if isinstance(space.root[path], Choices) else value
        for path, value in values.items()
    }


def _write(study: Any, plan: Plan, space: SearchSpace, folder: Path) -> SearchResult:
    ended = ended_trials(study)
    scored = [one for one in ended if one.score is not None]
    best = max(scored, key=lambda one: one.score or 0.0, default=None)
    write_trials(ended, space.paths, folder / TABLE)
    if best is None:
        return SearchResult(ended, None, None, folder)
    found = changed_plan(plan, best.values)
    reason = f"Best of {len(scored)} trials: {best.score:.4f} (trial {best.number})."
    text = plan_text(found, dict.fromkeys(best.values, reason), head=f"{plan.card.name}: {reason}")
    write_bytes(folder / BEST, text.encode())
    return SearchResult(ended, best, found, folder)
