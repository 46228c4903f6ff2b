"""The smallest program: two networks on the processors of this machine, one with a deadline."""

import numpy as np

import coinfer

# Your own networks: {"detector": "detector.onnx", ...}. The first start measures them.
with coinfer.Engine({"vision": "zoo:tiny_cnn", "control": "zoo:tiny_mlp"}) as engine:
    picture = {"image": np.zeros((1, 3, 32, 32), np.float32)}
    seen = engine.submit("vision", picture, deadline_s=0.5, on_late="drop")
    moved = engine.submit("control", {"x": np.ones((1, 16), np.float32)}, priority=1)
    print("vision: ", seen.result()["logits"].argmax())
    print("control:", moved.result()["logits"].argmax())
