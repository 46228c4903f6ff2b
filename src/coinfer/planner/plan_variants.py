"""Plan variants: the graphs of a saved plan's variants beside the originals, ready to be loaded."""

from __future__ import annotations

from pathlib import Path

from coinfer.errors import ConfigurationError, ModelError
from coinfer.graph.cut_model import CutModel
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.model.file import load_model
from coinfer.plan.plan_folder import SavedPlan, graph_bytes
from coinfer.plan.variant import Kind, Variant, variant_name
from coinfer.planner.plan_checks import make_anew

__all__ = ["check_variants", "opened_variants", "require_same_interface"]


def check_variants(saved: SavedPlan) -> None:
    """See that all that may serve was measured: of variants nothing is estimated.

    Raises:
        ConfigurationError: something was not.
    """
    for model in saved.plan.models:
        for name, variant in saved.plan.serving(model).items():
            if name == model:
                continue
            known = {(key.processor, key.span) for key, _ in saved.plan.measured.restricted([name])}
            for processor, spans in variant.spans.items():
                if not known.issuperset((processor, span) for span in spans):
                    place = _place(saved, model, variant, "processors", processor)
                    raise ConfigurationError(
                        f"{place}: {name!r} was never measured on {processor!r}; take it out, or "
                        f"{make_anew(saved)}"
                    )


def opened_variants(saved: SavedPlan, model: str, original: Model) -> dict[str, Model | CutModel]:
    """Open what may serve beside the original of a model, by name.

    Raises:
        ConfigurationError: a graph is not there, or another one, or has other inputs or outputs.
        ModelError: a graph cannot be used.
    """
    found: dict[str, Model | CutModel] = {}
    for name, variant in saved.plan.serving(model).items():
        if name == model:
            continue
        place = _place(saved, model, variant)
        if variant.graph is None:
            raise ConfigurationError(f"{place}: has no `graph`; {make_anew(saved)}")
        graph_bytes(variant.graph, None if saved.folder == Path() else saved.folder)
        opened = load_model(saved.folder / variant.graph.path, name=name).like(original)
        require_same_interface(original, opened, f"{place}: {variant.graph.path}")
        if variant.n_units == 1:
            found[name] = opened
            continue
        from coinfer.graph.recut import check_cut, recut  # need the heavy libraries

        check_cut(opened, variant)
        found[name] = recut(opened, variant, Profile())
    return found


def require_same_interface(original: Model, other: Model, what: str) -> None:
    """See that a variant takes and gives what the original does.

    Args:
        original: The model that callers ask for.
        other: The variant.
        what: What messages call it.

    Raises:
        ModelError: an input or an output differs.
    """
    for kind in ("inputs", "outputs"):
        wanted, found = getattr(original, kind), getattr(other, kind)
        if wanted != found:
            texts = (", ".join(map(str, specs)) for specs in (found, wanted))
            raise ModelError(
                "{}: its {} are {}, and those of the model {}; give one that can take its "
                "place".format(what, kind, *texts)
            )


def _place(saved: SavedPlan, model: str, variant: Variant, *loc: str) -> str:
    assert variant.kind is not Kind.ORIGINAL, variant_name(model, variant.kind)
    return saved.where("models", model, "variants", variant.kind.value, *loc)
