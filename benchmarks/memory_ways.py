"""What `memory.py` runs in processes of their own: scripts that print one line of JSON."""

from __future__ import annotations

__all__ = ["HOLDERS", "beside", "cycles", "dense", "reload", "speed"]

_BEGIN = """
import gc, json, os, sys, threading, time
import numpy as np, psutil
from coinfer.backends import heap
folder, names = sys.argv[1], sys.argv[2].split(",")
each = max(1, 24 // len(names))
x = np.random.default_rng(0).standard_normal((1, 3, 224, 224), dtype=np.float32)
def held(serve):
    serve()
    began, rounds = time.perf_counter(), 0
    while time.perf_counter() < began + 4:
        serve()
        rounds += 1
    per_s = each * rounds * len(names) / (time.perf_counter() - began)
    found = psutil.Process().memory_full_info()
    gc.collect()
    heap.trim()
    after = psutil.Process().memory_full_info()
    kinds = {"anonymous": after.rss - after.shared, "mapped": after.shared}
    return {"uss": found.uss, "trimmed": after.uss, **kinds, "per_s": per_s}
def say(value):
    print(json.dumps(value))
"""

_ENGINE = """
import coinfer
models = {name: f"{folder}/{name.partition('@')[0]}.onnx" for name in names}
def serve():
    for future in [engine.submit(name, {"image": x}) for _ in range(each) for name in names]:
        future.result()
with coinfer.Engine(models, processors=processors) as engine:
    say(held(serve))
"""

_DEFAULT = """
processors = None
"""

_ONE_LIBRARY = """
from coinfer.machine.processor import Processor
processors = [
    Processor(name=f"cpu{n}", backend="onnxruntime", units=frozenset({f"core{n}"}), cores=(n,))
    for n in sorted(os.sched_getaffinity(0))
]
"""

_SESSIONS = """
import onnxruntime as ort
sessions = [ort.InferenceSession(f"{folder}/{name}.onnx") for name in names]
def serve():
    for _ in range(each):
        for session in sessions:
            session.run(None, {"image": x})
say(held(serve))
"""

_THROUGHPUT = """
import openvino as ov
core = ov.Core()
hint = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}
queues = []
for name in names:
    graph = core.read_model(f"{folder}/{name}.onnx")
    graph.reshape([1, 3, 224, 224])
    queues.append(ov.AsyncInferQueue(core.compile_model(graph, "CPU", hint)))
def serve():
    for _ in range(each):
        for queue in queues:
            queue.start_async({0: x})
    for queue in queues:
        queue.wait_all()
say(held(serve))
"""

_WITHOUT = """
import os
os.environ["COINFER_ARTEFACTS"] = "0"
"""

HOLDERS = {
    "coinfer": _BEGIN + _DEFAULT + _ENGINE,
    "coinfer, ONNX Runtime on each core": _BEGIN + _ONE_LIBRARY + _ENGINE,
    "coinfer, no artefacts": _WITHOUT + _BEGIN + _DEFAULT + _ENGINE,
    "onnxruntime sessions": _BEGIN + _SESSIONS,
    "OpenVINO, throughput": _BEGIN + _THROUGHPUT,
}
"""Who holds the weights of the networks."""

_BACKEND = (
    _BEGIN
    + """
from coinfer.backends import get_backend
from coinfer.backends.artefact_making import prepare
from coinfer.artefacts import default_store
from coinfer.machine.processor import Processor
from coinfer.model import load_model
which = sys.argv[3]
cpu = Processor(name="cpu", backend=which, units=frozenset({"core0"}))
backend = get_backend(which)
def loaded(name):
    model = load_model(f"{folder}/{name}.onnx")
    model.fingerprint  # an engine knows it, and the benchmark is not about it
    return model
def without(model, processor=cpu):
    os.environ["COINFER_ARTEFACTS"] = "0"
    try:
        return backend.load(model, processor)
    finally:
        os.environ["COINFER_ARTEFACTS"] = ""
"""
)

reload = (
    _BACKEND
    + """
def forget(files):  # what nobody maps, the system takes out of its page cache
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
def seconds(call):
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result
def read(files):
    for path in files:
        with open(path, "rb", buffering=0) as file:
            while file.read(2**20):
                pass
found = {}
for name in names:
    model = loaded(name)
    prepare(backend, model, cpu)
    digest = default_store().path(backend.artefact_parts(model, cpu))
    files = [path for path in digest.iterdir() if path.suffix != ".json"]
    rows = {"direct": [], "warm": [], "warm and run": [], "cold and run": [], "disk": []}
    for _ in range(int(sys.argv[4])):
        took, session = seconds(lambda: without(model))
        rows["direct"].append(took)
        session.close()
        took, session = seconds(lambda: backend.load(model, cpu))
        rows["warm"].append(took)
        rows["warm and run"].append(took + seconds(lambda: session.run({"image": x}))[0])
        session.close()
        del session
        gc.collect()
        forget(files)
        rows["disk"].append(seconds(lambda: read(files))[0])
        forget(files)
        took, session = seconds(lambda: backend.load(model, cpu))
        rows["cold and run"].append(took + seconds(lambda: session.run({"image": x}))[0])
        session.close()
        del session
    found[name] = {**rows, "bytes": sum(path.stat().st_size for path in files)}
say(found)
"""
)

