"""Bound: the best that any schedule could reach, from times alone, by linear programming (HiGHS).

It asks only how the work can be spread so that no compute unit is busy for more than all of the
time. Knows neither policies nor arrivals.

The model: `m` takes `T[m, k]` seconds on processor `k`; `s[m, k]` is the share of its time that
`k` spends on `m`, so it completes `s / T` of them per second. With the weights `w` of the mix,

    maximise q where  sum over k of s[m, k] / T[m, k]  =  q w[m]              for every model m
                      sum over m, and over the k that occupy u, of s[m, k]  <=  1  for every unit u.

A model of several units flows through its boundaries: there is a share for every span that a
processor may run, what leaves the first boundary is `q w[m]`, and what arrives at another one
leaves it. With one span per model, from its start to its end, that is the program above.

Where processors share units this is a relaxation: that each unit has time enough does not mean
that the units of a processor are free at the same moment. The optimum can only be larger than what
a schedule reaches, so it stays an upper bound. It bounds executions of one request each on these
times and spans: batching, fusing or cutting elsewhere changes the times and so the bound. Variants
of a model are further ways from its start to its end, and a request keeps to the boundaries of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from coinfer.bound.capacity import (
    NO_BATCHES,
    NO_FUSED,
    NO_SHAPES,
    NO_VARIANTS,
    Capacity,
    FusedModels,
    Matrix,
    Seconds,
    Shapes,
    Variants,
)
from coinfer.errors import ConfigurationError, InvariantError, UnknownNameError
from coinfer.machine.processor import Processor

if TYPE_CHECKING:
    from scipy.optimize import LinearConstraint, OptimizeResult

__all__ = ["Bound", "Makespan", "makespan", "sustainable_factor", "throughput_bound"]

_Vector: TypeAlias = npt.NDArray[np.float64]

_Number = TypeVar("_Number", int, float)

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
            of it is worth. Used pairs have `T * price == model price`, all others `>=`; of a model
            that is cut, the sum of `T * price` over the spans from its start to its end.
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
        counts: `{processor: {model: executions}}`, of spans of it where it is cut; zeros left out.
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
    batches: Mapping[str, int] = NO_BATCHES,
    shapes: Shapes = NO_SHAPES,
    together: Mapping[str, int] = NO_BATCHES,
    variants: Variants = NO_VARIANTS,
    fused: FusedModels = NO_FUSED,
    one_model: Set[str] = frozenset(),
) -> Bound:
    """Find the largest throughput of a mix; the module's docstring states the program.

    Args:
        seconds: Mean seconds of a request, `{model: {processor: seconds}}`, or a profile with all
            spans of the models.
        processors: Those that may be used.
        mix: By model, its weight; only the proportions count.
        batches: By model, the samples of a request where they are not one; for profiles only.
        shapes: By model, how often requests are of which class of sizes; for profiles only.
        together: By model, the samples that one execution may serve for several requests; for
            profiles only.
        variants: By model, the names of others that may answer its requests: further columns of the
            program.
        fused: By fused variant, the models of which one run serves a request each; for profiles
            only.
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
    capacity = Capacity.of(seconds, processors, mix, batches, shapes, together, variants, fused)
    limited = _limited(capacity, one_model)
    if limited:
        capacity = capacity.limited_to(_held(capacity, limited))
    return _solved(capacity)


def sustainable_factor(
    seconds: Seconds,
    processors: Sequence[Processor],
    rates: Mapping[str, float],
    *,
    batches: Mapping[str, int] = NO_BATCHES,
    shapes: Shapes = NO_SHAPES,
    together: Mapping[str, int] = NO_BATCHES,
    variants: Variants = NO_VARIANTS,
    fused: FusedModels = NO_FUSED,
    one_model: Set[str] = frozenset(),
) -> float:
    """Find the largest `f` such that `f` times these rates (requests/s by model) can be served.

    Below 1 the rates exceed what any schedule can do. Arguments and errors are those of
    `throughput_bound`.
    """
    bound = throughput_bound(
        seconds,
        processors,
        rates,
        batches=batches,
        shapes=shapes,
        together=together,
        variants=variants,
        fused=fused,
        one_model=one_model,
    )
    return bound.throughput_per_s / sum(rates.values())


