"""Costs: what operators cost in each layout, and changes between layouts. Modelled, or measured."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Protocol

from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.site import Site

__all__ = ["Costs", "ModelledCosts"]


class Costs(Protocol):
    """What `choose` weighs."""

    def run_s(self, site: Site, layout: Layout) -> float:
        """Return the seconds of an operator of all models in a layout."""
        ...

    def change_s(self, bundle: Bundle, source: Layout, target: Layout) -> float:
        """Return the seconds that it takes to bring a value into another layout."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelledCosts:
    """Costs from shapes alone, as on one core with onnxruntime.

    An operator takes `launch_s` however small it is. What a layout costs beyond that is what it
    makes a library do anew: a batched product packs its weights in each run, which a convolution or
    the product of a separate model does once.

    Attributes:
        launch_s: Seconds that starting one operator takes.
        copy_bytes_s: Bytes that are copied per second.
        pack_bytes_s: Bytes of weights that are packed per second.
        block: Channels that a library computes at once.
        loss_macs_s: Multiplications per second by which convolutions without blocks fall behind.
        batch: Samples, where the models leave their number open.
    """

    launch_s: float = 2e-6
    copy_bytes_s: float = 8e9
    pack_bytes_s: float = 4e9
    block: int = 16
    loss_macs_s: float = 1e11
    batch: int = 1

    def run_s(self, site: Site, layout: Layout) -> float:
        """Return what the operator costs beyond arithmetic, which is the same in all layouts."""
        if layout is Layout.BRANCHES:
            return self.launch_s * site.models
        cost = self.launch_s
        if site.op_type in ("MatMul", "Gemm"):
            weight = site.given(1)
            if layout is Layout.PACKED:
                return 2 * cost  # with a view before it and one behind
            if weight.is_stored and not weight.is_shared:
                cost += self._bytes(weight) * site.models / self.pack_bytes_s
        if layout is Layout.PACKED:
            cost += self._unblocked_s(site)
        if layout is Layout.PACKED and all(b is None or b.is_shared for b in site.inputs[1:]):
            stored = [b for b in site.inputs[1:] if b is not None and b.is_stored]
            # The weights of a frozen layer would be there M times.
            cost += sum(map(self._bytes, stored)) * site.models / self.copy_bytes_s
        return cost

    def _unblocked_s(self, site: Site) -> float:
        """Return what is lost where a library cannot keep channels in blocks.

        Groups whose channels do not fill blocks are convolved in a slower way, and to join or cut
        channels within each model, blocks are dissolved and made again. Depthwise ones fill them.
        """
        if site.op_type == "Conv" and site.given(1).dims is not None:
            weight = [size for size in site.given(1).dims or () if isinstance(size, int)]
            groups = site.number("group", 1)
            if len(weight) != site.given(1).rank or len(weight) < 2 or weight[1] == 1 or groups < 1:
                return 0.0  # or nothing that runs, of which a file may say anything
            if weight[0] // groups % self.block or weight[1] % self.block:
                return self._elements(site.out) * prod(weight[1:]) * site.models / self.loss_macs_s
        if site.op_type in ("Concat", "Split"):
            made = [bundle for bundle in site.outputs if bundle is not None]
            return 2 * site.models * sum(map(self._bytes, made)) / self.copy_bytes_s
        return 0.0

    def change_s(self, bundle: Bundle, source: Layout, target: Layout) -> float:
        """Return the time of a copy; none where it is a view."""
        if source is target:
            return 0.0
        one_sample = bundle.dims is not None and bundle.dims[:1] == (1,)
        if Layout.BRANCHES not in (source, target) and one_sample:
            return self.launch_s / 2
        return self.launch_s + len(bundle.values) * self._bytes(bundle) / self.copy_bytes_s

    def _bytes(self, bundle: Bundle) -> float:
        """Bytes of one model's value; open sizes count as one sample each."""
        dtype = bundle.values[0].dtype
        width = 4 if dtype is None else dtype.bitwidth / 8
        return width * self._elements(bundle)

    def _elements(self, bundle: Bundle) -> int:
        return prod(size if isinstance(size, int) else self.batch for size in bundle.dims or ())
