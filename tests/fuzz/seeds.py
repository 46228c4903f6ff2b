"""Seeds: the sound files that cases are mutated from. Made by code, the same every time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np

__all__ = ["BASE", "make_seeds"]

BASE = {
    "run.yaml": """\
name: tiny
models:
  cnn: {source: "zoo:tiny_cnn", deadline: 50ms, on_late: drop, inputs: {images: photos}}
  mlp: {source: mlp.onnx, inputs: in.npz, batch: 2, priority: 2}
  other: "zoo:tiny_mlp"
arrivals:
  cnn: {periodic: 50/s, phase: 1ms, jitter: 2ms}
  mlp: {closed: 2}
  other: {after: cnn, probability: 0.5, count: {poisson: 2}}
duration: 0.1s
warmup: 0.02s
seed: 1
processors: [{name: a, backend: "null", units: [u]}, {name: b, backend: onnxruntime, cores: [0]}]
policy: {name: priority, options: {}}
admission_limit: 50
""",
    "cut.yaml": """\
models:
  branchy: {source: "zoo:tiny_branchy", partition: {mode: merged, pieces: 2}, dims: {}}
  open: {source: open.onnx, dims: {width: {4: 3, 8: 1}}, deadline: period}
arrivals: {branchy: {poisson: 20/s}, open: {periodic: 10/s}}
duration: 0.1s
processors:
- {name: a, backend: onnxruntime, cores: [0], threads: 1, unsupported_ops: [Add]}
- {name: n, backend: "null", units: [npu], supported_ops: [Conv, Relu, Add]}
precision: {allow: [bf16], tolerance: 0.05}
agreement: {tolerance: 0.01}
policy: earliest_finish
rate_factor: 0.5
""",
    "simulated.yaml": """\
name: simulated
machine: machine.yaml
models:
  A: {deadline: 30ms, on_late: drop}
  B: {priority: 3, batch: 1}
  C: {deadline: period}
arrivals:
  A: {gamma: 30/s, cv: 2}
  B: {trace: times.csv}
  C: {periodic: 25/s}
duration: 1s
warmup: 0.1s
policy: {name: two_queues}
""",
    "offline.yaml": """\
machine: machine.yaml
models: {A: {}, B: {}, C: {}}
arrivals: {offline: {counts: {A: 20, B: 30, C: 5}, order: shuffled}}
policy: {name: shortest_expected_latency}
""",
    "mix.yaml": """\
machine: machine.yaml
models: {A: {}, B: {}}
arrivals: {mix: {weights: {A: 2, B: 1}, in_flight: 4}}
duration: 1s
policy: {name: fixed, options: {assignment: {A: cpu, B: npu}}}
""",
    "machine.yaml": """\
name: board
processors:
  cpu: {device: core, units: [c0]}
  wide: {device: cores, units: [c0, c1]}
  npu: {precision: int8, one_model: true, load: 2ms, unsupported_ops: [Add]}
times:
  A: {cpu: 5ms, wide: 3ms, npu: 1ms}
  B: {cpu: {mean: 8ms, cv: 0.3, load: 1ms}, npu: 2ms}
  C: {cpu: 2ms, wide: 1500us}
topology: {cores: [{threads: ["0-1", "4-5"]}, {threads: ["2-3"], cache: 2, kind: efficiency}]}
widths: {many: {times: {A: {mean: 6ms, serial: 0.1, least: 1ms}}, factors: {2 caches: 1.1}}}
""",
    "processors.yaml": """\
processors:
- {name: cpu0, backend: onnxruntime, cores: [0]}
- {name: npu, backend: imagined, units: [npu], unsupported_ops: [Add, Gemm]}
""",
    "budget.yaml": """\
models:
  a: mlp.onnx
  b: {source: open.onnx, dims: {width: 4}}
  c: "zoo:tiny_mlp"
arrivals: {a: {closed: 1}, b: {poisson: 50/s}, c: {periodic: 20/s}}
duration: 0.1s
memory: {host: 300KiB}
fuse: never
processors: [{name: b, backend: onnxruntime, cores: [0]}]
""",
    "planned.yaml": """\
