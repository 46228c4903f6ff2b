"""Plain onnxruntime: what coinfer is compared with."""

from __future__ import annotations

from typing import Any

import onnx
import onnxruntime as ort

_SILENT = 4


class Plain:
    """A model in an `InferenceSession` of one thread, otherwise with its defaults."""

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, inputs: list[Any]) -> list[Any]:
        names = [value.name for value in self._session.get_inputs()]
        return list(self._session.run(None, dict(zip(names, inputs, strict=True))))
