"""What coinfer makes of a GPU, beside other ways to use it, in one run of at most eight minutes.

    python benchmarks/gpu.py [--parts a,b,c,d,e,f,o] [--seconds 420] [--output FOLDER]
    python benchmarks/gpu.py --device cpu --tiny        # shows that it works, without a GPU

Prints the card and markdown tables, and writes `gpu.json` and `gpu.md`. Needs Python, torch, numpy,
scipy, onnx, onnx_ir, onnxruntime and coinfer's small dependencies; says at once which are missing.

Parts: a errors against onnxruntime on the CPU; b many networks of one architecture; c urgent
requests beside loops; d decomposed networks, a process each or in threads; e three networks in
equal mix; f more networks than memory; o what an execution costs beyond a graph's replay.
Contestants take turns in rounds.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_NEEDED = (
    *("numpy", "scipy", "torch", "onnx", "onnx_ir", "onnxruntime"),
    *("pydantic", "yaml", "psutil", "platformdirs"),
)
_MISSING = [name for name in _NEEDED if find_spec(name) is None]
if _MISSING:
    raise SystemExit(f"missing here: {', '.join(_MISSING)}; carry their wheels along")

import numpy as np  # noqa: E402
import torch  # noqa: E402

import coinfer  # noqa: E402
from coinfer.backends import get_backend  # noqa: E402
from coinfer.backends.base import Session  # noqa: E402
from coinfer.backends.torch.program import Program  # noqa: E402
from coinfer.errors import CoinferError  # noqa: E402
from coinfer.graph.fusing.fused_model import FusedModel, fuse_models  # noqa: E402
from coinfer.machine.processor import Processor, ordinary  # noqa: E402
from coinfer.model import Model  # noqa: E402
from gpu_groups import part_d  # noqa: E402
from gpu_peers import PEERS, GraphsOnStreams, Peer, UrgentGraph, translated  # noqa: E402
from gpu_setting import (  # noqa: E402
    MOST_OFF,
    Setting,
    Table,
    error_of,
    feed_of,
    reference,
    turns,
    zoo,
)

SHARES = {"a": 0.08, "b": 0.38, "c": 0.13, "d": 0.16, "e": 0.08, "f": 0.13, "o": 0.04}
"""Of the time, by part."""


def part_a(setting: Setting, seconds: float) -> Iterator[Table]:
    names = (
        ["lenet", "tiny_encoder"]
        if setting.is_tiny
        else [
            *("mobilenet_v2", "resnet50", "resnext50", "inception_v3", "densenet201"),
            *("squeezenet1_1", "vgg16", "alexnet", "bert_base"),
        ]
    )
    ends = time.perf_counter() + seconds
    backend = get_backend("torch")
    device = next(d for d in backend.devices() if d.name == setting.first.device)
    table = Table("Relative error against onnxruntime on the CPU", ["network", *device.precisions])
    for name in names:
        if time.perf_counter() > ends:
            table.notes.append("The time was over before the other networks")
            break
        model, feed = zoo(name), feed_of(name, 1)
        wanted, row = reference(model, feed), [name]
        for precision in device.precisions:
            where = Processor(
                name="it",
                backend="torch",
                device=device.name,
                units=frozenset({"it"}),
                precision=precision,
            )
            with closing(backend.load(model, where)) as session:
                row.append(f"{error_of(session.run(feed), wanted):.1e}")
        table.rows.append(row)
    yield table


def part_b(setting: Setting, seconds: float) -> Iterator[Table]:
    networks = (
        ["tiny_cnn"] if setting.is_tiny else ["resnet50", "bert_base", "resnext50", "distilbert"]
    )
    counts = [1, 2, 4] if setting.is_tiny else [1, 2, 4, 8, 16, 32]
    begun = time.perf_counter()
    for number, name in enumerate(networks, start=1):
        arms = [*PEERS, "fused", "coinfer"]
        table = Table(
            f"{name}: milliseconds for one request of each of M networks",
            ["M", *arms, "over sequence", "over the best apart"],
        )
        models: list[Model] = []
        programs: list[Program] = []
        for count in counts:
            left_s = begun + seconds * number / len(networks) - time.perf_counter()
            if left_s <= 0 and models:
                table.notes.append(f"The time was over before M = {count}")
                break
            models += [zoo(name, seed) for seed in range(len(models), count)]
            programs += translated(models[len(programs) :], setting.device)
            # The last count takes as long as all others together.
            times, notes = _tenants(setting, name, models, programs, max(1.0, left_s / 4))
            table.notes += [note for note in notes if note not in table.notes]
            middle = {arm: statistics.median(found) for arm, found in times.items()}
            ours = min(middle.get(arm, np.inf) for arm in ("fused", "coinfer"))
            apart = min(found for arm, found in middle.items() if arm in PEERS)
            texts = [f"{middle[arm] * 1e3:.2f}" if arm in middle else "-" for arm in arms]
            ratios = [f"{middle['in sequence'] / ours:.2f}x", f"{apart / ours:.2f}x"]
            table.rows.append([str(count), *texts, *ratios])
        yield table


def _tenants(
    setting: Setting,
    name: str,
    models: Sequence[Model],
    programs: Sequence[Program],
    seconds: float,
) -> tuple[dict[str, list[float]], list[str]]:
    """Time each way to answer one request of each network; return times and what is to be known."""
    feeds = [feed_of(name, seed) for seed in range(len(models))]
    wanted = reference(models[-1], feeds[-1])
    notes: list[str] = []
    contestants: dict[str, Callable[[], object]] = {}

    def enter(arm: str, run: Callable[[], Sequence[Mapping[str, np.ndarray]]]) -> None:
        error = error_of(run()[-1], wanted)
        if error > MOST_OFF:
            notes.append(f"{arm} is left out: its relative error is {error:.1e}")
        else:
            contestants[arm] = run

    for arm, kind in PEERS.items():
        if kind.needs_gpu and setting.device.type == "cpu":
            continue
        try:
            enter(arm, _round_of(kind(models, setting.device, programs), feeds))
        except (ValueError, RuntimeError) as error:
            notes.append(f"{arm}: {str(error).splitlines()[0]}")
    with ExitStack() as stack:
        try:
            fused = fuse_models(models)
            session = get_backend("torch").load(fused.model, setting.first)
            stack.callback(session.close)
            enter("fused", _fused_round(session, fused, feeds))
        except CoinferError as error:
            notes.append(f"fused: {error}")
        # Planning takes part of the time; it is not what is timed.
        engine = stack.enter_context(
            coinfer.Engine(
                {model.name: model for model in models},
                processors=setting.processors,
                measure_s=seconds / 2,
            )
        )

        def served() -> list[Mapping[str, np.ndarray]]:
            pairs = zip(models, feeds, strict=True)
            answers = [engine.submit(model.name, feed) for model, feed in pairs]
            return [answer.result() for answer in answers]

        enter("coinfer", served)
        times = turns(contestants, seconds / 2)
        contestants.clear()
    _empty(setting)
    return times, notes


def _round_of(peer: Peer, feeds: Sequence[Mapping[str, np.ndarray]]) -> Callable[[], Any]:
    return lambda: peer.round(feeds)


def _fused_round(
    session: Session, fused: FusedModel, feeds: Sequence[Mapping[str, np.ndarray]]
) -> Callable[[], Any]:
    together = fused.inputs_of(feeds)
    return lambda: fused.outputs_of(session.run(together))


def part_c(setting: Setting, seconds: float) -> Iterator[Table]:
    urgent, loops = (
        ("tiny_cnn", ["lenet", "tiny_mlp"])
        if setting.is_tiny
        else (
            "mobilenet_v2",
            ["resnet101", "vgg19"],
        )
    )
    table = Table(
        f"{urgent} 30 times a second beside loops of {' and '.join(loops)}",
        ["way", "p50 ms", "p99 ms", "loops per second"],
    )
    names = [urgent, *loops]
    models, feeds = [zoo(name) for name in names], [feed_of(name, 1) for name in names]
    kind = GraphsOnStreams if setting.device.type == "cuda" else PEERS["in sequence"]
    alone = [kind([model], setting.device, translated([model], setting.device)) for model in models]
    for peer, feed in zip(alone, feeds, strict=True):
        peer.round([feed])
    ways: dict[str, tuple[Callable[[], object], list[Callable[[], object]]]] = {}
    runs = [
        (lambda peer=peer, feed=feed: peer.round([feed]))
        for peer, feed in zip(alone, feeds, strict=True)
    ]
    ways["alone"] = (runs[0], [])
    ways["threads"] = (runs[0], runs[1:])
    if setting.device.type == "cuda":
        urgent_peer = UrgentGraph(models[:1], setting.device, alone[0].programs)
        urgent_peer.round(feeds[:1])
        ways["threads, stream of high priority"] = (lambda: urgent_peer.round(feeds[:1]), runs[1:])
    else:
        table.notes.append("A CPU has no streams, and so none of high priority")
    each_s = seconds / (len(ways) + 2)
    with coinfer.Engine(
        {model.name: model for model in models},
        processors=(*setting.processors, *setting.express),
        measure_s=10,
    ) as engine:
        name = models[0].name
        ways["coinfer"] = (
            lambda: engine.submit(name, feeds[0], deadline_s=1 / 30, priority=1).result(),
            [
                (lambda model=model, feed=feed: engine.infer(model.name, feed))
                for model, feed in zip(models[1:], feeds[1:], strict=True)
            ],
        )
        for way, (run, others) in ways.items():
            table.rows.append(_urgent_row(way, run, others, each_s))
    # Last, because a GPU is split for the rest of the process.
    if setting.device.type != "cuda":
        table.notes.append("A CPU has no shares of multiprocessors")
        yield table
        return
    try:
        with _on_shares(models[:1], models[1:]) as (first, second):
            run = partial(first.infer, name, feeds[0])
            others = [
                partial(second.infer, model.name, feed)
                for model, feed in zip(models[1:], feeds[1:], strict=True)
            ]
            table.rows.append(_urgent_row("coinfer, half of the SMs each", run, others, each_s))
    except CoinferError as error:
        table.notes.append(f"No shares of multiprocessors: {error}")
    yield table


def _urgent_row(
    way: str, run: Callable[[], object], others: Sequence[Callable[[], object]], seconds: float
) -> list[str]:
    latencies, rate = _beside(run, others, seconds)
    p50, p99 = np.percentile(latencies, [50, 99]) * 1e3
    return [way, f"{p50:.2f}", f"{p99:.2f}", f"{rate:.1f}"]


@contextmanager
def _on_shares(*groups: Sequence[Model]) -> Iterator[list[coinfer.Engine]]:
    """Run each group of models on a share of the first GPU of its own."""
    with ExitStack() as stack:
        engines = []
        for at, group in enumerate(groups, 1):
            share = f"{at}of{len(groups)}"
            processor = Processor(
                name=f"gpu0_{share}",
                backend="torch",
                device="CUDA:0",
                units=frozenset({share}),
                options={"share": share},
            )
            engine = coinfer.Engine(
                {model.name: model for model in group}, processors=[processor], measure_s=5
            )
            engines.append(stack.enter_context(engine))
        yield engines


def _beside(
    run: Callable[[], object], others: Sequence[Callable[[], object]], seconds: float
) -> tuple[list[float], float]:
    """Run one 30 times a second and others in loops; return its latencies and their rate."""
    over = threading.Event()
    counts = [0] * len(others)

    def loop(at: int) -> None:
        while not over.is_set():
            others[at]()
            counts[at] += 1

    threads = [threading.Thread(target=loop, args=(at,)) for at in range(len(others))]
    for thread in threads:
        thread.start()
    latencies = []
    begun = time.perf_counter()
    for number in range(max(10, int(seconds * 30))):
        due = begun + number / 30
        time.sleep(max(0.0, due - time.perf_counter()))
        run()
        latencies.append(time.perf_counter() - due)
    over.set()
    for thread in threads:
        thread.join()
    return latencies, sum(counts) / (time.perf_counter() - begun)


def part_e(setting: Setting, seconds: float) -> Iterator[Table]:
    names = (
        ["lenet", "tiny_cnn", "tiny_mlp"]
        if setting.is_tiny
        else ["mobilenet_v2", "resnet50", "resnet101"]
    )
    models, feeds = [zoo(name) for name in names], [feed_of(name, 1) for name in names]
    table = Table("Three networks in equal mix: inferences per second", ["way", "per second"])
    kind = GraphsOnStreams if setting.device.type == "cuda" else PEERS["in sequence"]
    peers = [kind([model], setting.device, translated([model], setting.device)) for model in models]
    repeats = 4

    def threads() -> None:
        def loop(at: int) -> None:
            for _ in range(repeats):
                peers[at].round([feeds[at]])

        started = [threading.Thread(target=loop, args=(at,)) for at in range(len(models))]
        for each in started:
            each.start()
        for each in started:
            each.join()

    with coinfer.Engine(
        {model.name: model for model in models}, processors=setting.processors, measure_s=10
    ) as engine:

        def served() -> None:
            pairs = list(zip(models, feeds, strict=True)) * repeats
            for answer in [engine.submit(model.name, feed) for model, feed in pairs]:
                answer.result()

        times = turns({"a thread and stream each": threads, "coinfer": served}, seconds)
    done = repeats * len(models)
    for way, found in times.items():
        table.rows.append([way, f"{done / statistics.median(found):.1f}"])
    yield table


def part_f(setting: Setting, seconds: float) -> Iterator[Table]:
    name, count = ("lenet", 8) if setting.is_tiny else ("resnet50", 40)
    models = {f"m{seed}": zoo(name, seed).renamed(f"m{seed}") for seed in range(count)}
    feed = feed_of(name, 1)
    size = sum(model.weight_bytes for model in models.values())
    size = max(size, count * 2**21) if setting.is_tiny else size  # a session takes more than that
    memory = setting.first.device if setting.device.type == "cuda" else "host"
    generator = np.random.default_rng(0)
    # Zipf: few networks are asked often, most seldom.
    chances = 1 / np.arange(1, count + 1)
    order = generator.choice(count, 4 * count, p=chances / chances.sum())
    table = Table(
        f"{count} networks like {name} in {size / 2**20:.0f} MiB and less, by Zipf's law",
        ["memory", "ms per request", "loads", "believed MiB", "held MiB"],
    )
    table.notes.append("Held: by the library's own count; nobody counts on the CPU")
    for share in (1.5, 0.4, 0.25):
        limit = {memory: int(size * share)}
        options: dict[str, Any] = {"memory": limit} if share < 1 else {}
        with coinfer.Engine(
            models, processors=[setting.first], measure_s=seconds / 6, fuse="never", **options
        ) as engine:
            ends = time.perf_counter() + seconds / 6
            started, done = time.perf_counter(), 0
            for at in np.tile(order, 50):
                engine.infer(f"m{at}", feed)
                done += 1
                if time.perf_counter() > ends and done >= count:
                    break
            each_s = (time.perf_counter() - started) / done
            stats = engine.stats().memory
        use = stats.devices.get(memory)
        believed = stats.resident_bytes.get(memory)
        table.rows.append(
            [
                f"{share:.0%}" if share < 1 else "ample",
                f"{each_s * 1e3:.2f}",
                f"{stats.loads}",
                "" if believed is None else f"{believed / 2**20:.0f}",
                "" if use is None else f"{use.held_bytes / 2**20:.0f}",
            ]
        )
        _empty(setting)
    yield table


def part_o(setting: Setting, seconds: float) -> Iterator[Table]:
    name = "tiny_cnn" if setting.is_tiny else "mobilenet_v2"
    model, feed = zoo(name), feed_of(name, 1)
    kind = PEERS["graphs" if setting.device.type == "cuda" else "in sequence"]
    peer = kind([model], setting.device, translated([model], setting.device))
    session = get_backend("torch").load(model, setting.first)
    with (
        closing(session),
        coinfer.Engine({model.name: model}, processors=[setting.first], measure_s=5) as engine,
    ):
        times = turns(
            {
                "by hand": lambda: peer.round([feed]),
                "session": lambda: session.run(feed),
                "engine": lambda: engine.infer(model.name, feed),
            },
            seconds,
        )
    bare = statistics.median(times["by hand"])
    table = Table(f"What an execution of {name} costs", ["way", "us", "beyond by hand, us"])
    for way, found in times.items():
        middle = statistics.median(found)
        table.rows.append([way, f"{middle * 1e6:.0f}", f"{(middle - bare) * 1e6:+.0f}"])
    yield table


PARTS = {"a": part_a, "b": part_b, "c": part_c, "d": part_d, "e": part_e, "f": part_f, "o": part_o}


def main() -> int:
    """Run the parts; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--parts", default=",".join(PARTS), help="which, e.g. a,b")
    parser.add_argument("--seconds", type=float, default=420.0, help="for all of them")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks, few of them")
    parser.add_argument("--output", type=Path, help="a folder for gpu.json and gpu.md")
    options = parser.parse_args()
    parts = [part for part in options.parts.split(",") if part]
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"there is no part {unknown[0]}; there are {', '.join(PARTS)}")
    setting = _setting(options.device, options.tiny)
    lines = _machine_lines(setting)
    print("\n".join(lines), flush=True)
    shares = sum(SHARES[part] for part in parts)
    results: dict[str, Any] = {"machine": lines, "tables": []}
    texts, failed = [*lines, ""], []
    for part in parts:
        started = time.perf_counter()
        try:
            for table in PARTS[part](setting, options.seconds * SHARES[part] / shares):
                texts += [table.markdown(), ""]
                print("\n" + table.markdown(), flush=True)
                results["tables"].append({"part": part, **vars(table)})
        except Exception as error:  # noqa: BLE001  # the other parts are worth having
            failed.append(part)
            print(f"part {part} failed: {type(error).__name__}: {error}", file=sys.stderr)
        print(f"\n(part {part}: {time.perf_counter() - started:.0f} s)", flush=True)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "gpu.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
        (options.output / "gpu.md").write_text("\n".join(texts), encoding="utf-8")
    return 1 if failed else 0


