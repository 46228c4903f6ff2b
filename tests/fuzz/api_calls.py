"""API calls: an engine with a model of a file, and requests that nobody should make."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fuzz.server_requests import ask_service

__all__ = ["API_CALLS"]

_ANSWER_S = 15.0
_ODD: tuple[Any, ...] = (
    None, {}, [], 0, "x", {"x": None}, {"x": "text"}, {"x": []}, {"nope": np.zeros(3)},
    {1: np.zeros(3)}, {"x": np.zeros((0,))}, {"x": np.array(["a"])},
    {"x": np.array([object()], dtype=object)},
    {"x": np.full((1, 4), np.nan, np.float32)}, {"x": np.zeros((2, 4), np.float32, order="F")},
)  # fmt: skip
_DEADLINES = (None, 0.0, -1.0, 1e-9, 1.0, float("nan"), float("inf"), "soon", 10**400)


def _api(path: str, seed: str) -> None:
    """Load, submit twenty requests, unload; whatever coinfer raises on purpose is right."""
    import coinfer
    from coinfer.errors import CoinferError

    rng = random.Random(seed)
    processors = [
        coinfer.Processor(name="a", backend="onnxruntime", units=frozenset({"u"}), cores=(0,)),
        coinfer.Processor(name="n", backend="null", units=frozenset({"v"})),
    ]
    try:
        model = coinfer.load_model(path)
        with coinfer.Engine({"m": model}, processors=processors, measure_s=0.05) as engine:
            futures = [_submitted(engine, model, rng) for _ in range(20)]
            for future in filter(None, futures):
                _awaited(future, rng)
    except CoinferError as error:
        print(f"coinfer: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        sys.exit(2)


def _submitted(engine: Any, model: Any, rng: random.Random) -> Any:
    from coinfer.errors import CoinferError

    inputs: Any = rng.choice(_ODD)
    if rng.random() < 0.6:
        inputs = {
            spec.name: np.zeros(
                [d if isinstance(d, int) else rng.choice((0, 1, 3)) for d in spec.shape]
            )
            for spec in model.inputs
        }
        if rng.random() < 0.7:
            inputs = {s.name: inputs[s.name].astype(s.dtype) for s in model.inputs}
    options = {"deadline_s": rng.choice(_DEADLINES)} if rng.random() < 0.3 else {}
    try:
        return engine.submit("m" if rng.random() < 0.95 else "other", inputs, **options)
    except (CoinferError, TypeError):  # a TypeError: what no type checker would let pass
        return None


def _awaited(future: Any, rng: random.Random) -> None:
    from concurrent.futures import CancelledError

    from coinfer.errors import CoinferError

    if rng.random() < 0.2:
        future.cancel()
    try:
        future.result(timeout=_ANSWER_S)
    except (CoinferError, CancelledError):
        return


API_CALLS: Mapping[str, Callable[..., None]] = {"api": _api, "request": ask_service}
"""By the first word of a case's arguments."""

if __name__ == "__main__":
    API_CALLS[sys.argv[1]](*sys.argv[2:])
