"""Processors: those that a scenario asks for; found, found by name, or described."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from coinfer.errors import ConfigurationError
from coinfer.hardware.catalogue import default_processors
from coinfer.hardware.cores import Cores, find_cores
from coinfer.machine.processor import Processor, named, twins
from coinfer.workload.processor_spec import DefaultProcessors, ProcessorSpec
from coinfer.workload.scenario import Scenario

__all__ = ["choose_processors", "find_processors"]

_SHARE_NAME = re.compile(r"gpu\d+_\d+of(\d+)(?:_\w+)?")


def choose_processors(scenario: Scenario) -> tuple[Processor, ...]:
    """Return the processors that a scenario asks for; errors as of `find_processors`."""
    return find_processors(scenario.processors, ("fp32", *scenario.precision.allow))


def find_processors(
    asked: DefaultProcessors | tuple[str | ProcessorSpec, ...], precisions: tuple[str, ...]
) -> tuple[Processor, ...]:
    """Return the processors that are asked for: found, found by name, or described.

    Raises:
        UnknownNameError: a name that no found processor has.
        ConfigurationError: a core that this process may not use, a name given twice, or an express
            processor that stands on no other.
    """
    if isinstance(asked, DefaultProcessors):
        cores = _restricted(find_cores(), asked.cores)
        return default_processors(
            asked.backends or None, cores=cores, precisions=precisions, preempt=bool(asked.preempt)
        )
    found: Sequence[Processor] = ()
    if any(isinstance(each, str) for each in asked):
        names = [each for each in asked if isinstance(each, str)]
        found = default_processors(precisions=precisions, preempt=True, shares=_shares(names))
    chosen: dict[str, Processor] = {}
    for each in asked:
        if not isinstance(each, str):
            processor = each.processor()
            cores = _restricted(find_cores(), processor.cores)
            if not cores.pinnable:  # its units are its cores all the same
                processor = dataclasses.replace(processor, cores=())
        else:
            processor = named(each, found)
        if processor.name in chosen:
            raise ConfigurationError(f"two processors are named {processor.name!r}; rename one")
        chosen[processor.name] = processor
    twins(chosen.values())  # raises where an express one stands on none
    return tuple(chosen.values())


def _shares(names: Iterable[str]) -> int:
    """Return into how many shares names ask a GPU to be split; 0: none does.

    Raises:
        ConfigurationError: two ask for different numbers.

    >>> _shares(["cpu0", "gpu0_1of2", "gpu0_2of2_fp16"])
    2
    """
    found = {int(each[1]) for name in names if (each := _SHARE_NAME.fullmatch(name))}
    if len(found) > 1:
        several = " and ".join(map(str, sorted(found)))
        raise ConfigurationError(
            f"a GPU cannot be split into {several} shares at once, since these would overlap; ask "
            "for one number"
        )
    return min(found, default=0)


def _restricted(cores: Cores, numbers: Iterable[int]) -> Cores:
    wanted = tuple(sorted(set(numbers)))
    if not wanted:
        return cores
    foreign = [number for number in wanted if number not in cores.numbers]
    if foreign:
        raise ConfigurationError(
            f"core {foreign[0]} may not be used here; the usable ones are "
            f"{', '.join(map(str, cores.numbers))}"
        )
    return dataclasses.replace(cores, numbers=wanted)