def _setting(device: str, is_tiny: bool) -> Setting:
    if device == "cpu":
        torch.set_num_threads(1)  # as many as coinfer's processor has
        cpu = Processor(name="torch0", backend="torch", units=frozenset({"core0"}))
        return Setting(device=torch.device("cpu"), is_tiny=is_tiny, processors=(cpu,))
    found = coinfer.hardware.default_processors(["torch"], preempt=True)
    everyone = tuple(each for each in found if each.device == "CUDA:0")
    gpus, express = ordinary(everyone), tuple(each for each in everyone if each.overlays)
    if not gpus:
        raise SystemExit("no GPU that torch can use; see `coinfer doctor`, or give --device cpu")
    return Setting(device=torch.device("cuda:0"), is_tiny=is_tiny, processors=gpus, express=express)


def _machine_lines(setting: Setting) -> list[str]:
    versions = (
        f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version.split()[0]}"
    )
    if setting.device.type == "cpu":
        return ["On the CPU, without a GPU: this shows that it works, and no more", versions]
    card = torch.cuda.get_device_properties(setting.device)
    return [
        f"{card.name}: {card.multi_processor_count} SMs, {card.total_memory / 2**30:.0f} GiB",
        versions,
    ]


def _empty(setting: Setting) -> None:
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()


if __name__ == "__main__":
    sys.exit(main())
