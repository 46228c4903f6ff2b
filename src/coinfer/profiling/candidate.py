"""Candidate: one loaded session that is timed beside others of its model. Knows none of these."""

from __future__ import annotations

import dataclasses
import math
import threading
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import numpy as np

from coinfer.backends.base import Session, Tensors, device_bytes, reload_s
from coinfer.backends.patience import HangError, patiently
from coinfer.errors import BackendError
from coinfer.machine.profile import Measurement
from coinfer.model import Model
from coinfer.profiling import memory
from coinfer.profiling.context import MOST_FEEDS, ProfilingContext
from coinfer.profiling.error import relative_error
from coinfer.profiling.measure import Sampler
from coinfer.profiling.patient_sessions import PatientSession
from coinfer.profiling.task import Task

__all__ = ["Candidate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A session, what it took to load it, and its times so far.

    Its methods are called in the thread that the engine's worker would be.

    Attributes:
        context: Where it is measured.
        task: What it is a session of.
        session: To be closed by the caller.
        sampler: Times its runs.
        load_s: Seconds to load it, once more where the session says what that takes.
        resident_bytes: Memory that it took for good, of the device if that has some of its own.
        run_bytes: Memory that its first run took on top.
    """

    context: ProfilingContext
    task: Task
    session: Session
    sampler: Sampler
    load_s: float
    resident_bytes: int
    run_bytes: int

    @classmethod
    def loaded(cls, context: ProfilingContext, task: Task, _stop: threading.Event) -> Self:
        """Load and run once, and see what memory that takes."""
        model = context.models[task.model]
        context.wake(task.processor)
        memory.settle()
        before = memory.resident_bytes()
        session, load_s = context.load(model, task.processor)
        try:
            memory.settle()  # what loading took for a moment is not what the model holds
            loaded, on_device = memory.resident_bytes(), device_bytes(session)
            samples = context.samples[task.model][task.shape][:MOST_FEEDS]
            feeds = [_repeated(model, sample, task.batch) for sample in samples]
            patiently(lambda: session.run(feeds[0]), f"the first run of {task}")
            running = memory.resident_bytes() - loaded
            if on_device:
                running = device_bytes(session) - on_device
        except HangError:
            raise
        except BaseException:
            session.close()
            raise
        return cls(
            context=context,
            task=task,
            session=session,
            sampler=Sampler(session, feeds, context.effort),
            load_s=reload_s(session) or load_s,
            resident_bytes=on_device or max(0, loaded - before),
            run_bytes=max(0, running),
        )

    def measurement(self, _stop: threading.Event) -> Measurement:
        """Return what was measured, below fp32 with the output error.

        Raises:
            BackendError: outputs are not finite where those in fp32 are.
        """
        return Measurement(
            seconds=tuple(self.sampler.seconds),
            load_s=self.load_s,
            resident_bytes=self.resident_bytes,
            run_bytes=self.run_bytes,
            error=None if self.task.processor.precision == "fp32" else self._error(),
        )

    def _error(self) -> float:
        processor = self.task.processor
        in_fp32 = dataclasses.replace(processor, precision="fp32")
        reference = self.context.patient(self.context.models[self.task.model], in_fp32)
        session = PatientSession(self.session, f"running {self.task}")
        samples = self.context.samples[self.task.model][self.task.shape]
        with closing(reference):
            error = relative_error(
                [session.run(sample) for sample in samples],
                [reference.run(sample) for sample in samples],
            )
        if math.isfinite(error):
            return error
        raise BackendError(
            f"{self.task}: its outputs in {processor.precision} are not finite where those in "
            "fp32 are"
        )


def _repeated(model: Model, sample: Tensors, batch: int) -> Tensors:
    """Make a batch of one sample; inputs without the batch axis stay as they are."""
    if batch == 1:
        return sample
    return {
        name: np.concatenate([value] * batch) if name in model.input_check.batched else value
        for name, value in sample.items()
    }
