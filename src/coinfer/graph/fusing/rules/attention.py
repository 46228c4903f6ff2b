"""Attention as one operator, and products by equation: M becomes part of the batch."""

from __future__ import annotations

from string import ascii_letters

from coinfer.graph.fusing.builder import Builder, View
from coinfer.graph.fusing.bundle import Bundle
from coinfer.graph.fusing.layout import Layout
from coinfer.graph.fusing.rule import Rule, need, possible, stacked
from coinfer.graph.fusing.site import Site

__all__ = ["RULES"]

_MASK = 3


def _attention_layouts(site: Site) -> frozenset[Layout]:
    given = [index for index, each in enumerate(site.inputs) if each is not None]
    need(all(site.given(index).is_tensor for index in given), "a rank is not known")
    mask = site.input(_MASK)
    if mask is not None and not mask.is_shared:
        need(_is_of_samples(mask, site.given(0)), "its mask is not one per sample")
    elif mask is not None:
        need(mask.rank < 4 or mask.size(0) == 1, "its mask has an axis of samples")
    need(all(site.given(index).is_tensor for index in given), "a rank is not known")
    return possible(site, stacked, inputs=[index for index in given if index != _MASK])


def _is_of_samples(mask: Bundle, query: Bundle) -> bool:
    assert mask.dims is not None
    assert query.dims is not None
    return mask.rank == 4 and mask.dims[0] == query.dims[0] and mask.dims[0] is not None


def _merge_attention(site: Site, layout: Layout, out: Builder) -> None:
    operands = [
        None
        if each is None
        else out.shared(each)
        if index == _MASK and each.is_shared
        else out.merged(each, layout)
        for index, each in enumerate(site.inputs)
    ]
    out.give_all(site, out.copy(site, operands), View(layout, True))


def _rotary_layouts(site: Site) -> frozenset[Layout]:
    caches = [site.given(index) for index in (1, 2)]
    position = site.input(3)
    need(site.given(0).is_tensor, "the rank of its input is not known")
    if position is None:
        return possible(site, stacked, inputs=(0, 1, 2))
    need(all(each.is_shared for each in caches), "its tables differ")
    return possible(site, stacked, inputs=(0, 3))


def _merge_rotary(site: Site, layout: Layout, out: Builder) -> None:
    """Tables are read by position, and then the same for all, or there is one per sample."""
    by_position = site.input(3) is not None
    operands = [
        None
        if each is None
        else out.shared(each)
        if by_position and index in (1, 2)
        else out.merged(each, layout)
        for index, each in enumerate(site.inputs)
    ]
    out.give_all(site, out.copy(site, operands), View(layout, True))


def _equation(site: Site) -> tuple[list[str], str]:
    text = site.node.attributes.get_string("equation", "").replace(" ", "")
    need("->" in text, "its equation does not say what comes out")
    terms, _, result = text.partition("->")
    return terms.split(","), result


def _einsum_layouts(site: Site) -> frozenset[Layout]:
    terms, result = _equation(site)
    need(all(each is not None and each.is_tensor for each in site.inputs), "a rank is not known")
    need(set(ascii_letters) - set("".join(terms) + result), "its equation has all letters")
    return possible(site, stacked, inputs=())


def _merge_einsum(site: Site, layout: Layout, out: Builder) -> None:
    terms, result = _equation(site)
    letter = next(each for each in ascii_letters if each not in "".join(terms) + result)
    operands, marked = [], []
    for term, bundle in zip(terms, site.inputs, strict=True):
        assert bundle is not None
        operands.append(out.shared(bundle) if bundle.is_shared else out.explicit(bundle, layout))
        marked.append(term if bundle.is_shared else letter + term)
    equation = f"{','.join(marked)}->{letter}{result}"
    out.give_all(site, out.copy(site, operands, equation=equation), View(layout, False))


RULES = {
    "Attention": Rule(_attention_layouts, _merge_attention, "unchanged, on more samples"),
    "Einsum": Rule(_einsum_layouts, _merge_einsum, "M gets a letter"),
    "RotaryEmbedding": Rule(_rotary_layouts, _merge_rotary, "unchanged, on more samples"),
}
