"""OnnxRuntimePart: a part of a model whose values cross its borders in blocks of channels.

ONNX Runtime rewrites the part as it rewrites a whole model. The result is saved, edited (`blocks`)
and loaded without further rewriting. Where that does not work, the part is compiled like any model
and converts its values at its borders.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinfer.backends.base import Tensor, Tensors
from coinfer.backends.onnxruntime.assignment import assigned
from coinfer.backends.onnxruntime.creation import Style, create
from coinfer.backends.onnxruntime.library import LIBRARY_ERRORS, ort
from coinfer.backends.onnxruntime.packing import ChannelBlocks, Packed, block_size, channel_blocks
from coinfer.backends.onnxruntime.providers import CPU_PROVIDER
from coinfer.backends.onnxruntime.session import OnnxRuntimeSession
from coinfer.backends.run_faults import is_of_inputs
from coinfer.backends.values import Value, Values, to_host
from coinfer.errors import first_line
from coinfer.machine.processor import Processor
from coinfer.model import Model
from coinfer.units import format_bytes

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["OnnxRuntimePart", "compiled_in_blocks", "opened_in_blocks"]

_MOST_WEIGHT_BYTES = 2**29
"""Larger parts are compiled like any model: for a moment, their weights are there some five times.
Next to what such a part computes, its borders are small."""

_NOT_WRITTEN: tuple[type[Exception], ...] = (*LIBRARY_ERRORS, OSError)
"""What comes if the library does not save what it makes of a graph, or there is no place for it."""

_packed = tuple.__new__
"""Makes a `Packed` without a call into Python."""

_PROVIDER = (CPU_PROVIDER, dict[str, str]())


@dataclass(kw_only=True, eq=False)
class OnnxRuntimePart(OnnxRuntimeSession):
    """A compiled part of a model; made by `OnnxRuntimeBackend.load`.

    Attributes:
        takes: By input, the blocks that it takes; None: a plain array.
        gives: The blocks of those outputs that are not plain arrays.
    """

    takes: Mapping[str, ChannelBlocks | None]
    gives: Mapping[str, ChannelBlocks]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._takes = tuple(self.takes.items())
        self._packs = tuple((self.outputs.index(n), n, form) for n, form in self.gives.items())

    def run(self, inputs: Tensors) -> dict[str, Tensor]:
        """Compute all outputs; takes and gives arrays.

        Raises:
            ExecutionError: ONNX Runtime failed, or the session is closed.
        """
        return to_host(self.run_part(inputs))

    def run_part(self, inputs: Values) -> dict[str, Value]:
        """Compute all outputs; those at borders are in blocks.

        Raises:
            ExecutionError: ONNX Runtime failed, or the session is closed.
        """
        call = self._call
        if call is None:
            raise self._failed("the session is closed; load the model again")
        # Few calls: the part that ran just before has pushed Python's code out of the caches.
        feed: dict[str, Tensor] = {}
        outputs: dict[str, Value]
        try:
            for name, form in self._takes:
                value = inputs[name]
                if type(value) is Packed and value.packing is form:
                    feed[name] = value.array
                else:
                    feed[name] = _in_form(value, form)
            arrays = call(self.outputs, feed, None)
        except Exception as error:
            # The library's exceptions have no other common base.
            reason = first_line(error)
            raise self._failed(reason, is_of_inputs=is_of_inputs(reason)) from error
        outputs = dict(zip(self.outputs, arrays))  # noqa: B905  # a keyword takes a while
        for at, name, form in self._packs:
            outputs[name] = _packed(Packed, (arrays[at], form))
        return outputs

    def owned(self, inputs: Values) -> dict[str, Value]:
        """Return inputs in the form that `run_part` need not convert."""
        return {
            name: inputs[name] if form is None else Packed(_in_form(inputs[name], form), form)
            for name, form in self._takes
        }


def _in_form(value: Value, form: ChannelBlocks | None) -> Tensor:
    if not isinstance(value, np.ndarray):
        if isinstance(value, Packed) and value.packing is form:
            return value.array
        value = value.to_host()
    return value if form is None else form.pack(value).array


def compiled_in_blocks(
    model: Model,
    processor: Processor,
    common: Mapping[str, Any],
    kept: Path | None = None,
    *,
    blocked: bool = False,
) -> OnnxRuntimePart | str:
    """Compile a part of a model so that its values cross borders in blocks, where they can.

    Args:
        model: The part.
        processor: Where it is to run.
        common: What any session of it is told.
        kept: Write it down there, to be opened by `opened_in_blocks`.
        blocked: Let its dense layers be convolutions, which use weights as they are: see `dense`.

    Returns:
        Why blocks cannot cross its borders, if it is to be compiled like any model; an empty text
        if nothing is lost by that.
    """
    import onnx_ir as ir  # slow to import, and opened parts need it not

    from coinfer.backends.onnxruntime.blocks import blockable, probed, without_probes
    from coinfer.backends.onnxruntime.dense import dense_to_convolutions

    inputs, outputs = blockable(model)
    if not (inputs or outputs) or not block_size():
        return ""  # then nothing inside is in blocks either
    if model.weight_bytes > _MOST_WEIGHT_BYTES:
        return f"one has more than {format_bytes(_MOST_WEIGHT_BYTES)} of weights"
    source = model.with_graph(probed(model.graph, inputs)).to_bytes()
    try:
        rewritten, operators = _rewritten(source, processor)
    except _NOT_WRITTEN as error:
        return f"onnxruntime cannot write one down as it runs it: {first_line(error)}"
    edited = without_probes(rewritten, inputs, outputs, block=block_size())
    if edited is None:
        return f"onnxruntime {ort.__version__} rewrites one otherwise than is known of it"
    if not (edited.takes or edited.gives):
        return ""
    if blocked:
        dense_to_convolutions(edited.model, block_size())
    data = ir.to_proto(edited.model).SerializeToString()
    del rewritten, source
    try:
        style = Style(optimised=False, shared=True, kept=kept)
        session = create(data, processor, _PROVIDER, style)
    except LIBRARY_ERRORS as error:
        return f"onnxruntime refuses one with borders in blocks: {first_line(error)}"
    operators.subtract({CPU_PROVIDER: len(inputs)})
    common = {**common, "operators": dict(operators)}
    return opened_in_blocks(session, model, edited.takes, edited.gives, common)


def opened_in_blocks(
    session: Any,
    model: Model,
    takes: Mapping[str, int],
    gives: Mapping[str, int],
    common: Mapping[str, Any],
) -> OnnxRuntimePart:
    """Wrap the library's session of a part.

    Args:
        session: Its graph has the blocks at its borders.
        model: The part.
        takes: Channels of those inputs that come in blocks.
        gives: Channels of those outputs that do.
        common: What any session of it is told, with its operators.
    """
    forms = {name: channel_blocks(channels) for name, channels in takes.items()}
    return OnnxRuntimePart(
        session=session,
        takes={spec.name: forms.get(spec.name) for spec in model.inputs},
        gives={name: channel_blocks(channels) for name, channels in gives.items()},
        shares=True,
        **common,
    )


def _rewritten(source: bytes, processor: Processor) -> tuple[ir.Model, Counter[str]]:
    """Let the library rewrite a graph; return that, and the operators that it had per provider."""
    import onnx_ir as ir

    alone = dataclasses.replace(processor, threads=1)
    with tempfile.TemporaryDirectory(prefix="coinfer-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "rewritten.onnx"
        session = create(source, alone, _PROVIDER, Style(saved=file))
        return ir.load(file), Counter(assigned(session))
