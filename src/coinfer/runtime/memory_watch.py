"""Memory watch: holds what is believed of memory against what the system says of this process.

What a place takes is believed at first as the plan says it. What the process holds less once a
place is evicted is what that took. A place counts with what two evictions in a row gave back at
least, if that is clearly more than the plan says: somebody else may free memory at the same moment,
but not twice. It never counts with less: the system takes pages of files away when memory is short,
and just then a budget must not grow. Of a device with memory of its own the backend's library says
what this process holds there.

The loader's thread calls it: no request waits for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coinfer.backends.base import DeviceUse
from coinfer.core.commands import Evict, Load
from coinfer.core.events import MemoryGiven, MemoryMeasured
from coinfer.machine.memories import HOST, SHARE, memory_of
from coinfer.machine.processor import Processor
from coinfer.machine.span import Span
from coinfer.metrics.memory_track import ProcessMemory
from coinfer.runtime import clock
from coinfer.runtime.engine_warnings import EngineWarnings
from coinfer.runtime.process_memory import process_memory
from coinfer.units import format_bytes

__all__ = ["PERIOD_S", "MemoryWatch", "Since", "rest_beside"]

PERIOD_S = 0.25
"""How often the process is measured."""

_LIMIT_PERIOD_S = 1.0

_STEP = 1 / 16
"""Share of a device's budget by which it must change to follow."""

_RESTS = 8
"""Of so many measurements the largest counts for what the process holds beside models: of what is
loaded a part may not be in memory yet, and when a limit is lowered the system takes pages away."""

_NOISE_BYTES = 4 * 2**20
"""What the rest of a process frees while a place is evicted."""

_Key = tuple[str, Span, tuple[str, ...]]


@dataclass(slots=True)
class _Measured:
    """What is known of the size of a place.

    Attributes:
        number: Its number in the core.
        planned: Bytes that the plan says.
        last: What its last eviction gave back; 0: it had none.
        size: Bytes that it counts with.
    """

    number: int
    planned: int
    last: int = 0
    size: int = 0


class Since(NamedTuple):
    """What a watch begins with that begins later than the engine.

    Attributes:
        limit: How many bytes the process might use at the engine's start; None: nobody limited it.
        others: Bytes of what is loaded and cannot be evicted.
        rest: Bytes that the process held beside what is loaded.
    """

    limit: int | None
    others: int
    rest: int


