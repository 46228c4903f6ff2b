"""The bound for requests of several classes of sizes."""

from __future__ import annotations

import pytest

from coinfer.bound import sustainable_factor, throughput_bound
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span

P, Q = (Processor(name=n, backend="null", units=frozenset({n})) for n in ("p", "q"))


def profile(**seconds: tuple[float, float]) -> Profile:
    """Seconds of class 0 and of class 5, by processor."""
    return Profile(
        {
            ProfileKey("m", name, 1, Span(), shape): Measurement(seconds=(each,))
            for name, both in seconds.items()
            for shape, each in zip((0, 5), both, strict=True)
        }
    )


def test_one_processor_serves_the_mean_of_the_classes() -> None:
    bound = throughput_bound(profile(p=(0.1, 0.3)), [P], {"m": 1}, shapes={"m": {0: 1, 5: 1}})
    assert bound.throughput_per_s == pytest.approx(5.0)
    assert bound.per_model_per_s == {"m": pytest.approx(5.0)}
    assert bound.shares == {"p": {"m": pytest.approx(1.0)}}
    assert bound.model_prices == {"m": pytest.approx(1.0)}


def test_each_class_goes_where_it_is_quick() -> None:
    # Apart: narrow ones on p, wide ones on q. By mean times alone it would be 2 / 0.55.
    times = profile(p=(0.1, 1.0), q=(1.0, 0.1))
    bound = throughput_bound(times, [P, Q], {"m": 1}, shapes={"m": {0: 1, 5: 1}})
    assert bound.throughput_per_s == pytest.approx(20.0)


def test_rare_wide_requests_weigh_little() -> None:
    factor = sustainable_factor(profile(p=(0.1, 1.0)), [P], {"m": 1.0}, shapes={"m": {0: 9, 5: 1}})
    assert factor == pytest.approx(1 / 0.19)


def test_a_processor_of_one_model_serves_all_its_classes() -> None:
    other = Profile({ProfileKey("n", "p"): Measurement(seconds=(0.1,))})
    times = profile(p=(0.1, 0.3), q=(0.1, 0.3)).merged(other)
    bound = throughput_bound(
        times, [P, Q], {"m": 1, "n": 1}, shapes={"m": {0: 1, 5: 1}}, one_model={"p", "q"}
    )
    assert bound.shares["q"].keys() == {"m"}
    assert bound.throughput_per_s == pytest.approx(10.0)
