"""Model: a validated ONNX graph with its specs and its fingerprint. Knows no backend."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.model import inputs as _inputs
from coinfer.model.content import Content, Encoded, Summary
from coinfer.model.fingerprint import Fingerprint
from coinfer.model.inputs import InputCheck
from coinfer.model.outline import Outline, outline_of
from coinfer.model.specs import TensorSpec

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

    from coinfer.model.defaults import Defaults

__all__ = ["NO_DIMS", "Model", "made_of", "model_from_ir"]

_FILLED = "batch"
"""What the first axis of a model is called whose fixed batch is filled up."""

NO_DIMS: Mapping[str, int] = MappingProxyType({})
"""No dimension bound besides the batch."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A validated model. It never changes: a transform clones `graph` and makes a new `Model`.

    Attributes:
        name: What requests and messages call it.
        content: The graph and its weights, in memory or as the bytes of a file.
        inputs: Specs of the inputs that a caller gives, or may give; constants are left out.
        outputs: Specs of the outputs.
        source: File that it was loaded from, or None if it was made in memory.
        defaults: Values of inputs that may be left out, by name; the arrays are read-only.
        fixed: Names that the file lists among its inputs, but which are weights: none can be given.
        borders: Of a part of a model, the inputs and outputs that only other parts of it give and
            read; nobody else looks at them.
        outline: What the shapes follow from; None where no dimension but the batch is open.
        has_batch: Whether an open first axis that all inputs share is the batch; None: nobody has
            found out, and it is taken for that.
        filling: Samples of the batch that the file fixes where `inputs` and `outputs` leave it
            open: runs are filled up to so many. 0: the file is as they say.
        padding: By open dimension along which requests may be padded, what each input that has it
            is padded with.
        input_check: Checks the inputs of one request, as `check_inputs` does. It does not hold the
            model.
    """

    name: str
    content: Content
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    source: Path | None = None
    defaults: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict, repr=False)
    fixed: frozenset[str] = field(default=frozenset(), repr=False)
    borders: frozenset[str] = frozenset()
    outline: Outline | None = field(default=None, repr=False)
    has_batch: bool | None = None
    filling: int = 0
    padding: Mapping[str, Mapping[str, float]] = field(default_factory=dict, repr=False)
    input_check: InputCheck = field(init=False, repr=False)

    def __post_init__(self) -> None:
        has_batch = self.has_batch is not False
        check = InputCheck(
            self.name, self.inputs, self.outline, has_batch, self.defaults, self.fixed
        )
        object.__setattr__(self, "input_check", check)

    @property
    def graph(self) -> ir.Model:
        """The graph and its weights; external weights are mapped from their file on use.

        Of a model from a file it is built when it is first asked for, and kept then.

        Raises:
            ModelError: the file follows the rules of ONNX, but `onnx_ir` cannot read it.
        """
        return self.content.graph

    @property
    def fingerprint(self) -> Fingerprint:
        """Identity of structure and weights; computed when it is first asked for.

        Raises:
            ModelError: as for `graph`.
        """
        return self.content.fingerprint

    @property
    def summary(self) -> Summary:
        """What the graph is made of; does not build it."""
        return self.content.summary

    @property
    def batch_symbol(self) -> str | None:
        """Symbol of the batch axis: it leads every input whose first axis is open.

        None for a model whose inputs have no open first axis, or different ones.
        """
        return self.input_check.batch

    @property
    def open_dims(self) -> dict[str, tuple[str, int]]:
        """Open dimensions but for the batch: by name, the first input and axis that has it.

        A nameless one is called `input:axis`.
        """
        return self.input_check.open_dims

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself in its `metadata_props`, e.g. labels; does not build it."""
        return MappingProxyType(dict(self.content.metadata))

    @property
    def weight_bytes(self) -> int:
        """Bytes of all initializers and constants, as stored."""
        return self.summary.weight_bytes

    def check_inputs(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> int:
        """Check the inputs of one request: names, dtypes, shapes, equal sizes of equal symbols.

        Returns:
            The batch size: the size of `batch_symbol`, which may be 0, or 1 if there is none.

        Raises:
            InputError: names the model, the input, what it takes, what it got, and the remedy.
        """
        return self.input_check(inputs)

    def sample_inputs(
        self, *, batch: int = 1, seed: int = 0, dims: Mapping[str, int] = NO_DIMS
    ) -> dict[str, np.ndarray[Any, Any]]:
        """Make random inputs that fit: standard normal floats, integers and booleans 0 or 1.

        An input with a default gets that.

        The model's metadata may say how large integers get: the property
        `coinfer.input.NAME.high` is the bound that they stay below.

        Args:
            batch: Size of the batch axis; a model without one ignores it.
            seed: Equal seeds give equal inputs.
            dims: Sizes of further open dimensions by symbol; a nameless one is `"input:axis"`.

        Raises:
            InputError: an open dimension was not given, is unknown, or is below 1.
            ModelError: an input takes strings.
        """
        return _inputs.sample_inputs(
            self.input_check, batch=batch, seed=seed, dims=dims, highs=self.integer_bounds()
        )

    def to_bytes(self) -> bytes:
        """Serialize as one ONNX `ModelProto` that refers to no other file.

        Raises:
            ModelError: it would exceed the 2 GiB that a protobuf message can hold.
        """
        return self.content.to_bytes()

    def with_batch(self, has_batch: bool) -> Model:
        """Return the model as one of which it is known whether its open first axis is the batch.

        If it is not, it is an open dimension like any other.
        """
        return dataclasses.replace(self, has_batch=has_batch)

    def with_filling(self, samples: int) -> Model:
        """Return a model of a fixed batch as one that takes any number of samples.

        Whoever loads it fills runs up to the batch of the file (`backends.loading`).

        Args:
            samples: The batch of the file: the first axis of all outputs, and of those inputs that
                bring samples.

        >>> from coinfer.testing.models import fixed_batch
        >>> [str(spec) for spec in fixed_batch().model.with_filling(2).inputs]
        ['x: float32[batch,3]']
        """
        return dataclasses.replace(
            self,
            inputs=_inputs.with_first_axis(self.inputs, samples, _FILLED),
            outputs=_inputs.with_first_axis(self.outputs, samples, _FILLED),
            has_batch=True,
            filling=samples,
        )

    def with_padding(self, padding: Mapping[str, Mapping[str, float]]) -> Model:
        """Return the model as one whose requests may be padded along some open dimensions."""
        return dataclasses.replace(self, padding=padding)

    @property
    def filed(self) -> Model:
        """The model as its file has it, with the batch that is fixed there."""
        if not self.filling:
            return self
        return dataclasses.replace(
            self,
            inputs=_inputs.with_first_axis(self.inputs, _FILLED, self.filling),
            outputs=_inputs.with_first_axis(self.outputs, _FILLED, self.filling),
            has_batch=None,
            filling=0,
        )

    def like(self, original: Model) -> Model:
        """Return a variant of a model with what was found out of the original's first axis."""
        if original.filling:
            return self.with_filling(original.filling)
        if self.batch_symbol is not None and original.has_batch is not None:
            return self.with_batch(original.has_batch)
        return self

    def renamed(self, name: str) -> Model:
        """Return the same model, with the same content, under another name."""
        return self if name == self.name else dataclasses.replace(self, name=name)

    def with_graph(self, graph: ir.Model) -> Model:
        """Return a model of the same name, inputs and outputs with this graph; nothing is checked.

        Args:
            graph: The model takes it over: do not change it afterwards.
        """
        return dataclasses.replace(self, content=Content(self.name, graph), source=None)

    def integer_bounds(self) -> dict[str, int]:
        """Return what integer inputs stay below, of those whose metadata says it."""
        texts = {
            spec.name: self.content.metadata.get(f"coinfer.input.{spec.name}.high", "")
            for spec in self.inputs
        }
        return {name: int(text) for name, text in texts.items() if text.isdecimal()}


def model_from_ir(ir_model: ir.Model, *, name: str) -> Model:
    """Validate a graph made in memory and wrap it.

    The model takes the graph over: do not change it afterwards, clone it first.

    Args:
        ir_model: The graph with its weights.
        name: What requests and messages call it.

    Raises:
        ModelError: the graph breaks the rules of ONNX or has inputs that are not tensors.
    """
    from coinfer.model import validation
    from coinfer.model.defaults import take_from_graph

    proto = validation.check_graph(ir_model, name)
    defaults = take_from_graph(ir_model)
    if defaults.values:
        kept = [tensor for tensor in proto.graph.initializer if tensor.name not in defaults.values]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
    inputs = [value for value in ir_model.graph.inputs if value.name not in defaults.fixed]
    return made_of(ir_model, proto, inputs, ir_model.graph.outputs, name, None, defaults)


def made_of(
    held: ir.Model | Encoded,
    proto: onnx.ModelProto,
    inputs: Iterable[ir.Value],
    outputs: Iterable[ir.Value],
    name: str,
    source: Path | None,
    defaults: Defaults,
) -> Model:
    """Make a model of what was checked.

    Args:
        held: The graph, or the file that it is read from.
        proto: The same as a message; large weights may be missing.
        inputs: What a caller gives.
        outputs: What a caller gets.
        name: What requests and messages call it.
        source: The file.
        defaults: What became of inputs that have an initializer.

    Raises:
        ModelError: an input or output is not a tensor, or a default does not fit its input.
    """
    from coinfer.model.defaults import check_defaults
    from coinfer.model.validation import spec_of

    specs = tuple(spec_of(value, name, "input") for value in inputs)
    check_defaults(defaults.values, specs, f"model {name!r}")
    return Model(
        name=name,
        content=Content(name, held),
        inputs=specs,
        outputs=tuple(spec_of(value, name, "output") for value in outputs),
        source=source,
        defaults=defaults.values,
        fixed=defaults.fixed,
        outline=outline_of(proto) if _inputs.has_open_dims(specs) else None,
    )
