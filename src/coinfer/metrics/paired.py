"""Paired ratio: whether one of two contestants is better, from rounds in which both took turns.

The one comparison of two measured ways: what chooses among measured alternatives uses it, and so
does every benchmark that claims a ratio. Knows nothing of what is compared, and reads no clock.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from coinfer.errors import ConfigurationError

__all__ = ["LEAST_ROUNDS", "NOT_WORSE", "PairedRatio", "in_turn", "paired_ratio", "wins"]

LEAST_ROUNDS = 9
"""Fewer rounds do not allow a claim: with nine, one disturbed round decides nothing."""

NOT_WORSE = 0.95
"""What the lower bound must reach for "not worse"."""

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRatio:
    """How many times as good ours is as theirs; above 1, ours is better.

    Attributes:
        median: Median over the rounds of the ratio within a round.
        lower: Lower end of the 95 % interval of that median.
        upper: Its upper end.
        rounds: In how many rounds both were measured.
    """

    median: float
    lower: float
    upper: float
    rounds: int

    @property
    def is_better(self) -> bool:
        """Whether ours is better: the whole interval is above 1."""
        return self.lower > 1.0

    @property
    def is_not_worse(self) -> bool:
        """Whether ours is at most 5 % worse, if at all."""
        return self.lower >= NOT_WORSE

    @property
    def inverse(self) -> PairedRatio:
        """The same comparison as the other side sees it."""
        return PairedRatio(
            median=1 / self.median, lower=1 / self.upper, upper=1 / self.lower, rounds=self.rounds
        )

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.lower:.2f} to {self.upper:.2f})"


def paired_ratio(
    ours: Sequence[float], theirs: Sequence[float], *, larger_is_better: bool
) -> PairedRatio:
    """Compare the figures of two contestants that were measured in the same rounds.

    The bounds are ratios of single rounds, the k-th smallest and the k-th largest one: k is the
    largest number for which they enclose the true median in 95 % of all cases (the sign test turned
    round; Conover, Practical Nonparametric Statistics, 1999, section 3.2). Of nine rounds they are
    the second smallest and the second largest, so ours is better if it loses one round at most.

    This supposes that rounds do not depend on one another, and nothing about how ratios spread. An
    interval from the mean and the standard deviation of their logarithms (Student's t) is a fifth
    shorter if they are normal. But one round in which another program took the machine makes it as
    long as that round is bad, and such rounds happen. A bootstrap of nine ratios is too short.

    Args:
        ours: A figure per round, all above 0: a rate, or seconds.
        theirs: The figures of the other one in the same rounds.
        larger_is_better: True for rates, False for times.

    Raises:
        ConfigurationError: fewer than nine rounds, not equally many, or a figure that is no
            positive number.

    Example:
        >>> ours = [4.0, 4.1, 4.0, 4.2, 3.9, 4.0, 9.0, 4.1, 4.0]  # milliseconds
        >>> theirs = [5.0, 5.0, 5.1, 5.2, 4.9, 5.0, 5.1, 5.0, 4.9]
        >>> found = paired_ratio(ours, theirs, larger_is_better=False)
        >>> print(found, found.is_better)
        1.24x (1.22 to 1.26) True
    """
    _check(ours, theirs)
    pairs = zip(ours, theirs, strict=True) if larger_is_better else zip(theirs, ours, strict=True)
    ratios = sorted(over / under for over, under in pairs)
    k = _rank(len(ratios))
    return PairedRatio(
        # The geometric mean of the middle two, so that the other side gets the inverse.
        median=math.sqrt(statistics.median_low(ratios) * statistics.median_high(ratios)),
        lower=ratios[k - 1],
        upper=ratios[-k],
        rounds=len(ratios),
    )


def in_turn(names: Iterable[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Yield (round, name): everybody once in a round, in reverse order in every second one.

    So drift of the machine hits all alike.

    Example:
        >>> list(in_turn(["a", "b"], 2))
        [(0, 'a'), (0, 'b'), (1, 'b'), (1, 'a')]
    """
    order = list(names)
    for number in range(rounds):
        for name in order if number % 2 == 0 else reversed(order):
            yield number, name


def wins(
    ours: Callable[[], float],
    theirs: Callable[[], float],
    *,
    larger_is_better: bool,
    rounds: int = LEAST_ROUNDS,
) -> PairedRatio:
    """Measure both in turn; `is_better` and `is_not_worse` of the result say who wins.

    Args:
        ours: Measures ours once and returns the figure. What must be warmed up is warmed up before.
        theirs: Does the same for theirs.
        larger_is_better: True for rates, False for times.
        rounds: How often each is measured.

    Raises:
        ConfigurationError: fewer than nine rounds (before anything is measured), or a figure that
            is no positive number.

    Example:
        >>> wins(lambda: 1.0, lambda: 2.0, larger_is_better=False).is_better
        True
    """
    _check_rounds(rounds)
    measure = {"ours": ours, "theirs": theirs}
    figures: dict[str, list[float]] = {name: [] for name in measure}
    for _, name in in_turn(measure, rounds):
        figures[name].append(measure[name]())
    return paired_ratio(figures["ours"], figures["theirs"], larger_is_better=larger_is_better)


def _check(ours: Sequence[float], theirs: Sequence[float]) -> None:
    if len(ours) != len(theirs):
        raise ConfigurationError(
            f"{len(ours)} rounds of ours and {len(theirs)} of theirs; a comparison needs both in "
            "each round"
        )
    _check_rounds(len(ours))
    for figure in (*ours, *theirs):
        if not (math.isfinite(figure) and figure > 0):
            raise ConfigurationError(
                f"{figure} cannot be compared; each must be above 0 and finite"
            )


def _check_rounds(rounds: int) -> None:
    if rounds < LEAST_ROUNDS:
        raise ConfigurationError(
            f"{rounds} rounds are too few to say who is better; measure at least {LEAST_ROUNDS}"
        )


def _rank(rounds: int) -> int:
    """Return the largest k for which fewer than k rounds on one side are rare enough.

    Each round is above the true median or below it, like the toss of a coin.
    """
    most = (1 - _CONFIDENCE) / 2 * 2.0**rounds
    k, fewer = 0, 0
    while fewer + math.comb(rounds, k) <= most:
        fewer += math.comb(rounds, k)
        k += 1
    return k
