"""Many pipelines at once, some cancelled, some late, some failing: each ends exactly once."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import CancelledError, wait
from pathlib import Path

import numpy as np
import pytest

from coinfer.backends.null import Faults
from coinfer.ensembles import Ensemble, EnsembleFuture
from coinfer.errors import ClosedError, CoinferError
from ensembles.pipelines import MODELS, described, picture
from runtime.engines import null_engine

STEPS = """
import numpy as np
def cut(image, heat):
    n = int(image[0, 0, 0, 0])
    if n == 7:
        raise ValueError("seven")
    return np.zeros((n, 1, 8, 8), np.float32)
"""
_HOW = (
    {},
    {"deadline_s": 1e-4, "on_late": "drop"},
    {"deadline_s": 60.0, "on_late": "drop", "priority": 1},
)


@pytest.mark.parametrize("seed", range(3))
def test_each_pipeline_ends_once_and_is_counted_out(tmp_path: Path, seed: int) -> None:
    faults, told, telling = Faults(), Counter[int](), threading.Lock()
    futures: list[EnsembleFuture] = []

    def note(future: object) -> None:
        with telling:
            told[id(future)] += 1

    def ask(random: np.random.Generator) -> None:
        for _ in range(100):
            image = picture()
            image["image"][0, 0, 0, 0] = random.integers(8)
            try:
                future = ensemble.submit(image, **_HOW[random.integers(3)])  # type: ignore[arg-type]
            except ClosedError:
                return
            future.add_done_callback(note)
            futures.append(future)
            if random.random() < 0.2:
                futures[random.integers(len(futures))].cancel()
            if random.random() < 0.02:
                faults.fail()

    engine = null_engine("p0", "p1", faults=faults, models=MODELS)
    ensemble = Ensemble(described(tmp_path, steps=STEPS), engine, MODELS)
    generators = np.random.default_rng(seed).spawn(4)
    threads = [threading.Thread(target=ask, args=(each,)) for each in generators]
    for thread in threads:
        thread.start()
    for thread in threads[:2]:
        thread.join()
    if seed:  # in the midst of it
        (engine.stop if seed == 1 else ensemble.close)(drain=False)
    for thread in threads[2:]:
        thread.join()
    ended = wait(futures, 20)
    assert not ended.not_done
    ensemble.close()
    engine.stop()
    assert engine.n_unanswered == 0
    assert set(told.values()) == {1}
    assert len(told) == len(futures)
    assert not ensemble._under_way
    for future in futures:
        try:
            error = future.exception(0)
        except CancelledError:
            continue
        assert error is None or isinstance(error, CoinferError), error
        assert error is None or str(error).startswith("ensemble 'faces', stage ")