class MemoryWatch:
    """Measures the process, corrects what the core believes, and follows the container's limit.

    Args:
        given: What the core was told of memories.
        processors: Those of the plan.
        least: Bytes of a memory without which some model could not run, by its name.
        limit: Says how many bytes this process may use now; None: nobody limits it.
        post: Gives the core an event.
        warnings: Where to say that a limit was lowered.
        uses: Says what is taken of memories that are not the host's, by name.
        since: What the watch began with, if models had no budget before.
        taken: Says how many bytes what is loaded is believed to take of the CPU cores' memory.
        rest: Bytes that the process holds beside models, at least.

    Attributes:
        before: What the process held before anything was loaded; None: nobody knows.
        given: What memories have now.
    """

    def __init__(
        self,
        given: MemoryGiven,
        processors: Sequence[Processor],
        least: Callable[[str], int],
        limit: Callable[[], int | None] | None,
        post: Callable[[MemoryGiven | MemoryMeasured], None],
        warnings: EngineWarnings,
        uses: Callable[[], Mapping[str, DeviceUse]] = dict,
        since: Since | None = None,
        taken: Callable[[], float] = lambda: 0.0,
        rest: int = 0,
    ) -> None:
        self._given = self.given = given
        self._memories: Mapping[str, str] = {p.name: memory_of(p) for p in processors}
        self._least = least
        self._limit = limit
        self._post = post
        self._warnings = warnings
        self._uses = uses
        self._places: dict[_Key, _Measured] = {}
        self._left: dict[_Key, int] = {}  # what was evicted and is in the page cache, with its size
        self._first_limit = self._last_limit = None if limit is None else limit()
        self._others, self._taken, self._rest = 0, taken, rest
        self._rests: deque[int] = deque(maxlen=_RESTS)
        self._has_more = False
        if since is not None:
            self._first_limit = self._last_limit = since.limit
            self._others = since.others
            self._rests.append(since.rest)
        self._look_s = self._limit_s = clock.now()
        self.before = process_memory() if since is None else None

    @property
    def corrected_bytes(self) -> int:
        """Bytes by which places count with more than was planned."""
        return sum(max(0, each.size - each.planned) for each in list(self._places.values()))

    def due_in_s(self) -> float:
        """Return the seconds until it wants to be called; 0 if it does now."""
        return max(0.0, self._look_s - clock.now())

    def look(self) -> None:
        """Tell the core what the process holds, and what the container allows it."""
        now = clock.now()
        self._look_s = now + PERIOD_S
        if now >= self._limit_s:
            self._limit_s = now + _LIMIT_PERIOD_S
            self._follow_limit()
            self._follow_devices()
        held = process_memory()
        self._tell(held)
        if held is not None:
            self._rests.append(max(0, held.total - int(self._taken()) - self._others))

    def hold(self, movable: int, others: int, least: int) -> None:
        """Take note of what is loaded now into the memory of the CPU cores, as for `Since`.

        Args:
            movable: Bytes of what can be evicted: no budget must be larger.
            others: Bytes of what cannot.
            least: Bytes without which some of what can be evicted could not run.
        """
        self._given = self._given._replace(budgets={**self._given.budgets, HOST: movable})
        self._others, self._least = others, lambda _memory: least
        self._has_more = True

    def note_load(self, load: Load) -> None:
        """Take note of what a place that is being loaded is believed to take."""
        self._left.pop(_key(load), None)
        known = self._places.get(_key(load))
        if known is None or known.number != load.place:
            known = self._places[_key(load)] = _Measured(load.place, load.size_bytes)
        known.size = load.size_bytes

    def forget_gone(self, known: Container[str]) -> None:
        """Forget the places of variants that were unloaded for good: nothing reads them again."""
        for key in [each for each in self._places if each[0] not in known]:
            del self._places[key]
            self._left.pop(key, None)

    def held(self, evict: Evict) -> int | None:
        """Return what this process holds of the memory of a place; None if nobody knows."""
        memory = self._memory_of(evict)
        if memory == HOST:
            process = process_memory()
            return None if process is None else process.total
        use = self._uses().get(memory)
        return None if use is None else use.held_bytes

    def forgets(self, evict: Evict) -> bool:
        """Tell whether a place has no room in the page cache beside what may be loaded.

        The system counts pages there, too, where it limits a group of processes. If it needs some
        of them back, it may take those of what is loaded as well, which are then read again. What
        has room takes it until it is loaded again.
        """
        key = evict.model, evict.span, evict.processors
        if not self._has_room(key):
            return True
        if key in self._places:
            self._left[key] = self._places[key].size
        return False

    def forgets_unused(self, load: Load) -> bool:
        """Tell whether the page cache has no room for what only loading a place needs."""
        return not self._has_room(_key(load))

    def _has_room(self, key: _Key) -> bool:
        """Tell whether as much as a place takes has room in the page cache beside all else."""
        known, budget = self._places.get(key), self.given.budgets.get(HOST)
        if known is None or budget is None or self._last_limit is None:
            return True
        if self._memories.get(key[2][0], "") != HOST:
            return True
        room = self._last_limit - self._others - max([self._rest, *self._rests]) - budget
        return known.size <= room - sum(self._left.values())

    def note_eviction(self, evict: Evict, before: int | None, after: int | None) -> None:
        """Take note of what was held before and after a place was evicted."""
        known = self._places.get((evict.model, evict.span, evict.processors))
        budget = self.given.budgets.get(self._memory_of(evict))
        if before is None or after is None or known is None or budget is None:
            return
        gave = before - after
        least, known.last = min(gave, known.last), gave
        size = int(min(least, budget))
        if size < known.planned + _NOISE_BYTES:
            size = known.planned
        if size != known.size:
            known.size = size
            self._tell(process_memory(), known)

    def _memory_of(self, evict: Evict) -> str:
        """Return the name of the memory of a place; its processors have one between them."""
        return self._memories.get(evict.processors[0], "")

    def _tell(self, held: ProcessMemory | None, known: _Measured | None = None) -> None:
        if held is None and known is None:
            return
        held = held or ProcessMemory(0, 0)
        place = (-1, 0) if known is None else (known.number, known.size)
        self._post(MemoryMeasured(held.anonymous, held.mapped, *place))

    def _follow_limit(self) -> None:
        """Let the budget follow a limit that is lower than it was at the start."""
        limit = None if self._limit is None else self._limit()
        is_known = limit == self._last_limit and not self._has_more
        if is_known or HOST not in self._given.budgets:
            return
        self._last_limit, self._has_more = limit, False
        planned = budget = allowed = self._given.budgets[HOST]
        if limit is not None and (self._first_limit is None or limit < self._first_limit):
            allowed = min(int(SHARE * limit), limit - max([self._rest, *self._rests]))
            allowed -= self._others
            budget = max(min(planned, allowed), min(planned, self._least(HOST)))
        if budget == self.given.budgets[HOST]:
            return
        self._give(HOST, budget)
        if limit is None or budget >= planned:
            return
        text = (
            f"memory: the limit of this process was lowered to {format_bytes(limit)}, so models "
            f"get {format_bytes(budget)} from now on, not {format_bytes(planned)}"
        )
        if budget > allowed:
            text += "; with less, some model could not run"
        self._warnings.put("limit of memory", text)

    def _follow_devices(self) -> None:
        """Let budgets of devices follow what others leave there: it cannot be more than that."""
        for name, use in self._uses().items():
            if name not in self._given.budgets:
                continue
            planned, now = self._given.budgets[name], self.given.budgets[name]
            budget = min(planned, max(use.usable_bytes, self._least(name)))
            if abs(budget - now) < _STEP * planned and budget != planned:
                continue  # what others take there changes all the time
            if budget == now:
                continue
            self._give(name, budget)
            if budget < planned:
                there, given = format_bytes(use.usable_bytes), format_bytes(budget)
                self._warnings.put(
                    f"memory of {name}",
                    f"memory: this process can have {there} of {name!r}, so models get {given} "
                    f"from now on, not {format_bytes(planned)}",
                )

    def _give(self, name: str, budget: int) -> None:
        """Tell the core of another budget."""
        self.given = self.given._replace(budgets={**self.given.budgets, name: budget})
        for key, known in self._places.items():
            if self._memories.get(key[2][0]) != name:
                continue
            if known.size > max(budget, known.planned):  # else nothing could ever load it
                known.size = max(budget, known.planned)
                self._tell(process_memory(), known)
        self._post(self.given)


def rest_beside(files: int) -> int:
    """Return what this process holds beside models that nothing is loaded of yet.

    What is believed of models is more than they take, so that it is seen best before they are
    loaded.

    Args:
        files: Bytes that it holds of their files.
    """
    held = process_memory()
    return 0 if held is None else max(0, held.total - files)


def _key(load: Load) -> _Key:
    return load.variant, load.span, load.processors