speed = (
    _BACKEND
    + """
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
found = {}
for name in names:
    model = loaded(name)
    prepare(backend, model, cpu)
    ways = {"artefact": backend.load(model, cpu), "direct": without(model)}
    for session in ways.values():
        for _ in range(3):
            session.run({"image": x})
    found[name] = {way: [] for way in ways}
    for number in range(int(sys.argv[4])):
        for way in sorted(ways, reverse=bool(number % 2)):
            began = time.perf_counter()
            for _ in range(5):
                ways[way].run({"image": x})
            found[name][way].append((time.perf_counter() - began) / 5)
say(found)
"""
)

dense = (
    _BACKEND
    + """
def pause(call):  # the longest in which another Python thread did not run meanwhile
    stop, worst = threading.Event(), [0.0]
    def tick():
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            worst[0], last = max(worst[0], now - last), now
    thread = threading.Thread(target=tick)
    thread.start()
    time.sleep(0.02)
    worst[0] = 0.0
    began = time.perf_counter()
    result = call()
    took = time.perf_counter() - began
    stop.set()
    thread.join()
    return result, took, worst[0]
rounds, batches, found = int(sys.argv[4]), (1, 2, 4, 8, 16), {}
for name in names:
    model = loaded(name)
    prepare(backend, model, cpu)
    digest = default_store().path(backend.artefact_parts(model, cpu))
    files = [path for path in digest.iterdir() if path.suffix != ".json"]
    loads = {"direct": [], "artefact": []}
    for _ in range(rounds):
        for way, make in (("direct", without), ("artefact", lambda m: backend.load(m, cpu))):
            session, took, longest = pause(lambda: make(model))
            loads[way].append((took, longest))
            session.close()
            del session
    ways = {"direct": without(model), "artefact": backend.load(model, cpu)}
    runs = {way: {batch: [] for batch in batches} for way in ways}
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    for batch in batches:
        image = {"image": np.repeat(x, batch, axis=0)}
        for number in range(rounds + 1):
            for way in sorted(ways, reverse=bool(number % 2)):
                began = time.perf_counter()
                ways[way].run(image)
                if number:
                    runs[way][batch].append(time.perf_counter() - began)
    os.sched_setaffinity(0, cores)
    for session in ways.values():
        session.close()
    size = sum(path.stat().st_size for path in files)
    found[name] = {"bytes": size, "weights": model.weight_bytes, "loads": loads, "runs": runs}
say(found)
"""
)

cycles = (
    _BACKEND
    + """
model = loaded(names[0])
prepare(backend, model, cpu)
count, found = int(sys.argv[4]), []
for number in range(count):
    session = backend.load(model, cpu)
    session.run({"image": x})
    session.close()
    del session
    if number >= count // 10:  # what a library sets up once is there by then
        found.append(psutil.Process().memory_info().rss)
say(found)
"""
)

beside = (
    _BEGIN
    + """
import coinfer
from coinfer.machine.processor import Processor
cpus = [
    Processor(name=f"cpu{n}", backend="onnxruntime", units=frozenset({f"core{n}"}), cores=(n,))
    for n in range(2)
]
large, length_s = ("vgg16", "vgg19"), float(sys.argv[3])
models = {"urgent": f"{folder}/mobilenet_v2.onnx", **{name: f"zoo:{name}" for name in large}}
image = {"image": x}
def rival(engine, stop, loads):
    number = 0
    while not stop.is_set():
        # With room for one of the two each change loads 500 MiB; always the same one loads none.
        engine.infer(large[number % 2 if loads else 0], image)
        number += 1
        stop.wait(0.2)
def late_ms(engine):
    found, futures, began = [], [], time.perf_counter()
    for number in range(int(30 * length_s)):
        time.sleep(max(0.0, began + number / 30 - time.perf_counter()))
        sent = time.perf_counter()
        future = engine.submit("urgent", image, deadline_s=0.033)
        future.add_done_callback(
            lambda _, sent=sent: found.append(1e3 * (time.perf_counter() - sent))
        )
        futures.append(future)
    for future in futures:
        future.result()
    return found
def run(engine, loads):
    before, stop = engine.stats().memory.loads, threading.Event()
    thread = threading.Thread(target=rival, args=(engine, stop, loads))
    if loads is not None:
        engine.infer(large[0], image)
        thread.start()
    found = late_ms(engine)
    stop.set()
    if loads is not None:
        thread.join()
    return {"late_ms": found, "loads": engine.stats().memory.loads - before}
with coinfer.Engine(models, processors=cpus, memory="760MiB") as engine:
    rows = {"nothing": run(engine, None), "runs alone": run(engine, False)}
    rows["loads of 500 MiB"] = run(engine, True)
say(rows)
"""
)
