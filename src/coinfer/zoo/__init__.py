"""The reference architectures as ONNX models, built from code with seeded random weights.

Nothing is downloaded and nothing is trained. Knows nothing of processors, profiles or backends.

>>> from coinfer import zoo
>>> zoo.spec("mobilenet_v2").parameters
3504872
>>> model = zoo.build("tiny_cnn", seed=1)
>>> str(model.graph.inputs[0].shape)
'[batch,3,32,32]'
"""

from __future__ import annotations

from coinfer.zoo.files import export
from coinfer.zoo.registry import ZooEntry, build, names, sample_inputs, spec

__all__ = ["ZooEntry", "build", "export", "names", "sample_inputs", "spec"]
