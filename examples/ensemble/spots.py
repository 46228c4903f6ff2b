"""A detector, a crop for each thing that it finds, and a classifier of the crops, as one request.

The networks are written into a model repository, out/spots; the classifier has random weights.
"""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir

import coinfer
from coinfer import zoo
from coinfer.ensembles import Ensemble, load_ensemble

DETECTOR = """<ir_version: 10, opset_import: ["" : 20]>
agraph (float[1,1,128,128] picture) => (float[1,1,4,4] heat)
    { heat = AveragePool<kernel_shape = [32,32], strides = [32,32]>(picture) }"""


def picture_with(count):
    """Draw a dark picture with some bright spots in it."""
    picture = np.zeros((1, 1, 128, 128), np.float32)
    random = np.random.default_rng(count)
    for cell in random.choice(16, count, replace=False):
        y, x = 32 * (cell // 4), 32 * (cell % 4)
        picture[0, 0, y + 4 : y + 28, x + 4 : x + 28] = random.random((24, 24))
    return picture


models = {name: Path("out/spots", name, "1/model.onnx") for name in ("detector", "classifier")}
for path in models.values():
    path.parent.mkdir(parents=True, exist_ok=True)
onnx.save(onnx.parser.parse_model(DETECTOR), models["detector"])
onnx_ir.save(zoo.build("lenet"), models["classifier"])

description = load_ensemble(Path(__file__).with_name("spots.yaml"))
with coinfer.Engine(models) as engine, Ensemble(description, engine, models) as spots:
    pictures = [picture_with(count) for count in (3, 0, 1, 5)]
    futures = [spots.submit({"picture": each}, deadline_s=1.0, priority=1) for each in pictures]
    for future in futures:
        answer = future.result()
        kinds = answer["logits"].argmax(axis=1)
        seen = [f"{kind} at {y},{x}" for kind, (y, x) in zip(kinds, answer["places"], strict=True)]
        print("; ".join(seen) or "nothing")
