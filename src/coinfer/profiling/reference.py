"""Reference: what the outputs of a model are compared with: onnxruntime in fp32 on one thread.

Where that is not installed or cannot run a model, it is the first processor that can.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from coinfer.backends.base import Backend, Session, Tensor, Tensors
from coinfer.backends.registry import get_backend
from coinfer.errors import BackendError
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.profiling.context import ProfilingContext

__all__ = ["REFERENCE", "Reference", "computes_alike", "reference_backends"]

REFERENCE: Final = Processor(
    name="the reference", backend="onnxruntime", units=frozenset({"any core"})
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A model loaded where its outputs count as right.

    Attributes:
        processor: Where that is.
        name: What messages call it; says why it is not onnxruntime, if it is not.
        session: The model there.
        outputs: Its outputs by sample.
    """

    processor: Processor
    name: str
    session: Session
    outputs: Sequence[Mapping[str, Tensor]]

    @classmethod
    @contextmanager
    def opened(
        cls,
        context: ProfilingContext,
        model: Model,
        processors: Iterable[Processor],
        samples: Sequence[Tensors],
    ) -> Iterator[Reference]:
        """Load a model on the first processor that can run it on all samples.

        Raises:
            BackendError: none can.
        """
        why = "is not installed" if REFERENCE.backend not in context.backends else ""
        for processor in (*(() if why else (REFERENCE,)), *processors):
            try:
                session = context.patient(model, processor)
            except BackendError as error:
                why = why or f"cannot load it: {error}"
                continue
            try:
                outputs = [session.run(sample) for sample in samples]
            except Exception as error:  # noqa: BLE001 - a session is foreign code
                session.close()
                why = why or f"cannot run it: {error}"
                continue
            try:
                name = REFERENCE.backend
                if processor is not REFERENCE:
                    name = f"{processor.name}, because {REFERENCE.backend} {why}"
                yield cls(processor=processor, name=name, session=session, outputs=outputs)
            finally:
                session.close()
            return
        raise BackendError(f"model {model.name!r}: nothing runs it on its samples: {why}")


def computes_alike(one: Processor, other: Processor) -> bool:
    """Tell whether two processors compute the same."""
    same = ("backend", "device", "threads", "precision", "options")
    return all(getattr(one, name) == getattr(other, name) for name in same)


def reference_backends(given: Mapping[str, Backend]) -> dict[str, Backend]:
    """Return these backends with that of the reference, if it is installed."""
    name = REFERENCE.backend
    try:
        return {**given, name: given[name] if name in given else get_backend(name)}
    except BackendError:
        return dict(given)
