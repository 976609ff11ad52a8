"""Make the calls that the cache does not hold, each in one worker process with a stated number of threads."""

from __future__ import annotations

import importlib
import logging
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.cache import Cache, Call
from benchmarks.methods import Method, Outcome

logger = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

Scorer = Callable[[NDArray[Any], Any, ArrayLike], dict[str, float]]
"""(clusters, cells, labels) -> scores."""


class Seen(Protocol):
    """What a method may see: `datasets.Cells` or `pairs.Transfer`."""

    @property
    def fingerprint(self) -> str:
        """Tells data apart."""


class Item(Protocol):
    """What is run on: a data set, or a pair of them."""

    @property
    def name(self) -> str:
        """Name in the table and in the cache."""

    def key(self) -> dict[str, str]:
        """Return what of the data decides an answer."""

    def load(self) -> Any:  # noqa: ANN401 - `cells` for the method, `labels` for the scores
        """Read it: `cells` is what a method may see, `labels` what scores compare with."""


@dataclass(frozen=True)
class Plan:
    """What is to be run, and how."""

    benchmark: str
    """Module under `benchmarks` with `METHODS`, `find_method` and `score`; workers look methods up there."""
    methods: tuple[Method, ...]
    sets: tuple[Item, ...]
    seeds: tuple[int, ...]
    jobs: int = 1
    """Worker processes; 0 makes no calls."""
    threads: int = 1
    """OMP threads of each worker."""


@dataclass(frozen=True)
class Results:
    """What all calls gave."""

    calls: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    """(method, data set, seed) -> {'columns': {column: scores}, 'seconds': ..., 'prepare_seconds': ...}"""
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)
    """(method, data set, seed) -> last line of the error."""


def run_plan(plan: Plan, cache: Cache) -> Results:
    """Run a plan, taking finished calls from the cache; one that fails is reported and leaves the others alone."""
    results, waiting = Results(), []
    for method in plan.methods if plan.jobs else ():
        if method.environment is not None and not method.environment.on_request:
            method.environment.make()
    able = {method.name for method in plan.methods if not method.missing()}
    for call, item in list_calls(plan):
        stored = cache.get(call)
        if stored is not None:
            results.calls[call.method, call.data, call.seed] = stored
        elif call.method in able:
            waiting.append((call, item))
    logger.info("%d calls in the cache, %d %s", len(results.calls), len(waiting), "to make" if plan.jobs else "missing")
    if plan.jobs:
        _make_calls(plan, waiting, cache, results)
    return results


def list_calls(plan: Plan) -> list[tuple[Call, Item]]:
    """Return the calls of a plan, with what each is run on; all seeds of a method and set follow each other."""
    keys = {method.name: method.cache_key() for method in plan.methods}
    return [
        (Call(plan.benchmark, method.name, item.name, seed, keys[method.name] | data_key), item)
        for item, data_key in ((item, item.key()) for item in plan.sets)
        for method in plan.methods
        if method.suits(item)
        for seed in plan.seeds
    ]


def _make_calls(plan: Plan, waiting: Sequence[tuple[Call, Item]], cache: Cache, results: Results) -> None:
    if not waiting:
        return
    # BLAS and OpenMP read these when they are loaded: in the workers, which start from nothing ('spawn').
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(plan.threads)))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(plan.jobs, mp_context=context) as pool:
        futures = {pool.submit(run_call, c.benchmark, c.method, item, c.seed): c for c, item in waiting}
        for n_done, future in enumerate(as_completed(futures), start=1):
            call = futures[future]
            where = (call.method, call.data, call.seed)
            try:
                result = future.result()
            except BrokenProcessPool:
                result = {"error": "the worker process died (out of memory?)"}
            if "error" in result:
                results.failures[where] = result["error"]
                logger.warning("[%d/%d] %s on %s, seed %d failed: %s", n_done, len(waiting), *where, result["error"])
                continue
            cache.put(call, result)
            results.calls[where] = result
            logger.info("[%d/%d] %s on %s, seed %d: %.1f s", n_done, len(waiting), *where, result["seconds"])


def run_call(benchmark: str, method_name: str, item: Item, seed: int) -> dict[str, Any]:
    """Make one call and score it; runs in a worker.

    Returns
    -------
    `columns` (column -> scores), `seconds`, `prepare_seconds`, `peak_mb` of the process so far; or `error`.
    """
    module = importlib.import_module(f"benchmarks.{benchmark}")
    method = module.find_method(method_name, module.METHODS)
    try:
        data = item.load()
        prepared, prepare_seconds = _prepare(method, data.cells)
        begin = time.perf_counter()
        outcome = method.run(prepared, data.cells, seed)
        seconds = time.perf_counter() - begin
        columns = score_outcome(outcome, data.cells, data.labels, module.score)
    except Exception as error:  # noqa: BLE001 - one failing peer must not lose the others' results
        logger.debug("%s", traceback.format_exc())
        return {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
    return {"columns": columns, "seconds": seconds, "prepare_seconds": prepare_seconds}


def score_outcome(outcome: Outcome, cells: Seen, labels: NDArray[Any], score: Scorer) -> dict[str, dict[str, float]]:
    """Score every column; of epochs, keep the one with the best NMI against the labels, as the authors do."""
    columns = {key: score(found, cells, labels) for key, found in outcome.clusters.items()}
    for key, epochs in outcome.epochs.items():
        scored = {epoch: score(found, cells, labels) for epoch, found in epochs.items()}
        best = max(scored, key=lambda epoch: (scored[epoch]["nmi"], -epoch))
        columns[key] = scored[best] | {"epoch": float(best)}
    return columns


_PREPARED: dict[str, tuple[str, Any, float]] = {}
"""Method name -> fingerprint of the data set last prepared, what came out, seconds; per worker process."""


def _prepare(method: Method, cells: Seen) -> tuple[Any, float]:
    kept = _PREPARED.get(method.name)
    if kept is None or kept[0] != cells.fingerprint:
        _PREPARED.clear()  # one prepared data set at a time keeps a worker small
        begin = time.perf_counter()
        prepared = method.prepare(cells)
        kept = _PREPARED[method.name] = (cells.fingerprint, prepared, time.perf_counter() - begin)
    return kept[1], kept[2]


def as_scores(scores: Mapping[str, float]) -> dict[str, float]:
    """Return scores as plain floats for JSON."""
    return {name: float(np.float64(value)) for name, value in scores.items()}