models: {mlp: mlp.onnx, open: {source: open.onnx, dims: {width: 4}}}
arrivals: {mlp: {poisson: 100/s}, open: {closed: 1}}
duration: 0.1s
""",
    "times.csv": "time_s,model\n0.1,B\n0.25,B\n0.5,B\n0.5,A\n",
}
"""Text files that others refer to."""

_TEXTS = {
    "branch": """agraph (float[N] x, bool c) => (float[N] y) { y = If (c) <
        then_branch = t () => (float[N] a) { a = Relu(x) },
        else_branch = e () => (float[N] b) { b = Neg(x) }> }""",
    "loop": """agraph (float[4] x) => (float[4] y) <int64 n = {3}, bool t = {1}> {
        y = Loop(n, t, x) <
        body = b (int64 i, bool go, float[4] v) => (bool on, float[4] w)
            { on = Identity(go) w = Mul(v, v) }> }""",
    "function": """<ir_version: 10, opset_import: ["" : 20, "own" : 1]>
        agraph (float[N,4] x) => (float[N,4] y) { y = own.twice(x) }
        <domain: "own", opset_import: ["" : 20]> twice (a) => (b) { b = Add(a, a) }""",
    "shapes": """agraph (float[N,3,H,W] x) => (float[A,B] y) <int64[2] s = {0, -1}> {
        t = Transpose<perm = [0, 2, 3, 1]>(x)  r = Relu(t)  y = Reshape(r, s) }""",
    "integers": """agraph (int64[N,3] i) => (int64[N,3] y, float[M] z) <int64[3] k = {1, 2, 3}> {
        y = Add(i, k)  f = Cast<to = 1>(y)  m = Constant<value_ints = [-1]>()
        z = Reshape(f, m) }""",
}


def make_seeds(folder: Path) -> None:
    """Write all seeds into a folder: `base`, `models`, `plan`, `results`, `logs`, `measured`."""
    base = folder / "base"
    base.mkdir(parents=True)
    for name, text in BASE.items():
        (base / name).write_text(text)
    _write_models(folder / "models")
    for name in ("mlp", "open"):
        (base / f"{name}.onnx").write_bytes((folder / "models" / f"{name}.onnx").read_bytes())
    _write_inputs(base)
    _write_plan(folder, base)
    _write_results(folder, base)
    _write_artefacts(folder / "artefacts")
    _write_measured(folder, base)


def _write_models(folder: Path) -> None:
    from coinfer import zoo
    from coinfer.model import model_from_ir
    from coinfer.testing import models as tiny

    folder.mkdir()
    made = [each.model for each in (*tiny.examples(), tiny.two_convs(), tiny.quantised_linear())]
    made += [tiny.unsupported()]
    made += [tiny.model_from_text(text, name=name) for name, text in _TEXTS.items()]
    names = {"cnn": "tiny_cnn", "mlp": "tiny_mlp", "branchy": "tiny_branchy"}
    made += [model_from_ir(zoo.build(name), name=short) for short, name in names.items()]
    text = "agraph (float[N,width] x) => (float[N,width] y) { a = Relu(x) y = Sigmoid(a) }"
    made.append(tiny.model_from_text(text, name="open"))
    for model in made:
        (folder / f"{model.name}.onnx").write_bytes(model.to_bytes())
    _write_external(folder)


def _write_external(folder: Path) -> None:
    import onnx

    proto = onnx.load(folder / "mlp.onnx")
    path = folder / "external.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)


def _write_inputs(base: Path) -> None:
    from PIL import Image

    rng = np.random.default_rng(0)
    np.savez(base / "in.npz", x=rng.standard_normal((4, 16), dtype=np.float32))
    (base / "photos").mkdir()
    for ending in ("png", "jpg", "bmp", "webp"):
        pixels = rng.integers(0, 255, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "photos" / f"a.{ending}")


def _write_plan(folder: Path, base: Path) -> None:
    from coinfer.machine.processor import Processor
    from coinfer.machine.profile import Measurement, Profile, ProfileKey
    from coinfer.model import load_model
    from coinfer.plan.plan_folder import save_plan
    from coinfer.planner.make_plan import given_plan
    from coinfer.planner.wishes import Wishes

    processors = [
        Processor(name="a", backend="null", units=frozenset({"u"})),
        Processor(name="b", backend="onnxruntime", units=frozenset({"core0"}), cores=(0,)),
    ]
    models = {name: load_model(base / f"{name}.onnx") for name in ("mlp", "open")}
    profile = Profile(
        {
            ProfileKey(model=model, processor=each.name): Measurement(seconds=(0.001, 0.0012))
            for model in models
            for each in processors
        }
    )
    wishes = Wishes(name="planned", sources={n: str(base / f"{n}.onnx") for n in models})
    save_plan(given_plan(models, processors, profile, wishes).plan, base / "plan")
    shutil.copytree(base / "plan", base / "other")


def _write_measured(folder: Path, base: Path) -> None:
    """Fill a cache, with the same times everywhere; the names of its files depend on libraries."""
    os.environ["COINFER_CACHE"] = str(folder / "measured")
    models = [str(base / f"{name}.onnx") for name in ("mlp", "open")]
    _coinfer("profile", *models, "--backend", "onnxruntime", "--output", str(folder / "p.json"))
    _coinfer("plan", *models, "--measure", "0.2s", "-o", str(folder / "planned"))
    for path in (folder / "measured").rglob("*.json"):
        found = json.loads(path.read_text())
        for entry in found.get("entries", ()) if isinstance(found, dict) else ():
            entry["seconds"] = [0.001] * len(entry["seconds"])
        path.write_text(json.dumps(found))


def _write_artefacts(folder: Path) -> None:
    """Fill a store with what no library made."""
    from coinfer.artefacts import ArtefactStore, Made

    def make(inner: Path) -> Made:
        (inner / "weights.bin").write_bytes(b"w" * 100)
        return Made({"takes": {"x": 3}})

    for name in ("a", "b", "c"):
        parts = {"backend": "onnxruntime", "precision": "fp32", "name": name}
        ArtefactStore(folder, 2**20).ensure(
            parts, make, model=name, expected_bytes=100, patience_s=1.0
        )


def _write_results(folder: Path, base: Path) -> None:
    results, logs = folder / "results", folder / "logs"
    results.mkdir()
    logs.mkdir()
    for name in ("simulated", "offline", "mix"):
        scenario = str(base / f"{name}.yaml")
        record, result = str(logs / f"{name}.jsonl"), results / f"{name}.json"
        _coinfer("simulate", scenario, "--json", str(result), "--record", record)
        _without_places(result, base)
    _coinfer("bound", str(base / "mix.yaml"), "--json", str(results / "bound.json"))
    _coinfer("plan", "--diff", str(base / "plan"), str(base / "plan"))


def _coinfer(*arguments: str) -> None:
    from coinfer.cli import main

    try:
        main(list(arguments))
    except SystemExit as exit_:
        if exit_.code:
            raise RuntimeError(f"{arguments} failed") from exit_


def _without_places(path: Path, base: Path) -> None:
    """Take out what differs between folders and machines, so that seeds are the same everywhere."""
    result = json.loads(path.read_text().replace(str(base), "."))
    result["environment"] = {"coinfer": "0", "cores": {"used": [0]}}
    path.write_text(json.dumps(result))
