"""Stress an engine: requests beside signals that raise, deaths of workers, cancels, loads, unloads.

    PYTHONPATH=src:tests python -m fuzz.engine_stress [--requests 100000] [--seed 0]

Prints what was done; ends with an error if a future is not answered exactly once, or if `drain` or
`stop` does not return. Needs the main thread and `signal.setitimer`.
"""

from __future__ import annotations

import argparse
import logging
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coinfer.api import Engine
from coinfer.backends.null import NullBackend
from coinfer.errors import CoinferError
from coinfer.machine.profile import Profile
from runtime.engines import FEED, MODEL, cpus

WAIT_S = 60.0
NAMES = ("p0", "p1")
EXTRA = Profile.from_seconds({"extra": dict.fromkeys(NAMES, 1e-4)})


class Interrupt(BaseException):
    """What the signal handler raises."""


class Signals:
    """A signal handler that raises at random moments of what is done, and only there.

    Where the moment is in a callback of a weak reference or in a finalizer, Python reports what the
    handler raises and goes on: as with Ctrl-C, nothing is interrupted then.
    """

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self._armed = False
        self.raised = 0

    def __enter__(self) -> Signals:
        self._before = signal.signal(signal.SIGALRM, self._handle)
        self._reports = sys.unraisablehook
        sys.unraisablehook = self._report
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, self._before)
        sys.unraisablehook = self._reports

    def disturb(self, act: Callable[[], Any]) -> Any:
        """Do something with a signal underway; None if that came."""
        signal.setitimer(signal.ITIMER_REAL, self._draw.uniform(1e-6, 4e-4))
        try:
            self._armed = True
            result = act()
            self._armed = False
        except Interrupt:
            self.raised += 1
            return None
        except CoinferError:
            self._armed = False
            raise
        return result

    def _handle(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise Interrupt

    def _report(self, unraisable: sys.UnraisableHookArgs) -> None:
        if unraisable.exc_type is not Interrupt:
            self._reports(unraisable)


class Mortal(NullBackend):
    """Some of its runs fail, and some end their thread."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        self._draw = draw
        self.deaths = 0

    def load(self, model, processor):
        session = super().load(model, processor)
        run = session.run

        def mortal(inputs):
            fate = self._draw.random()
            if fate < 0.01:
                self.deaths += 1
                raise SystemExit
            if fate < 0.03:
                raise ValueError("unlucky")
            return run(inputs)

        session.run = mortal
        return session


class Stress:
    """Does random things with an engine, and counts the answers."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.backend = Mortal(random.Random(seed + 1))
        self.done: Counter[str] = Counter()
        self.futures: list[Future[Any]] = []
        self.answers: list[Future[Any]] = []
        self.engine = Engine(
            {"m": MODEL},
            processors=cpus(*NAMES),
            profile=Profile.from_seconds({"m": dict.fromkeys(NAMES, 1e-4)}),
            backends={"null": self.backend},
            pin=False,
        )

    def run(self, requests: int) -> None:
        """Submit so many requests between other things, then stop.

        Raises:
            AssertionError: something was lost.
        """
        with Signals(self.draw) as signals:
            while self.done["submit"] + self.done["infer"] < requests:
                what = self._choose()
                self.done[what] += 1
                try:
                    result = signals.disturb(getattr(self, f"_{what}"))
                except CoinferError as error:
                    self.done[type(error).__name__] += 1
                    result = None
                if isinstance(result, Future):
                    self.futures.append(result)
                    # A function of Python could be interrupted before its first step.
                    result.add_done_callback(self.answers.append)
        self.done["interrupts"], self.done["deaths"] = signals.raised, self.backend.deaths
        assert self.engine.drain(WAIT_S), "drain does not return"
        assert self.engine.n_unanswered == 0
        self.engine.stop(timeout_s=WAIT_S)
        assert self.engine.fault is None, self.engine.fault
        assert all(future.done() for future in self.futures), "a future is not answered"
        times = Counter(map(id, self.answers))
        assert set(times.values()) <= {1}, "a callback was called twice"
        assert len(times) == len(self.futures), "a callback was not called"

    def _choose(self) -> str:
        kinds = ("submit", "infer", "cancel", "load", "unload", "drain")
        return self.draw.choices(kinds, (60, 20, 10, 2, 2, 1))[0]

    def _submit(self) -> Future[Any]:
        return self.engine.submit(self.draw.choice(("m", "m", "extra")), FEED)

    def _infer(self) -> None:
        self.engine.infer("m", FEED, timeout_s=WAIT_S)

    def _cancel(self) -> None:
        if self.futures:
            self.futures[-1].cancel()

    def _load(self) -> None:
        self.engine.load("extra", MODEL, EXTRA)

    def _unload(self) -> None:
        self.engine.unload("extra")

    def _drain(self) -> None:
        self.engine.drain(0.01)


def main() -> int:
    """Stress an engine as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    stress = Stress(arguments.seed)
    stress.run(arguments.requests)
    sys.stdout.write(", ".join(f"{what} {n}" for what, n in stress.done.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
