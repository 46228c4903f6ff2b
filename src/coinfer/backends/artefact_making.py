"""Artefact making: let a child process prepare a model before it is loaded.

Preparing one takes up to a second in which a library holds the interpreter's lock, and several
times the memory of its weights. In a child process neither is this process's. What was made is
opened in milliseconds.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from coinfer.artefacts import Made, MakeError, default_store
from coinfer.backends.base import Backend
from coinfer.backends.patience import patience_s
from coinfer.errors import ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["prepare"]

_SHARE = 2.25
"""What an artefact takes of the bytes of its weights at most: those of dense layers twice."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from coinfer.backends.artefact_child import main; main()"
)


def prepare(backend: Backend, model: Model, processor: Processor) -> None:
    """See that there is an artefact of a model where one is worth it; then `load` opens it.

    Does nothing if the backend has none: one that has some has methods `artefact_parts`, which
    returns all that one depends on, or None, and `make_artefact`, which writes one into a folder.
    What goes wrong is warned of once; then `load` compiles the model itself.
    """
    ask: Callable[[Model, Processor], Mapping[str, object] | None] | None
    ask = getattr(backend, "artefact_parts", None)
    if ask is None:
        return
    store = default_store()
    parts = ask(model, processor) if store.limit_bytes else None
    if parts is None:
        return
    store.ensure(
        parts,
        lambda folder: _made_in_child(backend.name, model, processor, folder),
        model=model.name,
        expected_bytes=int(model.weight_bytes * _SHARE),
        patience_s=patience_s(),
    )


def _made_in_child(name: str, model: Model, processor: Processor, folder: Path) -> Made:
    limit_s = patience_s()
    if not sys.executable or getattr(sys, "frozen", False):
        raise MakeError("this program is no Python interpreter that could be started again")
    try:
        model = dataclasses.replace(model, content=model.content.detached())
    except ModelError as error:
        raise MakeError(f"{type(error).__name__}: {error}") from error
    with subprocess.Popen(
        [sys.executable, "-c", _START, json.dumps(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for this process, which ends the child
    ) as child:
        order = _Order(child, (name, model, processor, folder))
        try:
            # None: the system's longest wait.
            answer, errors = child.communicate(timeout=limit_s if limit_s < 1e6 else None)
        except subprocess.TimeoutExpired:
            raise MakeError(f"it was not made within {limit_s:g} s") from None
        finally:
            child.kill()
            order.join()
    if order.error is not None:
        raise MakeError(f"{type(order.error).__name__}: {order.error}") from order.error
    return _answered(answer, errors, child.returncode)


class _Order(threading.Thread):
    """Writes what is to be made to a child as it is pickled: the weights are not copied for that.

    Attributes:
        error: Why it could not be written; None if it was, or the child ended before.
    """

    def __init__(self, child: subprocess.Popen[bytes], what: object) -> None:
        super().__init__(name="coinfer-order", daemon=True)
        assert child.stdin is not None
        self._file, child.stdin = child.stdin, None
        self._what = what
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Write it."""
        try:
            with self._file as file:
                pickle.dump(self._what, file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError:  # the child says why
            pass
        except Exception as error:  # noqa: BLE001 - of whatever cannot be pickled
            self.error = error


def _answered(answer: bytes, errors: bytes, status: int) -> Made:
    try:
        data = json.loads(answer)
    except ValueError:
        lines = errors.decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), f"status {status}")
        raise MakeError(f"the process that prepares it failed: {last}") from None
    if data["problem"]:
        raise MakeError(data["problem"])
    return Made(data["facts"], data["refused"])
