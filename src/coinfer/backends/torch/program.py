"""Program: a graph as a list of torch functions, with its constants. Knows no stream.

What follows from constants alone is computed once. Sizes, and what is computed of them alone, stay
on the host, so that nobody waits for the device to learn a shape.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx_ir as ir

from coinfer.backends.torch.library import torch
from coinfer.backends.torch.operators import DTYPES, OperatorNode
from coinfer.backends.torch.translation import Translated, Translation
from coinfer.errors import BackendError
from coinfer.model import Model

__all__ = ["LayerOf", "Program", "Step", "no_layer", "tensor_of"]


LayerOf = Callable[[Translated, Sequence[Any]], str]

_SIZES_FROM_VALUES = frozenset({"NonZero", "Range"})

_NO_LAYERS: Mapping[str, Any] = MappingProxyType({})


def no_layer(each: Translated, constants: Sequence[Any]) -> str:  # noqa: ARG001
    """Leave every node to its function."""
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of a function. Values are kept in numbered slots.

    Attributes:
        function: What is called.
        node: Its first argument.
        reads: Slots of the others; None: left out.
        settings: Positions of those that must become plain numbers first.
        moves: Positions of those that must be brought from the host first.
        writes: Slots of what it returns; None: nobody wants it.
        frees: Slots that nobody reads after it.
        layer: The layer that is called in its place, with its first input alone; empty: none.
    """

    function: Callable[..., Any]
    node: OperatorNode
    reads: tuple[int | None, ...]
    settings: tuple[int, ...]
    moves: tuple[int, ...]
    writes: tuple[int | None, ...]
    frees: tuple[int, ...] = ()
    layer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Program:
    """A graph for one device and one precision. It keeps no state: threads may run it together.

    Attributes:
        steps: What is called, in order.
        inputs: Slot and type of each input of the model.
        outputs: Slot and type of each output of the model.
        slots: What the slots hold at the start: constants.
        device: Where it runs.
        constants: Addresses of what the constants are kept in.
        constant_bytes: What these take on the device.
        waits: Whether somebody waits for the device while it runs, to learn a shape from values.
            Then it cannot be recorded.
        bounds: Of inputs that are positions in a table, by name, how many rows that has. A GPU is
            lost for the process if it is asked for one that is not there.
        apart: Slots of constants that were left on the host though they belong on the device. With
            any, it runs once they are `placed`.
    """

    steps: tuple[Step, ...]
    inputs: tuple[tuple[int, Any], ...]
    outputs: tuple[tuple[int, Any], ...]
    slots: tuple[Any, ...] = field(repr=False)
    device: Any
    constants: frozenset[int] = field(repr=False)
    constant_bytes: int
    waits: bool
    bounds: Mapping[str, int] = field(default_factory=dict)
    apart: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        model: Model,
        *,
        compute: Any,
        device: Any,
        what: str,
        layer_of: LayerOf = no_layer,
        apart: bool = False,
    ) -> Program:
        """Translate a model.

        Args:
            model: The model.
            compute: The type in which what is float32 is computed: float32, float16 or bfloat16.
            device: Where it shall run, a `torch.device`.
            what: What errors call it.
            layer_of: Given a node and its inputs, names the layer that is called in its place;
                inputs that are not constant are None. Empty: none is.
            apart: Whether its constants stay on the host for now.

        Raises:
            BackendError: torch has no function for an operator.
            ModelError: the graph cannot be read.
        """
        translation = Translation.of(model.graph, compute=compute, device=device)
        if translation.refused:
            why = next(iter(translation.refused.values()))
            raise BackendError(
                f"{what}: torch does not compute {', '.join(translation.op_types)} ({why}); run it "
                "on another backend, or cut it so that another processor has these"
            )
        builder = _Builder(translation, layer_of, compute=compute, device=device, apart=apart)
        return builder.program(model)

    def placed(self, constants: Sequence[Any]) -> Program:
        """Return it with constants of the device, in the order of the slots of `apart`."""
        slots = list(self.slots)
        for slot, tensor in zip(self.apart, constants, strict=True):
            slots[slot] = tensor
        return replace(self, slots=tuple(slots))

    def __deepcopy__(self, memo: object) -> Program:
        return self  # it never changes

    def run(self, inputs: Sequence[Any], layers: Mapping[str, Any] = _NO_LAYERS) -> list[Any]:
        """Compute the outputs; some may share memory with inputs, constants or each other.

        Args:
            inputs: Tensors on the device, in the order of the model's inputs.
            layers: Those that `layer_of` named.
        """
        values = list(self.slots)
        for (slot, kind), tensor in zip(self.inputs, inputs, strict=True):
            values[slot] = tensor if kind is None else tensor.to(kind)
        for step in self.steps:
            arguments: list[Any]
            arguments = [None if slot is None else values[slot] for slot in step.reads]
            for at in step.settings:
                arguments[at] = arguments[at].tolist()
            for at in step.moves:
                arguments[at] = arguments[at].to(self.device)
            if step.layer:
                made = layers[step.layer](arguments[0])
            else:
                made = step.function(step.node, *arguments)
            if type(made) is tuple or type(made) is list:
                for place, each in zip(step.writes, made, strict=False):
                    if place is not None:
                        values[place] = each
            elif step.writes[0] is not None:
                values[step.writes[0]] = made
            for slot in step.frees:
                values[slot] = None
        return [values[slot].to(kind) for slot, kind in self.outputs]


