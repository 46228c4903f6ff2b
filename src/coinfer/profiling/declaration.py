"""Declaration: whether a processor's own lists of operators let it run a model. Asks no backend."""

from __future__ import annotations

from coinfer.machine.processor import Processor
from coinfer.model import Model

__all__ = ["undeclared"]


def undeclared(model: Model, processor: Processor) -> str | None:
    """Say why a processor must not be given a model as a whole; None if it may be.

    >>> from coinfer.testing.models import tiny_linear
    >>> gaps = Processor(name="npu", backend="null", units=frozenset({"npu"}),
    ...                  unsupported_ops=frozenset({"MatMul"}))
    >>> undeclared(tiny_linear().model, gaps)
    'it declares that it does not run MatMul; cut the model with `partition`'
    """
    if not processor.declares_support:
        return None
    from coinfer.graph.operators import Operators  # needs the heavy libraries

    types = {name for operator in Operators.of(model.graph) for name in operator.op_types}
    missing = sorted(name for name in types if not processor.declared(name))
    if not missing:
        return None
    listed = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return f"it declares that it does not run {listed}; cut the model with `partition`"