def makespan(
    seconds: Seconds,
    processors: Sequence[Processor],
    counts: Mapping[str, int],
    *,
    batches: Mapping[str, int] = NO_BATCHES,
    variants: Variants = NO_VARIANTS,
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
        batches: As in `throughput_bound`.
        variants: As in `throughput_bound`.
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
    capacity = Capacity.of(seconds, processors, counts, batches, variants=variants)
    found, scale = _soonest(capacity, _limited(capacity, one_model), time_limit_s)
    if found.status == _INFEASIBLE:
        raise _too_few(capacity)
    if found.x is None:
        raise ConfigurationError(
            f"no way to do {dict(counts)} was found in {time_limit_s} s; "
            "ask for fewer or allow more time"
        )
    numbers = np.round(found.x[: len(capacity.edges)]).astype(np.intp)
    return Makespan(
        seconds=float((capacity.by_unit() @ (capacity.seconds * numbers)).max()),
        counts=_by_pair(capacity, numbers.tolist(), above=0),
        lower_bound_s=float(found.mip_dual_bound) * scale,
        proven=found.status == 0,
    )


def _soonest(
    capacity: Capacity, limited: Sequence[int], time_limit_s: float
) -> tuple[OptimizeResult, float]:
    """Solve the integer program of `makespan`; return also the seconds of its unit of time."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import

    # The solver gets times as multiples of the shortest, so that its tolerances fit.
    scale = float(capacity.seconds.min())
    edges, choices = len(capacity.edges), len(_choices(capacity, limited))
    # The variables: executions per edge, the makespan, 0 or 1 per choice.
    width = edges + 1 + choices
    most = np.array([capacity.amounts[edge.model] for edge in capacity.edges])
    wanted = capacity.asked(capacity.amounts)
    loads = capacity.by_unit() * (capacity.seconds / scale)
    found = milp(
        _one_at(edges, width),
        constraints=[
            LinearConstraint(_placed(width, (0, capacity.flow())), wanted, wanted),
            _at_most(0.0, width, (0, loads), (edges, -np.ones((len(loads), 1)))),
            *_choice_limits(capacity, limited, width, most[limited]),
        ],
        bounds=Bounds(np.zeros(width), np.concatenate([most, [np.inf], np.ones(choices)])),
        integrality=np.concatenate([np.ones(edges), [0.0], np.ones(choices)]),
        options={"mip_rel_gap": 0.0, "time_limit": time_limit_s},
    )
    return found, scale


def _limited(capacity: Capacity, one_model: Set[str]) -> list[int]:
    """Positions of the edges whose processor has to choose one of several models."""
    for name in sorted(one_model):
        if name not in capacity.processors:
            raise UnknownNameError.of("processor", name, capacity.processors)
    choosing = {
        k
        for k, name in enumerate(capacity.processors)
        if name in one_model
        and len({capacity.models[m] for m, on, _ in capacity.edges if on == k}) > 1
    }
    return [e for e, (_, k, _) in enumerate(capacity.edges) if k in choosing]


def _pair(capacity: Capacity, edge: int) -> tuple[str, int]:
    model, processor, _ = capacity.edges[edge]
    return capacity.models[model], processor


def _choices(capacity: Capacity, limited: Sequence[int]) -> dict[tuple[str, int], int]:
    """Number the pairs of a model and a processor that has to choose, in order of appearance."""
    pairs = dict.fromkeys(_pair(capacity, e) for e in limited)
    return {pair: at for at, pair in enumerate(pairs)}


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
    from scipy.optimize import LinearConstraint

    return LinearConstraint(_placed(width, *blocks), -np.inf, high)


def _choice_limits(
    capacity: Capacity, limited: Sequence[int], width: int, most: _Vector
) -> list[LinearConstraint]:
    """Nothing of an edge (at most `most` of it) without its choice; one choice per processor."""
    if not limited:
        return []
    choices = _choices(capacity, limited)
    first = width - len(choices)
    selected = np.eye(len(capacity.edges))[limited]
    allows = np.zeros((len(limited), len(choices)))
    for row, e in enumerate(limited):
        allows[row, choices[_pair(capacity, e)]] = most[row]
    by_processor = np.zeros((len(capacity.processors), len(choices)))
    for (_, k), at in choices.items():
        by_processor[k, at] = 1.0
    return [
        _at_most(0.0, width, (0, selected), (first, -allows)),
        _at_most(1.0, width, (first, by_processor)),
    ]


def _scale(capacity: Capacity) -> float:
    """Seconds of an average inference at its fastest: makes the coefficients about one.

    So the solver's tolerances mean the same for microseconds and for minutes.
    """
    return float(capacity.proportions @ capacity.fastest_s)


def _made(capacity: Capacity, scale: float) -> Matrix:
    """Boundaries x (edges, throughput): what goes on from each, less what comes; to be 0.

    What comes to the start of a model is what the mix asks for.
    """
    made = capacity.flow() * (scale / capacity.seconds)
    return np.hstack([made, -capacity.asked(capacity.proportions)[:, None]])


def _solved(capacity: Capacity) -> Bound:
    from scipy.optimize import linprog

    scale = _scale(capacity)
    edges, width = len(capacity.edges), len(capacity.edges) + 1
    made = _made(capacity, scale)
    found = linprog(
        -_one_at(edges, width),
        A_ub=_placed(width, (0, capacity.by_unit())),
        b_ub=np.ones(len(capacity.units)),
        A_eq=made,
        b_eq=np.zeros(len(made)),
        method="highs",
    )
    if found.status != 0 or found.x is None:
        # Cannot happen: doing nothing is feasible, and finite units and times bound the rest.
        raise InvariantError(f"the linear program was not solved: {found.message}")
    shares = np.clip(found.x[:edges], 0.0, None)
    # HiGHS minimises -q: the marginal of a limit is -(throughput gained per capacity added).
    unit_prices = np.clip(-found.ineqlin.marginals, 0.0, None) / scale
    model_prices = found.eqlin.marginals[capacity.starts]
    return _bound(capacity, shares, found.x[edges] / scale, unit_prices, model_prices)


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
        per_model_per_s=_summed(capacity.models, rates),
        shares=_by_pair(capacity, shares.tolist(), above=_NO_SHARE),
        loads=_named(capacity.units, capacity.by_unit() @ shares),
        prices=dict(zip(capacity.processors, prices, strict=True)),
        unit_prices=_named(capacity.units, unit_prices),
        model_prices=_mean_prices(capacity, model_prices),
    )


def _summed(names: Sequence[str], values: _Vector) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in zip(names, map(float, values), strict=True):
        found[name] = found.get(name, 0.0) + value
    return found


def _mean_prices(capacity: Capacity, prices: _Vector) -> dict[str, float]:
    """Return what an average inference of each model costs, over its classes of sizes."""
    amounts = _summed(capacity.models, capacity.amounts)
    costs = _summed(capacity.models, capacity.amounts * prices)
    return {name: cost / amounts[name] for name, cost in costs.items()}


def _named(names: Sequence[str], values: _Vector) -> dict[str, float]:
    return dict(zip(names, map(float, values), strict=True))


def _held(capacity: Capacity, limited: Sequence[int]) -> list[int]:
    """Choose the model of each processor that can hold one only; return the edges that are left.

    The linear program with a variable 0 or 1 per model of a limited processor.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    chosen = _choices(capacity, limited)
    edges, choices = len(capacity.edges), len(chosen)
    width = edges + 1 + choices
    found = milp(
        -_one_at(edges, width),
        constraints=[
            LinearConstraint(_placed(width, (0, _made(capacity, _scale(capacity)))), 0.0, 0.0),
            _at_most(1.0, width, (0, capacity.by_unit())),
            *_choice_limits(capacity, limited, width, np.ones(len(limited))),
        ],
        bounds=Bounds(0.0, np.concatenate([np.full(edges + 1, np.inf), np.ones(choices)])),
        integrality=np.concatenate([np.zeros(edges + 1), np.ones(choices)]),
        options={"mip_rel_gap": 0.0},
    )
    if found.x is None:
        raise InvariantError(f"the integer program was not solved: {found.message}")
    held = found.x[edges + 1 :] > 0.5
    refused = {e for e in limited if not held[chosen[_pair(capacity, e)]]}
    kept = [e for e in range(edges) if e not in refused]
    if not np.isfinite(capacity.limited_to(kept).fastest_s).all():
        raise _too_few(capacity)
    return kept


def _too_few(capacity: Capacity) -> ConfigurationError:
    return ConfigurationError(
        f"the processors that hold one model only cannot hold all of {', '.join(capacity.models)}; "
        "ask for fewer models, or limit fewer processors to one model"
    )


def _by_pair(
    capacity: Capacity, values: Sequence[_Number], *, above: float
) -> dict[str, dict[str, _Number]]:
    """Add up the values of the edges by processor and model; leave out sums that are not above."""
    found: dict[str, dict[str, _Number]] = {name: {} for name in capacity.processors}
    for (m, k, _), value in zip(capacity.edges, values, strict=True):
        row, model = found[capacity.processors[k]], capacity.models[m]
        row[model] = row[model] + value if model in row else value
    return {
        name: {model: value for model, value in row.items() if value > above}
        for name, row in found.items()
    }
