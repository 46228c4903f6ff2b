"""CoinferBackend: the class that the standard asks for. Knows arguments, not how models run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend

from coinfer.backends.registry import get_backend
from coinfer.errors import ConfigurationError, ModelError
from coinfer.machine.processor import Processor
from coinfer.model import Model, model_from_bytes
from coinfer.onnx_backend.node import model_of_node
from coinfer.onnx_backend.prepared import PreparedModel
from coinfer.onnx_backend.route import Route

__all__ = ["CoinferBackend"]

_LIBRARY = "onnxruntime"
_OutputsInfo = Sequence[tuple[np.dtype[Any], tuple[int, ...]]]


class CoinferBackend(Backend):  # type: ignore[misc]  # onnx has no types
    """coinfer as a backend of the ONNX standard.

    Options of `prepare`, `run_model` and `run_node`, by keyword:

    - `processors`: the processors to run on; by default one of onnxruntime with one thread on the
      device, or two of them if the model is cut.
    - `cuts`: cut the model at so many random places, or wherever it can be cut if these are fewer.
      What no processor supports together is cut in any case.
    - `seed`: the places, and the processor of each part, are drawn from it.

    >>> from onnx import parser
    >>> model = parser.parse_model('''<ir_version: 10, opset_import: ["": 20]>
    ... g (float[2] x) => (float[2] y) { a = Neg(x)  y = Relu(a) }''')
    >>> x = np.array([-1, 2], np.float32)
    >>> CoinferBackend.run_model(model, [x]).y
    array([1., 0.], dtype=float32)
    >>> with CoinferBackend.prepare(model, cuts=1) as prepared:
    ...     len(prepared.route.steps), prepared.run({"x": x})["y"].tolist()
    (2, [1.0, 0.0])
    """

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Tell whether coinfer takes a model; whether it can be compiled, only `prepare` knows."""
        _refuse_options(kwargs)
        try:
            _loaded(model)
        except ModelError:
            return False
        return cls.supports_device(device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Tell whether the installed onnxruntime has a device, such as `CPU` or `CUDA:1`."""
        kind = device.partition(":")[0]
        if kind == "CPU":
            return True
        return any(
            found.name.partition(":")[0] == kind for found in get_backend(_LIBRARY).devices()
        )

    @classmethod
    def prepare(
        cls,
        model: onnx.ModelProto,
        device: str = "CPU",
        *,
        processors: Sequence[Processor] | None = None,
        cuts: int = 0,
        seed: int = 0,
        **kwargs: Any,
    ) -> PreparedModel:
        """Load a model onto an engine.

        Args:
            model: The model with its weights.
            device: Where to run, if `processors` does not say it.
            processors: See the class.
            cuts: See the class.
            seed: See the class.
            kwargs: No further option is known.

        Raises:
            ModelError: the model is not valid, or takes or gives something that is not a tensor.
            BackendError: the processors cannot run it.
            ConfigurationError: an option or a device is not known.
        """
        _refuse_options(kwargs)
        if cuts < 0:
            raise ConfigurationError(f"cuts must not be negative, got {cuts}")
        if processors is None:
            processors = cls._processors(device, 2 if cuts else 1)
        if not processors:
            raise ConfigurationError("there are no processors; name one, or leave the option out")
        loaded = _loaded(model)
        if not cuts and len(processors) == 1 and not processors[0].declares_support:
            return PreparedModel(loaded, Route.whole(loaded, processors[0]))
        backends = {p.backend: get_backend(p.backend) for p in processors}
        return PreparedModel(
            loaded, Route.drawn(loaded, processors, backends, cuts=cuts, seed=seed)
        )

    @classmethod
    def run_model(
        cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any
    ) -> tuple[Any, ...]:
        """Prepare a model, run it once, and let it go.

        Raises:
            CoinferError: what `prepare` and `PreparedModel.run` raise.
        """
        with cls.prepare(model, device, **kwargs) as prepared:
            return prepared.run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: _OutputsInfo | None = None,
        *,
        opset_version: int | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one operator once.

        Args:
            node: The operator.
            inputs: Arrays in the order of the operator's inputs; those that it leaves out by an
                empty name are left out here too.
            device: Where to run.
            outputs_info: Dtype and shape of each output; None: they are inferred.
            opset_version: Version of the operator's domain; None: the newest that is released.
            kwargs: Options of `prepare`.

        Raises:
            CoinferError: what `prepare` and `PreparedModel.run` raise.
        """
        arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
        model = model_of_node(node, arrays, outputs_info, opset_version)
        return cls.run_model(model, arrays, device, **kwargs)

    @classmethod
    def _processors(cls, device: str, number: int) -> tuple[Processor, ...]:
        if not cls.supports_device(device):
            known = ", ".join(found.name for found in get_backend(_LIBRARY).devices())
            raise ConfigurationError(
                f"the installed onnxruntime has no device {device!r}, only {known}; name one of "
                f"these or give `processors`"
            )
        names = [f"p{at}" for at in range(number)]
        return tuple(
            Processor(name=name, backend=_LIBRARY, device=device, units=frozenset({name}))
            for name in names
        )


def _refuse_options(options: dict[str, Any]) -> None:
    if options:
        raise ConfigurationError(
            f"the backend has no option {min(options)!r}; it has processors, cuts and seed"
        )


def _loaded(model: onnx.ModelProto) -> Model:
    return model_from_bytes(model.SerializeToString(), name=model.graph.name or "model")
