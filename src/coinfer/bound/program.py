"""Bound: the best that any schedule could reach, from times alone, by linear programming (HiGHS).

It asks only how the work can be spread so that no compute unit is busy for more than all of the
time. Knows neither policies nor arrivals.

The model: `m` takes `T[m, k]` seconds on processor `k`; `s[m, k]` is the share of its time that
`k` spends on `m`, so it completes `s / T` of them per second. With the weights `w` of the mix,

    maximise q where  sum over k of s[m, k] / T[m, k]  =  q w[m]              for every model m
                      sum over m, and over the k that occupy u, of s[m, k]  <=  1  for every unit u.

Where processors share units this is a relaxation: that each unit has time enough does not mean
that the units of a processor are free at the same moment. The optimum can only be larger than what
a schedule reaches, so it stays an upper bound. It bounds executions of one request each on these
times: batching, fusing or splitting changes the times and so the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, linprog, milp

from coinfer.bound.capacity import Capacity, Matrix, Seconds
from coinfer.errors import ConfigurationError, InvariantError, UnknownNameError
from coinfer.processor import Processor

__all__ = ["Bound", "Makespan", "makespan", "sustainable_factor", "throughput_bound"]

_Vector: TypeAlias = npt.NDArray[np.float64]

_INFEASIBLE = 2
"""The status that SciPy gives to a program without a solution."""

_NO_SHARE = 1e-9
"""Shares below this are rounding of the solver, whose own tolerance is 1e-7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The best throughput for a mix, how it would be reached, and what capacity is worth.

    Attributes:
        throughput_per_s: Inferences per second, all models together.
        per_model_per_s: By model; in the proportions of the mix.
        shares: `{processor: {model: share of its time}}`; zeros left out.
        loads: `{unit: share of its time}`.
        prices: By processor, the sum of the prices of its units: the throughput that one second
            of it is worth. Used pairs have `T * price == model price`, all others `>=`.
        unit_prices: By unit, the throughput gained per unit of additional capacity (the dual);
            zero where the unit is not fully loaded. They add up to `throughput_per_s`.
        model_prices: By model, what one inference costs in average inferences of the mix (the
            dual); weighted with the mix they add up to 1.
    """

    throughput_per_s: float
    per_model_per_s: Mapping[str, float]
    shares: Mapping[str, Mapping[str, float]]
    loads: Mapping[str, float]
    prices: Mapping[str, float]
    unit_prices: Mapping[str, float]
    model_prices: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return a value that `json.dumps` writes."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Makespan:
    """The least time in which finite counts can be done.

    Attributes:
        seconds: Load of the busiest unit under `counts`.
        counts: `{processor: {model: executions}}`; zeros left out.
        lower_bound_s: What the solver proved that no spread can go below.
        proven: Whether `seconds` is the optimum and not just the best found in the time given.
    """

    seconds: float
    counts: Mapping[str, Mapping[str, int]]
    lower_bound_s: float
    proven: bool


def throughput_bound(
    seconds: Seconds,
    processors: Sequence[Processor],
    mix: Mapping[str, float],
    *,
    one_model: Set[str] = frozenset(),
) -> Bound:
    """Find the largest throughput of a mix; the module's docstring states the program.

    Args:
        seconds: Mean seconds, `{model: {processor: seconds}}` or a profile (whole models, batch 1).
        processors: Those that may be used.
        mix: By model, its weight; only the proportions count.
        one_model: Processors that can hold one model only. Which one is chosen exactly, as an
            integer program; the prices are those once it is chosen.

    Raises:
        ConfigurationError: a model that no processor runs (with `one_model`: that none is left
            for), or weights or times without sense.
        UnknownNameError: `one_model` names no processor.

    >>> both = [Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q")]
    >>> table = {"a": {"p": 0.1, "q": 0.2}, "b": {"p": 0.1}}
    >>> round(throughput_bound(table, both, {"a": 1, "b": 1}).throughput_per_s, 6)
    15.0
    """
    capacity = Capacity.of(seconds, processors, mix)
    limited = _limited(capacity, one_model)
    if limited:
        capacity = capacity.limited_to(_held(capacity, limited))
    return _solved(capacity)


def sustainable_factor(
    seconds: Seconds,
    processors: Sequence[Processor],
    rates: Mapping[str, float],
    *,
    one_model: Set[str] = frozenset(),
) -> float:
    """Find the largest `f` such that `f` times these rates (requests/s by model) can be served.

    Below 1 the rates exceed what any schedule can do. Arguments and errors are those of
    `throughput_bound`.
    """
    bound = throughput_bound(seconds, processors, rates, one_model=one_model)
    return bound.throughput_per_s / sum(rates.values())


def makespan(
    seconds: Seconds,
    processors: Sequence[Processor],
    counts: Mapping[str, int],
    *,
    one_model: Set[str] = frozenset(),
    time_limit_s: float = 30.0,
) -> Makespan:
    """Find the least time to do finite counts, all there from the start, by integer programming.

    The objective is the load of the busiest unit. It is the exact makespan where no processors
    share units; where they do it is a lower bound, because the units of a processor may not be
    free at the same moment. Meant for small counts (tens of each).

    Args:
        seconds: As in `throughput_bound`.
        processors: Those that may be used.
        counts: By model, how many are to be done.
        one_model: Processors that can hold one model only, over the whole time.
        time_limit_s: After this the best found is returned, with what was proven.

    Raises:
        ConfigurationError: as in `throughput_bound`, or a count that is no integer, or nothing
            was found in time, or `one_model` leaves a model without a processor.
        UnknownNameError: `one_model` names no processor.

    >>> both = [Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q")]
    >>> makespan({"a": {"p": 1.0, "q": 2.0}}, both, {"a": 4}).seconds
    3.0
    """
    for model, count in counts.items():
        if count != int(count):
            raise ConfigurationError(f"model {model!r}: the count {count} is not an integer")
    capacity = Capacity.of(seconds, processors, counts)
    limited = _limited(capacity, one_model)
    # Times are given to the solver in units of the quickest, so that its tolerances fit.
    scale = float(capacity.seconds.min())
    pairs, choices = len(capacity.pairs), len(limited)
    # The variables: executions per pair, the makespan, 0 or 1 per choice.
    width = pairs + 1 + choices
    most = np.array([capacity.amounts[m] for m, _ in capacity.pairs])
    loads = capacity.by_unit() * (capacity.seconds / scale)
    found = milp(
        _one_at(pairs, width),
        constraints=[
            LinearConstraint(
                _placed(width, (0, capacity.by_model())), capacity.amounts, capacity.amounts
            ),
            _at_most(0.0, width, (0, loads), (pairs, -np.ones((len(loads), 1)))),
            *_choice_limits(capacity, limited, width, most[limited]),
        ],
        bounds=Bounds(np.zeros(width), np.concatenate([most, [np.inf], np.ones(choices)])),
        integrality=np.concatenate([np.ones(pairs), [0.0], np.ones(choices)]),
        options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
    )
    if found.status == _INFEASIBLE:
        raise _too_few(capacity)
    if found.x is None:
        raise ConfigurationError(
            f"no way to do {dict(counts)} was found in {time_limit_s} s; "
            "ask for fewer or allow more time"
        )
    numbers = np.round(found.x[:pairs]).astype(np.intp)
    return Makespan(
        seconds=float((capacity.by_unit() @ (capacity.seconds * numbers)).max()),
        counts=_counts(capacity, numbers),
        lower_bound_s=float(found.mip_dual_bound) * scale,
        proven=found.status == 0,
    )


def _limited(capacity: Capacity, one_model: Set[str]) -> list[int]:
    """Positions of the pairs whose processor has to choose one of several models."""
    for name in sorted(one_model):
        if name not in capacity.processors:
            raise UnknownNameError.of("processor", name, capacity.processors)
    choosing = {
        k
        for k, name in enumerate(capacity.processors)
        if name in one_model and sum(other == k for _, other in capacity.pairs) > 1
    }
    return [p for p, (_, k) in enumerate(capacity.pairs) if k in choosing]


def _one_at(position: int, width: int) -> _Vector:
    vector = np.zeros(width)
    vector[position] = 1.0
    return vector


def _placed(width: int, *blocks: tuple[int, Matrix]) -> Matrix:
    """Rows over all variables from blocks, each with the position of its first variable."""
    rows = np.zeros((len(blocks[0][1]), width))
    for first, block in blocks:
        rows[:, first : first + block.shape[1]] = block
    return rows


def _at_most(high: float, width: int, *blocks: tuple[int, Matrix]) -> LinearConstraint:
    return LinearConstraint(_placed(width, *blocks), -np.inf, high)


def _choice_limits(
    capacity: Capacity, limited: Sequence[int], width: int, most: _Vector
) -> list[LinearConstraint]:
    """Nothing of a pair (at most `most` of it) without its choice; one choice per processor."""
    if not limited:
        return []
    choices = len(limited)
    first = width - choices
    selected = np.eye(len(capacity.pairs))[limited]
    return [
        _at_most(0.0, width, (0, selected), (first, -np.diag(most))),
        _at_most(1.0, width, (first, capacity.by_processor()[:, limited])),
    ]


def _scale(capacity: Capacity) -> float:
    """Seconds of an average inference at its fastest: makes the coefficients about one.

    So the solver's tolerances mean the same for microseconds and for minutes.
    """
    return float(capacity.proportions @ capacity.fastest_s)


def _made(capacity: Capacity, scale: float) -> Matrix:
    """Models x (pairs, throughput): what the shares make, less what the mix asks for; to be 0."""
    made = capacity.by_model() * (scale / capacity.seconds)
    return np.hstack([made, -capacity.proportions[:, None]])


def _solved(capacity: Capacity) -> Bound:
    scale = _scale(capacity)
    pairs, width = len(capacity.pairs), len(capacity.pairs) + 1
    found = linprog(
        -_one_at(pairs, width),
        A_ub=_placed(width, (0, capacity.by_unit())),
        b_ub=np.ones(len(capacity.units)),
        A_eq=_made(capacity, scale),
        b_eq=np.zeros(len(capacity.models)),
        method="highs",
    )
    if found.status != 0 or found.x is None:
        # Always feasible (nothing is done) and bounded (units and times are finite).
        raise InvariantError(f"the linear program was not solved: {found.message}")
    shares = np.clip(found.x[:pairs], 0.0, None)
    # HiGHS minimises -q: the marginal of a limit is -(throughput gained per capacity added).
    unit_prices = np.clip(-found.ineqlin.marginals, 0.0, None) / scale
    return _bound(capacity, shares, found.x[pairs] / scale, unit_prices, found.eqlin.marginals)


def _bound(
    capacity: Capacity,
    shares: _Vector,
    throughput_per_s: float,
    unit_prices: _Vector,
    model_prices: _Vector,
) -> Bound:
    rates = throughput_per_s * capacity.proportions
    prices = [float(sum(unit_prices[u] for u in units)) for units in capacity.occupies]
    return Bound(
        throughput_per_s=float(throughput_per_s),
        per_model_per_s=_named(capacity.models, rates),
        shares={
            name: {
                capacity.models[m]: float(share)
                for (m, processor), share in zip(capacity.pairs, shares, strict=True)
                if processor == k and share > _NO_SHARE
            }
            for k, name in enumerate(capacity.processors)
        },
        loads=_named(capacity.units, capacity.by_unit() @ shares),
        prices=dict(zip(capacity.processors, prices, strict=True)),
        unit_prices=_named(capacity.units, unit_prices),
        model_prices=_named(capacity.models, model_prices),
    )


def _named(names: Sequence[str], values: _Vector) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def _held(capacity: Capacity, limited: Sequence[int]) -> list[int]:
    """Choose the model of each processor that can hold one only; return the pairs that are left.

    The linear program with a variable 0 or 1 per limited pair.
    """
    pairs, choices = len(capacity.pairs), len(limited)
    width = pairs + 1 + choices
    found = milp(
        -_one_at(pairs, width),
        constraints=[
            LinearConstraint(_placed(width, (0, _made(capacity, _scale(capacity)))), 0.0, 0.0),
            _at_most(1.0, width, (0, capacity.by_unit())),
            *_choice_limits(capacity, limited, width, np.ones(choices)),
        ],
        bounds=Bounds(0.0, np.concatenate([np.full(pairs + 1, np.inf), np.ones(choices)])),
        integrality=np.concatenate([np.zeros(pairs + 1), np.ones(choices)]),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise InvariantError(f"the integer program was not solved: {found.message}")
    chosen = found.x[pairs + 1 :] > 0.5
    refused = {p for p, held in zip(limited, chosen, strict=True) if not held}
    kept = [p for p in range(pairs) if p not in refused]
    if {m for m, _ in capacity.pairs} != {capacity.pairs[p][0] for p in kept}:
        raise _too_few(capacity)
    return kept


def _too_few(capacity: Capacity) -> ConfigurationError:
    return ConfigurationError(
        f"the processors that hold one model only cannot hold all of {', '.join(capacity.models)}; "
        "ask for fewer models, or limit fewer processors to one model"
    )


def _counts(capacity: Capacity, numbers: npt.NDArray[np.intp]) -> dict[str, dict[str, int]]:
    return {
        name: {
            capacity.models[m]: int(number)
            for (m, processor), number in zip(capacity.pairs, numbers, strict=True)
            if processor == k and number > 0
        }
        for k, name in enumerate(capacity.processors)
    }
