"""Machines and processors as JSON values and back; profiles are kept apart. Opens no file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from coinfer.errors import ConfigurationError
from coinfer.machine.cold import Cold
from coinfer.machine.contention import Contention
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.machine.submission import Submission
from coinfer.machine.topology_data import decode_topology, encode_topology

__all__ = ["decode_machine", "decode_processor", "encode_machine", "encode_processor"]

_FORMAT = "coinfer-machine/1"
_ALWAYS = ("name", "backend", "device", "units", "threads", "precision", "cores", "options")
_SETS = ("units", "supported_ops", "unsupported_ops", "overlays")


def encode_processor(processor: Processor) -> dict[str, Any]:
    """Return a processor as its fields by name; most that are empty are left out.

    >>> cpu = Processor(name="cpu", backend="null", units=frozenset({"b", "a"}))
    >>> decode_processor(encode_processor(cpu)) == cpu, encode_processor(cpu)["units"]
    (True, ['a', 'b'])
    """
    fields = {field.name: getattr(processor, field.name) for field in dataclasses.fields(processor)}
    fields |= {name: sorted(fields[name]) for name in _SETS}
    fields |= {"cores": list(processor.cores), "options": dict(processor.options)}
    return {name: value for name, value in fields.items() if name in _ALWAYS or value}


def decode_processor(data: Mapping[str, Any]) -> Processor:
    """Read what `encode_processor` made.

    Raises:
        ValueError: it is something else.
    """
    from coinfer.machine.machine_data import ProcessorData, read

    return Processor(**read(ProcessorData, data).model_dump(exclude_unset=True))


def encode_machine(machine: Machine) -> dict[str, Any]:
    """Return all of a machine but its profile, as a value that `json.dumps` writes."""
    found = {
        "format": _FORMAT,
        "name": machine.name,
        "identity": dict(machine.identity),
        "processors": [encode_processor(processor) for processor in machine.processors],
        "spreads": [[*pair, cv] for pair, cv in machine.spreads.items()],
        "swaps": sorted(machine.swaps),
        "keeps": sorted(machine.keeps),
        "contention": dataclasses.asdict(machine.contention),
        "cold": [[*pair, *each] for pair, each in machine.cold.items()],
        "overhead_s": machine.overhead_s,
    }
    if machine.overhead_factors:
        found["overhead_factors"] = list(machine.overhead_factors)
    if machine.submission:
        first_s, next_s, factors = machine.submission
        found["submission"] = [first_s, next_s, *([list(factors)] if factors else [])]
    if machine.topology is not None:
        found["topology"] = encode_topology(machine.topology)
    if machine.shares:
        found["shares"] = dict(machine.shares)
    return found


def decode_machine(data: Any) -> Machine:
    """Read what `encode_machine` made; the machine's profile is empty.

    Raises:
        ConfigurationError: it is something else, or of another format version.
    """
    if not isinstance(data, dict) or data.get("format") != _FORMAT:
        raise ConfigurationError(f"not a machine of format {_FORMAT}; make it anew")
    from coinfer.machine.machine_data import MachineData, read

    try:
        found = read(MachineData, data)
        return Machine(
            name=found.name,
            identity=found.identity,
            processors=tuple(decode_processor(each) for each in data["processors"]),
            profile=Profile(),
            spreads={(model, name): cv for model, name, cv in found.spreads},
            swaps=found.swaps,
            keeps=found.keeps,
            contention=Contention(**found.contention.model_dump()),
            cold={(m, p): Cold(other, idle) for m, p, other, idle in found.cold},
            overhead_s=found.overhead_s,
            overhead_factors=found.overhead_factors,
            submission=Submission(*found.submission),
            topology=(
                None
                if found.topology is None
                else decode_topology(found.topology.model_dump(exclude_unset=True))
            ),
            shares=found.shares,
        )
    except ValueError as error:
        raise ConfigurationError(f"damaged machine ({error}); make it anew") from error
