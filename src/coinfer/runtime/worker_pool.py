"""Worker pool: one worker thread per processor; replaces workers that hang or die."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from coinfer.machine.processor import Processor, overlaid_units, twins
from coinfer.runtime.worker import Job, Owner, Worker
from coinfer.runtime.yielding import Yielding

__all__ = ["WorkerPool"]


class WorkerPool:
    """One worker per processor.

    Args:
        processors: The processors.
        owner: Takes what the workers return.
        cores: By processor, the cores to which its worker is pinned.
        yielding: The threads that give way once an express processor is used.

    Attributes:
        workers: By the processor's name. Whoever reads it sees replacements.
    """

    def __init__(
        self,
        processors: Sequence[Processor],
        owner: Owner,
        cores: Mapping[str, Collection[int]],
        yielding: Yielding,
    ) -> None:
        self._owner = owner
        self._yielding = yielding
        self._ended = False
        self._twins = twins(processors)
        overlaid = overlaid_units(processors)
        self.workers = {
            p.name: Worker(
                p,
                owner,
                cores=cores[p.name],
                yielding=None if p.units.isdisjoint(overlaid) else yielding,
            )
            for p in processors
        }
        for express in self._twins:
            self._preempt_with(self.workers[express])

    @property
    def has_retired(self) -> bool:
        """Whether a worker that was given up may still run something."""
        return any(worker.retired for worker in self.workers.values())

    def start(self, processor: str) -> None:
        """Start a processor's worker, and those of express ones on it; again is fine."""
        self.workers[processor].start()
        for express, twin in self._twins.items():
            if twin == processor:
                self.workers[express].start()

    def replace(self, worker: Worker) -> bool:
        """Put a fresh worker in the place of one that ended; False if the pool has ended."""
        if self._ended:
            return False
        fresh = Worker(
            worker.processor,
            self._owner,
            cores=worker.cores,
            yielding=worker.yielding,
            use=worker.use,
        )
        self.workers[worker.processor.name] = fresh
        fresh.start()
        return True

    def end(self, timeout_s: float | None) -> bool:
        """End all threads after the jobs given so far; False if one still runs after that."""
        self._ended = True
        workers = self.workers.values()
        for worker in workers:
            worker.stop()
        # One that was given up may hang for ever; it is a daemon and does not keep the process.
        ended = [worker.join(0.0 if worker.retired else timeout_s) for worker in workers]
        return all(ended)

    def _preempt_with(self, worker: Worker) -> None:
        """Let the first job of an express worker make all others give way."""
        put = worker.give

        def give(job: Job) -> None:
            worker.give = put
            self._yielding.begin()
            put(job)

        worker.give = give
