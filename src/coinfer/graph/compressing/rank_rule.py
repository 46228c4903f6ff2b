"""Rank rule: the ranks of all layers, from their sizes and weights alone. Measures nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from coinfer.errors import ConfigurationError
from coinfer.graph.compressing.allocation import Option, chosen_after, steps
from coinfer.graph.compressing.layer import Layer, Ranks, clipped
from coinfer.graph.compressing.spectrum import Spectrum

__all__ = ["LATENCY", "RankRule", "candidates", "ratio_ranks"]

LATENCY: Final = "latency"
_WITH_NUMBER: Final = ("ratio", "energy", "macs")
_NAMES: Final = (LATENCY, "evbmf", *_WITH_NUMBER)


@dataclass(frozen=True, slots=True)
class RankRule:
    """How ranks are chosen.

    Attributes:
        name: `latency` (measured, not here), `ratio`, `energy`, `evbmf` or `macs`.
        amount: Of the channels (`ratio`), of the squared weights on each side (`energy`), or of
            the multiply-accumulate operations of the whole network (`macs`): the share that is
            kept, above 0, 1 at most.
    """

    name: str
    amount: float | None = None

    @classmethod
    def parse(cls, text: str) -> RankRule:
        """Read `latency`, `evbmf`, `ratio:R`, `energy:E` or `macs:F`.

        Raises:
            ConfigurationError: it is none of these.

        >>> RankRule.parse("ratio:0.5")
        RankRule(name='ratio', amount=0.5)
        """
        name, colon, number = text.partition(":")
        try:
            amount = float(number) if colon else None
        except ValueError:
            amount = None
        has_amount = name in _WITH_NUMBER
        if name not in _NAMES or has_amount != (amount is not None):
            raise ConfigurationError(
                f"ranks {text!r} is no rule; write latency, evbmf, ratio:R, energy:E or "
                "macs:FRACTION"
            )
        if amount is not None and not 0 < amount <= 1:
            raise ConfigurationError(
                f"ranks {text!r} is out of range: {name} is the share that is kept; give a "
                "number above 0, 1 at most"
            )
        return cls(name, amount)

    def __str__(self) -> str:
        """Write it as `parse` reads it."""
        return self.name if self.amount is None else f"{self.name}:{self.amount:g}"

    @property
    def is_measured(self) -> bool:
        """Whether times tell the ranks, and neither sizes nor weights alone."""
        return self.name == LATENCY

    @property
    def needs_weights(self) -> bool:
        """Whether sizes alone do not tell the ranks."""
        return self.name != "ratio"

    def ranks(
        self, layers: Iterable[Layer], spectra: Mapping[str, Spectrum], other_macs: int | None
    ) -> dict[str, Ranks]:
        """Choose the ranks of all layers.

        Args:
            layers: Those that may be decomposed.
            spectra: By key; not looked at by `ratio`.
            other_macs: Operations of all other layers; only `macs` looks at it.

        Returns:
            Ranks by key; layers that are left as they are are not in it.

        Raises:
            ConfigurationError: `macs` cannot reach its share, or does not know the operations.
        """
        layers = list(layers)
        amount = self.amount or 0.0
        match self.name:
            case "ratio":
                return {layer.key: ratio_ranks(layer, amount) for layer in layers}
            case "energy":
                found = {each.key: spectra[each.key].with_energy(amount) for each in layers}
            case "evbmf":
                found = {each.key: spectra[each.key].by_evbmf() for each in layers}
            case "macs":
                return _within(layers, spectra, other_macs, amount)
            case _:
                raise ConfigurationError(f"the rule {self} needs measurements")
        # What costs as much as before in its parts would only get slower and less exact.
        return {
            layer.key: ranks
            for layer in layers
            if layer.parameters(ranks := clipped(layer, found[layer.key])) < layer.parameters()
        }


def ratio_ranks(layer: Layer, ratio: float) -> Ranks:
    """Return the same share of the channels on both sides, as far as ranks have a range."""
    if layer.is_matrix:
        return clipped(layer, Ranks(round(ratio * min(layer.inputs, layer.outputs))))
    return clipped(layer, Ranks(round(ratio * layer.inputs), round(ratio * layer.outputs)))


def candidates(layer: Layer, spectrum: Spectrum, *, step: int = 1, most: int = 12) -> list[Ranks]:
    """Return ranks to choose from, in multiples of `step`, with fewer weights than the layer.

    Along both sides they keep about equal shares of the squared weight, so that no side loses what
    the other one paid for. One side alone is a candidate too: where a layer is wide on one side
    only, two parts are enough.

    Args:
        layer: The layer.
        spectrum: Of its weight, perhaps as its inputs see it.
        step: Channels that the processor computes together.
        most: About how many.
    """
    n_levels = max(1, most if layer.is_matrix else most // 2)
    found: dict[Ranks, None] = {}
    for level in range(1, n_levels + 1):
        share = level / (n_levels + 1)
        if layer.is_matrix:
            widest = layer.parameters() // (layer.groups * (layer.inputs + layer.outputs))
            found[Ranks(_multiple(share * widest, step, layer))] = None
            continue
        outputs = _multiple(share * layer.outputs, step, layer)
        kept = 1 - float(spectrum.outputs[outputs:].sum() / (spectrum.outputs.sum() or 1.0))
        inputs = _multiple(spectrum.with_energy(kept).inputs or 1, step, layer)
        found[Ranks(inputs, outputs)] = None
        found[Ranks(None, outputs)] = None
        found[Ranks(inputs, None)] = None
    within = dict.fromkeys(clipped(layer, ranks) for ranks in found)
    return [ranks for ranks in within if _is_smaller(layer, ranks)]


def _multiple(rank: float, step: int, layer: Layer) -> int:
    """Round up to a multiple of what all groups of channels together come in."""
    each = max(1, step // layer.groups)
    return max(each, -(-round(rank) // each) * each)


def _is_smaller(layer: Layer, ranks: Ranks) -> bool:
    limits = ((ranks.inputs, layer.inputs), (ranks.outputs, layer.outputs))
    within = all(rank is None or rank < channels for rank, channels in limits)
    return within and layer.parameters(ranks) < layer.parameters()


def _within(
    layers: Sequence[Layer],
    spectra: Mapping[str, Spectrum],
    other_macs: int | None,
    share: float,
) -> dict[str, Ranks]:
    """Spend what weight error it takes to keep a share of all operations, where it saves most."""
    before = {layer.key: layer.macs() for layer in layers}
    if other_macs is None or None in before.values():
        raise ConfigurationError(
            "macs: the operations of this model are not known, because shapes are open; give "
            "sizes like --dim NAME=SIZE, or another rule"
        )
    total = other_macs + sum(macs or 0 for macs in before.values())
    options = {
        layer.key: [
            Option(ranks, float((before[layer.key] or 0) - (layer.macs(ranks) or 0)), lost)
            for ranks in candidates(layer, spectra[layer.key], most=64)
            for lost in [spectra[layer.key].lost(ranks)]
        ]
        for layer in layers
    }
    left, taken = float(total), []
    for step in steps(options):
        if left <= share * total:
            break
        taken.append(step)
        left -= step.saved
    if left > share * total:
        raise ConfigurationError(
            f"macs:{share:g} cannot be reached: at the smallest ranks {left / total:.3f} of all "
            "operations are left; give a larger share, or decompose 1x1 convolutions and dense "
            "layers too (--svd)"
        )
    return chosen_after(taken)
