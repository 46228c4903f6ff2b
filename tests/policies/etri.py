"""The measured table of the ETRI study: three networks on four processors, and its priorities."""

from __future__ import annotations

MODELS = ("mobilenet_v2", "resnet50", "resnet101")
_MS = {
    "cpu": (86.355, 582.072, 1201.923),
    "ncs2": (27.459, 50.743, 94.509),
    "tpu": (3.393, 54.086, 108.260),
    "npu": (10.499, 21.345, 31.770),
}
SECONDS = {
    model: {name: row[at] / 1e3 for name, row in _MS.items()} for at, model in enumerate(MODELS)
}
PRIORITIES = {
    "cpu": {"mobilenet_v2": 1, "resnet50": 3, "resnet101": 2},
    "ncs2": {"resnet101": 1},
    "tpu": {"mobilenet_v2": 1, "resnet50": 3, "resnet101": 2},
    "npu": {"mobilenet_v2": 2, "resnet50": 1, "resnet101": 3},
}
PROCESSORS = tuple(_MS)
BOUND_PER_S = 101.057
"""Most inferences per second in equal mix (linear program)."""
