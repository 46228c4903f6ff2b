"""Worker pool: one worker thread per processor; replaces workers that hang or die.

Only the owner of the core changes it: workers are started and replaced one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from coinfer.machine.memories import lowers_threads
from coinfer.machine.processor import Processor, overlaid_units, twins
from coinfer.runtime import clock
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
        twins: By express processor, the one on which it stands.
        lowering: Those of them for which threads give way.
        workers: By the processor's name. Whoever reads it sees replacements.
        has_ended: Whether `stop` was called: no worker is started any more.
        may_lower: Asked with the first jobs of express workers whether others shall give way now.
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
        self.has_ended = False
        self._leaving: set[str] = set()
        self.may_lower: Callable[[], bool] = lambda: True
        self.twins = twins(processors)
        above = [p for p in processors if lowers_threads(p)]
        overlaid = overlaid_units(above)
        self.lowering = {p.name: self.twins[p.name] for p in above}
        below = set(self.lowering.values())
        self.workers = {
            p.name: Worker(
                p,
                owner,
                cores=cores[p.name],
                yielding=None if p.units.isdisjoint(overlaid) else yielding,
                is_spared=p.name in below,
            )
            for p in processors
        }
        self._begin_with_first_use()

    @property
    def has_retired(self) -> bool:
        """Whether a worker that was given up may still run something."""
        return any(worker.retired for worker in list(self.workers.values()))

    def has_refused(self, number: int) -> bool:
        """Tell whether a library refused a request for what it brought."""
        return any(number in list(worker.use.refused) for worker in list(self.workers.values()))

    def on_top(self, running: Collection[str]) -> list[Worker]:
        """Return the workers that give way to none, those first that may soon run something.

        These are those on cores that are idle, then the express ones, the most used one first.

        Args:
            running: Names of the processors that run something.
        """
        workers = self.workers
        busy = [workers[name].processor for name in running]
        used = {unit for each in busy for unit in each.units | each.overlays}
        idle: list[Worker] = []
        express: list[Worker] = []
        others: list[Worker] = []
        for worker in workers.values():
            if not worker.gives_way:
                of = worker.processor
                if used.isdisjoint(of.overlays or of.units):
                    idle.append(worker)
                else:
                    (express if of.overlays else others).append(worker)
        express.sort(key=lambda worker: -worker.use.executions)
        return [*idle, *express, *others]

    def start(self, processor: str) -> None:
        """Start a processor's worker, and those of express ones on it; again is fine."""
        if self.has_ended:
            return
        with self._yielding.apart():
            self.workers[processor].start()
            for express, twin in self.twins.items():
                if twin == processor:
                    self.workers[express].start()

    def replace(self, worker: Worker) -> bool:
        """Put a fresh worker in the place of one that ended; False if nobody replaced it.

        That is so if the pool has ended or it was replaced before.

        Raises:
            RuntimeError: the system has no thread left.
        """
        name = worker.processor.name
        if self.has_ended or self.workers[name] is not worker:
            return False
        fresh = Worker(
            worker.processor,
            self._owner,
            cores=worker.cores,
            yielding=worker.yielding,
            is_spared=name in self.lowering.values(),
            use=worker.use,
        )
        with self._yielding.apart():
            fresh.start()
        if name in self.lowering:
            self._preempt_with(fresh)
        self.workers[name] = fresh
        self._note_left(name)
        return True

    def raise_again(self) -> None:
        """Let fresh threads of normal priority take the place of those that give way.

        Each ends after its present job. The owner does this.
        """
        if self._yielding.is_lowering:
            self._yielding.end()
            for name, worker in self.workers.items():
                if worker.gives_way and worker.thread_id is not None and not worker.retired:
                    self._leaving.add(name)
                    worker.leave()
        self._begin_with_first_use()

    def start_anew(self, worker: Worker) -> None:
        """Let a fresh thread take the place of one that left. The owner does this.

        Raises:
            RuntimeError: the system has no thread left.
        """
        name = worker.processor.name
        with self._yielding.apart():
            worker.start_anew(is_spared=name in self.lowering.values())
        self._note_left(name)

    def _note_left(self, name: str) -> None:
        self._leaving.discard(name)
        if not self._leaving:
            self._yielding.note_all_left()

    def stop(self) -> None:
        """Let all threads end after the jobs given so far; start and replace none any more."""
        self.has_ended = True
        for worker in self.workers.values():
            worker.stop()

    def join(self, timeout_s: float | None) -> bool:
        """Wait for the threads; False if one still runs after so many seconds."""
        until_s = None if timeout_s is None else clock.now() + timeout_s
        ended = True
        for worker in list(self.workers.values()):
            # One that was given up may hang for ever; it is a daemon and does not keep the process.
            left_s = None if until_s is None else max(0.0, until_s - clock.now())
            ended = worker.join(0.0 if worker.retired else left_s) and ended
        return ended

    def _begin_with_first_use(self) -> None:
        """Let the first job of an express worker make all others give way, if that may be."""
        for express in self.lowering:
            self._preempt_with(self.workers[express])

    def _preempt_with(self, worker: Worker) -> None:
        put = worker.put

        def give(job: Job) -> None:
            if self.may_lower():
                worker.give = put
                self._yielding.begin()
            put(job)

        worker.give = give
