"""An engine at twice its capacity keeps its memory, threads, files and latency."""

from __future__ import annotations

import sys

import pytest

from fuzz.soak import ENGINES, Sample, Soak, faults, soak, table

SECONDS = 15.0


def steady(**grown: float) -> Soak:
    """Samples that stay flat, but for what doubles half-way."""
    values = {"rss_bytes": 300 * 2**20, "threads": 9, "files": 20, "latency_s": 0.03}
    later = {what: value * grown.get(what, 1) for what, value in values.items()}
    samples = [Sample(**values) for _ in range(20)] + [Sample(**later) for _ in range(20)]
    return Soak(name="x", samples=samples)


def test_what_stays_flat_is_no_fault() -> None:
    assert faults(steady()) == []


@pytest.mark.parametrize("what", ["rss_bytes", "threads", "files", "latency_s"])
def test_what_grows_is_a_fault(what: str) -> None:
    [fault] = faults(steady(**{what: 2}))
    assert fault.startswith(what)


@pytest.mark.alone
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pins to cores as Linux does")
@pytest.mark.parametrize("name", list(ENGINES))
def test_an_overloaded_engine_stays_as_it_is(name: str) -> None:
    if name != "null":
        pytest.importorskip("openvino")
    done = soak(name, SECONDS)
    assert faults(done) == [], table([done])
    assert done.outcomes["served"] > 100
    assert done.outcomes["dropped"] + done.outcomes["rejected"] > 100
    assert done.outcomes["cancelled"] > 10