def tensor_of(tensor: ir.TensorProtocol) -> Any:
    """Return a constant as a tensor on the host, without a copy if it can be had.

    Raises:
        BackendError: torch has no such type.
    """
    number = int(tensor.dtype)
    if number not in DTYPES:
        raise BackendError(f"torch has no type for constants of {tensor.dtype.name.lower()}")
    array = np.asarray(tensor.numpy(), order="C")  # not `ascontiguousarray`: that adds an axis
    with warnings.catch_warnings():  # nobody writes into it
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        if number == ir.DataType.BFLOAT16:
            return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(array)


class _Builder:
    """Gives values slots and constants their places."""

    def __init__(
        self,
        translation: Translation,
        layer_of: LayerOf,
        *,
        compute: Any,
        device: Any,
        apart: bool,
    ) -> None:
        self._translation = translation
        self._layer_of = layer_of
        self._compute = compute
        self._device = device
        self._stays = apart
        self._apart: list[int] = []
        self._known: dict[str, Any] = {}
        self._slots: list[Any] = []
        self._slot_of: dict[str, int] = {}
        self._placed: dict[tuple[str, str], int] = {}
        self._on_host: set[str] = set()
        self._steps: list[Step] = []
        self._rows: dict[str, int] = {}
        self._waits = False

    def program(self, model: Model) -> Program:
        inputs = [self._slot(spec.name) for spec in model.inputs]
        kinds = [self._compute if spec.dtype == np.float32 else None for spec in model.inputs]
        kinds = [None if kind is torch.float32 else kind for kind in kinds]
        for each in self._translation.nodes:
            if not self._folded(each):
                self._steps.append(self._step(each))
        outputs = [
            (self._output_slot(spec.name), torch.from_numpy(np.empty(0, spec.dtype)).dtype)
            for spec in model.outputs
        ]
        tensors = [each for each in self._slots if isinstance(each, torch.Tensor)]
        there = [each for each in tensors if each.device.type == self._device.type]
        there = [self._slots[slot] for slot in self._apart] if self._stays else there
        return Program(
            steps=self._with_frees({slot for slot, _ in outputs}),
            inputs=tuple(zip(inputs, kinds, strict=True)),
            outputs=tuple(outputs),
            slots=tuple(self._slots),
            device=self._device,
            waits=self._waits,
            constant_bytes=sum(each.nbytes for each in there),
            constants=frozenset(each.untyped_storage().data_ptr() for each in tensors),
            bounds={
                spec.name: self._rows[spec.name] for spec in model.inputs if spec.name in self._rows
            },
            apart=tuple(self._apart),
        )

    def _constant(self, name: str) -> Any:
        """A constant as it is in the graph, on the host; None if it is none."""
        if name in self._known or name not in self._translation.constants:
            return self._known.get(name)
        self._known[name] = tensor_of(self._translation.constants[name])
        return self._known[name]

    def _folded(self, each: Translated) -> bool:
        """Compute it now if all that it reads is constant."""
        if not all(name is None or self._is_constant(name) for name in each.reads):
            return False
        if not each.reads:
            return False
        arguments: list[Any]
        arguments = [None if name is None else self._constant(name) for name in each.reads]
        for at in each.operator.settings:
            if at < len(arguments) and arguments[at] is not None:
                arguments[at] = arguments[at].tolist()
        node = replace(each.node, compute=torch.float32, device="cpu")
        with torch.no_grad():
            made = each.operator.function(node, *arguments)
        made = made if isinstance(made, tuple | list) else (made,)
        self._known.update((n, m) for n, m in zip(each.writes, made, strict=False) if n)
        return True

    def _is_constant(self, name: str) -> bool:
        return name in self._known or name in self._translation.constants

    def _step(self, each: Translated) -> Step:
        if each.node.op_type == "Gather" and self._is_constant(each.reads[0] or ""):
            table, picks = self._constant(each.reads[0] or ""), each.reads[1] or ""
            rows = table.shape[each.node.get("axis", 0)]
            self._rows[picks] = min(rows, self._rows.get(picks, rows))
        layer = self._layer_of(each, [self._constant(name or "") for name in each.reads])
        if layer:
            each = replace(each, reads=each.reads[:1])
        settings = each.operator.settings
        tensors = [
            name for at, name in enumerate(each.reads) if name is not None and at not in settings
        ]
        changing = [name for name in tensors if not self._is_constant(name)]
        host = bool(changing) and all(name in self._on_host for name in changing)
        self._waits |= each.node.op_type in _SIZES_FROM_VALUES and not host
        if host or self._makes_sizes(each):
            self._on_host.update(name for name in each.writes if name)
        reads: list[int | None] = []
        late, moves = [], []
        for at, name in enumerate(each.reads):
            if name is None:
                reads.append(None)
            elif self._is_constant(name):
                place = "setting" if at in settings else "host" if host else "device"
                reads.append(self._constant_slot(name, place))
            else:
                reads.append(self._slot(name))
                if at in settings:
                    late.append(at)
                    self._waits |= name not in self._on_host
                elif name in self._on_host and not host and self._device.type != "cpu":
                    moves.append(at)
                    self._waits = True
        return Step(
            function=each.operator.function,
            node=each.node,
            reads=tuple(reads),
            settings=tuple(late),
            moves=tuple(moves),
            writes=tuple(None if name is None else self._slot(name) for name in each.writes),
            layer=layer,
        )

    @staticmethod
    def _makes_sizes(each: Translated) -> bool:
        if each.node.op_type == "ConstantOfShape":
            value = each.node.get("value")
            return value is not None and value.dtype.kind in "iub"
        return each.node.op_type in ("Shape", "Size")

    def _slot(self, name: str) -> int:
        if name not in self._slot_of:
            self._slot_of[name] = len(self._slots)
            self._slots.append(None)
        return self._slot_of[name]

    def _constant_slot(self, name: str, place: str) -> int:
        key = (name, place)
        if key not in self._placed:
            value = self._constant(name)
            if place == "setting":
                value = value.tolist()
            else:
                value = value.to(self._compute) if value.dtype is torch.float32 else value
                if place != "device":  # not a part of the memory of a file
                    value = value.clone() if self._stays else value
                elif self._stays:
                    self._apart.append(len(self._slots))
                else:
                    value = value.to(self._device)
            self._placed[key] = len(self._slots)
            self._slots.append(value)
        return self._placed[key]

    def _output_slot(self, name: str) -> int:
        if self._is_constant(name):
            return self._constant_slot(name, "device")
        return self._slot(name)

    def _with_frees(self, kept: set[int]) -> tuple[Step, ...]:
        """Let each step free what is read there for the last time."""
        fixed = {slot for slot, value in enumerate(self._slots) if value is not None}
        seen = kept | fixed
        found = []
        for step in reversed(self._steps):
            touched = {slot for slot in (*step.reads, *step.writes) if slot is not None}
            frees = tuple(sorted(touched - seen))
            seen |= touched
            found.append(replace(step, frees=frees))
        return tuple(reversed(found))
