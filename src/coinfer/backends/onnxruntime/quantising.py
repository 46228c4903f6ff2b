"""Quantising: a model in int8 (QDQ), made by onnxruntime's own quantiser. Chooses nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import onnx
import onnx.version_converter

from coinfer.backends.base import Tensors
from coinfer.documents.writing import replace_file
from coinfer.errors import BackendError, first_line
from coinfer.graph.operators import MATRIX_PRODUCTS
from coinfer.model import Model, model_from_bytes
from coinfer.quiet import quiet

__all__ = ["Way", "prepared", "quantised"]

_WARNINGS, _FATAL_ONLY = 2, 4
"""Levels of the library's log."""

_LEAST_OPSET = 13
"""Of ONNX: the first in which DequantizeLinear has an axis."""


class Way(NamedTuple):
    """How a model is quantised: activations as uint8, weights as symmetric int8.

    Attributes:
        method: How ranges follow from what is seen: `MinMax`, `Entropy` or `Percentile`.
        is_whole: Whether all operators are quantised that can be, or the heavy ones alone.
        keeps: Names of operators that stay as they are.
    """

    method: str = "MinMax"
    is_whole: bool = True
    keeps: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say it in a few words."""
        which = "" if self.is_whole else ", heavy operators only"
        kept = f", {len(self.keeps)} layers kept in fp32" if self.keeps else ""
        return f"{self.method}, a scale per channel{which}{kept}"


def prepared(model: Model) -> Model:
    """Return a model as the quantiser wants it: constants folded, norms in their convolutions.

    Operators have names, and are of a version in which scales can be per channel.

    Raises:
        BackendError: onnxruntime cannot do that.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with _errors_of(model, "prepared for int8"), TemporaryDirectory(prefix="coinfer-") as folder:
        path = Path(folder) / "prepared.onnx"
        # Symbolic shapes need sympy, and quantising does without.
        quant_pre_process(_written(model, folder), path, skip_symbolic_shape=True)
        proto = _modern(onnx.load(path))
    for at, node in enumerate(proto.graph.node):
        node.name = node.name or f"coinfer.{at}"
    return model_from_bytes(proto.SerializeToString(), name=model.name)


def quantised(model: Model, feeds: Sequence[Tensors], way: Way) -> Model:
    """Return a model in int8; inputs and outputs stay of the type that they are of.

    Args:
        model: What `prepared` returns.
        feeds: Inputs that are typical of it: ranges of activations come from them.
        way: How.

    Raises:
        BackendError: onnxruntime cannot quantise it.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _errors_of(model, "quantised"), TemporaryDirectory(prefix="coinfer-") as folder:
        path = Path(folder) / "int8.onnx"
        quantize_static(
            _written(model, folder),
            path,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=None if way.is_whole else list(MATRIX_PRODUCTS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=list(way.keeps),
            calibrate_method=CalibrationMethod[way.method],
            # One sample after the other, or all activations of all samples would be in memory.
            extra_options={"CalibStridedMinMax": 1},
        )
        return model_from_bytes(path.read_bytes(), name=model.name)


class _Reader:
    """Gives the quantiser one sample after the other."""

    def __init__(self, feeds: Sequence[Tensors]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these next."""
        self._left: Iterator[Mapping[str, Any]] = iter(self._feeds[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next sample; None after the last."""
        feed = next(self._left, None)
        return None if feed is None else dict(feed)


def _modern(proto: onnx.ModelProto) -> onnx.ModelProto:
    version = next((each.version for each in proto.opset_import if not each.domain), _LEAST_OPSET)
    if version >= _LEAST_OPSET:
        return proto
    return onnx.version_converter.convert_version(proto, _LEAST_OPSET)


def _written(model: Model, folder: str) -> Path:
    """Write a model to a folder: of what is in memory the library moves weights to a lost file."""
    path = Path(folder) / "given.onnx"
    replace_file(path, model.to_bytes())
    return path


@contextmanager
def _errors_of(model: Model, what: str) -> Iterator[None]:
    """Make one line of what the library raises, and keep what it tells developers away."""
    import onnxruntime as ort

    # It speaks on the root logger, prints, and makes sessions that warn on stderr.
    ort.set_default_logger_severity(_FATAL_ONLY)
    try:
        with quiet(None, logging.CRITICAL):
            yield
    except Exception as error:  # the quantiser is Python code, and raises what its parts raise
        raise BackendError(
            f"model {model.name!r} cannot be {what} by onnxruntime: {first_line(error)}"
        ) from error
    finally:
        ort.set_default_logger_severity(_WARNINGS)  # its default; nothing tells what it was
