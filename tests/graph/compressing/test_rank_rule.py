"""The ranks that rules choose, from numbers that can be checked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.allocation import Option, chosen_after, steps
from coinfer.graph.compressing.evbmf import evbmf_rank
from coinfer.graph.compressing.layer import Kind, Layer, Ranks
from coinfer.graph.compressing.rank_rule import RankRule, candidates
from coinfer.graph.compressing.spectrum import Spectrum


def conv(key: str = "y", **sizes: object) -> Layer:
    known = {"inputs": 64, "outputs": 64, "kernel": (3, 3), "groups": 1, "in_places": 100}
    known |= {"out_places": 100, "kind": Kind.CONVOLUTION}
    return Layer(key=key, name=key, **{**known, **sizes})  # type: ignore[arg-type]


def low_rank(rank: int, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    core = rng.normal(size=(rank, rank, 3, 3))
    left, right = (rng.normal(size=(64, rank)) for _ in range(2))
    found = np.einsum("or,rskl,is->oikl", left, core, right)[np.newaxis]
    return np.asarray(found + noise * found.std() * rng.normal(size=found.shape))


@pytest.mark.parametrize("text", ["", "ratio", "ratio:x", "latency:1", "best", "evbmf:2"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^ranks .* is no rule"):
        RankRule.parse(text)


@pytest.mark.parametrize("text", ["ratio:0", "ratio:1.5", "energy:nan", "macs:inf"])
def test_a_share_out_of_range_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^ranks .* out of range"):
        RankRule.parse(text)


def test_energy_keeps_what_is_there_and_no_more() -> None:
    spectrum = Spectrum.of(low_rank(5))
    assert RankRule.parse("energy:1").ranks([conv()], {"y": spectrum}, 0) == {"y": Ranks(5, 5)}


def test_evbmf_finds_the_rank_below_the_noise() -> None:
    spectrum = Spectrum.of(low_rank(6, noise=0.1))
    assert RankRule("evbmf").ranks([conv()], {"y": spectrum}, 0) == {"y": Ranks(6, 6)}


def test_evbmf_of_noise_is_one() -> None:
    noise = np.random.default_rng(1).normal(size=(50, 200))
    assert evbmf_rank(np.linalg.svd(noise, compute_uv=False), 50, 200) == 1


def test_macs_are_within_the_share_and_taken_where_least_is_lost() -> None:
    layers = [conv("rich"), conv("poor")]
    spectra = {"rich": Spectrum.of(low_rank(60)), "poor": Spectrum.of(low_rank(4))}
    found = RankRule.parse("macs:0.6").ranks(layers, spectra, 0)
    left = sum(each.macs(found.get(each.key, Ranks())) or 0 for each in layers)
    assert left <= 0.6 * sum(each.macs() or 0 for each in layers)
    assert "poor" in found
    assert "rich" not in found


def test_macs_that_cannot_be_reached_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="cannot be reached"):
        RankRule.parse("macs:0.5").ranks([conv()], {"y": Spectrum.of(low_rank(4))}, 10**9)


def test_candidates_are_multiples_and_smaller_than_the_layer() -> None:
    found = candidates(conv(), Spectrum.of(low_rank(64)), step=16)
    assert found
    assert all(rank is None or rank % 16 == 0 for each in found for rank in each)
    assert all(conv().parameters(each) < conv().parameters() for each in found)


def test_nothing_is_lost_at_full_rank_and_all_that_is_cut_is_counted() -> None:
    weight = low_rank(64)
    spectrum = Spectrum.of(weight)
    assert spectrum.lost(Ranks(64, 64)) == pytest.approx(0)
    assert spectrum.lost(Ranks(None, 32)) == pytest.approx(
        1 - spectrum.outputs[:32].sum() / (weight**2).sum()
    )


def test_what_lies_above_the_hull_is_never_chosen() -> None:
    options = {"a": [Option("bad", 1.0, 5.0), Option("good", 2.0, 2.0), Option("slow", -1.0, 0.0)]}
    assert [step.option.what for step in steps(options)] == ["good"]


def test_steps_of_a_layer_come_in_their_order() -> None:
    rng = np.random.default_rng(3)
    options = {
        key: [Option((key, at), float(s), float(e)) for at, (s, e) in enumerate(rng.random((9, 2)))]
        for key in range(5)
    }
    taken = steps(options)
    slopes = [step.error / step.saved for step in taken]
    assert slopes == sorted(slopes)
    for key in options:
        saved = [step.option.saved for step in taken if step.key == key]
        assert saved == sorted(saved)
    assert chosen_after(taken).keys() == options.keys()
