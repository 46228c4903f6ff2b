"""Trial: whether a device that a backend reports runs anything. A driver alone is not enough."""

from __future__ import annotations

from contextlib import closing

from coinfer.backends import Backend, Device
from coinfer.errors import CoinferError, first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_ir

__all__ = ["why_unusable"]


def why_unusable(backend: Backend, device: Device) -> str:
    """Load and run a model of one operator there; return why that fails, empty if it does not.

    >>> from coinfer.backends import get_backend
    >>> cpu = get_backend("onnxruntime")
    >>> why_unusable(cpu, cpu.devices()[0])
    ''
    """
    where = Processor(
        name="trial", backend=backend.name, device=device.name, units=frozenset({"trial"})
    )
    model = _negation()
    try:
        with closing(backend.load(model, where)) as session:
            session.run(model.sample_inputs())
    except CoinferError as error:
        return first_line(error) if error.__cause__ else str(error)
    except Exception as error:  # noqa: BLE001  # a backend is foreign code
        return f"{type(error).__name__}: {first_line(error)}"
    return ""


def _negation() -> Model:
    import onnx_ir as ir

    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([4]))
    node = ir.node("Neg", [value])
    [made] = node.outputs
    made.name, made.type, made.shape = "y", value.type, ir.Shape([4])
    graph = ir.Graph([value], [made], nodes=[node], opset_imports={"": 17}, name="negation")
    return model_from_ir(ir.Model(graph, ir_version=8), name="negation")
