"""A library call that never returns ends in one clear error, whatever it is measured for."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.hanging import Hanging
from coinfer.backends.base import Tensors
from coinfer.backends.onnxruntime import OnnxRuntimeBackend
from coinfer.backends.patience import VARIABLE, HangError
from coinfer.graph.partition import partition_at
from coinfer.graph.partition_options import Mode
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model
from coinfer.planner.border_values import Samples
from coinfer.profiling import Effort, Skip, profile_models
from coinfer.profiling.agreement import Agreement
from coinfer.profiling.agreements import agreements
from coinfer.profiling.batch_axis import counts_samples
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.cold import measure_cold
from coinfer.profiling.contention import measure_contention
from coinfer.profiling.deployment import Deployment, Rounds
from coinfer.testing.models import model_from_text, tiny_linear
from profiling.counting import processor

WAIT_S = 20.0
MODEL = tiny_linear().model.renamed("net")
BRIEF = Rounds(min_rounds=3, max_s=0.0)
HANGS = r"running model 'net' on processor 'npu' has not returned for 0\.3 s.*" + VARIABLE


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(VARIABLE, "0.3")
    yield
    Stuck.go_on.set()
    for backend in HANGING:
        backend.go_on.set()
    for thread in threading.enumerate():
        if thread.name in ("coinfer-library", "coinfer-profiler", "coinfer-neighbour"):
            thread.join(WAIT_S)
    HANGING.clear()
    Stuck.go_on.clear()


HANGING: list[Hanging] = []


def hanging(runs: int) -> Hanging:
    HANGING.append(Hanging("run", runs=runs))
    return HANGING[-1]


def deployed(backend: Hanging, *processors: Processor) -> Deployment:
    return Deployment(
        models={"net": MODEL, "other": MODEL.renamed("other")},
        processors=processors,
        profile=Profile.from_seconds(
            {"net": dict.fromkeys([p.name for p in processors], 1e-3), "other": {"cpu": 1e-3}}
        ),
        feeds={name: [MODEL.sample_inputs()] for name in ("net", "other")},
        effort=BRIEF,
        backends={"null": backend},
    )


@pytest.mark.parametrize("runs", [0, 1, 2])
@pytest.mark.parametrize("measure", [measure_cold, measure_contention])
@pytest.mark.parametrize("names", [("cpu", "npu"), ("npu", "cpu")])
def test_what_hangs_beside_others_or_after_a_rest_is_said(
    measure: Callable[[Deployment], Any], names: tuple[str, ...], runs: int
) -> None:
    backend = hanging(runs)
    processors = [processor(name, name) for name in names]
    loads: list[str] = []
    load = backend.load
    backend.load = lambda model, where: loads.append(where.name) or load(model, where)  # type: ignore[method-assign,func-returns-value]
    with pytest.raises(HangError, match=HANGS):
        measure(deployed(backend, *processors))
    assert backend.closed.count("npu") == loads.count("npu") - 1


def test_the_thread_beside_one_that_hangs_ends_soon() -> None:
    backend = hanging(1)
    with pytest.raises(HangError):
        measure_contention(deployed(backend, processor("npu", "npu"), processor("cpu", "cpu")))
    for thread in threading.enumerate():
        if thread.name == "coinfer-neighbour":
            thread.join(WAIT_S)
            assert not thread.is_alive()


class Stuck(OnnxRuntimeBackend):
    """onnxruntime, but a run on inputs of some kind hangs."""

    go_on = threading.Event()

    def __init__(self, name: str, hangs: Callable[[Tensors, Processor], bool]) -> None:
        self.name, self.hangs = name, hangs
        self.closed: list[str] = []
        self.runs = 0

    def versions(self) -> Mapping[str, str]:
        return {self.name: "1"}

    def load(self, model: Model, processor: Processor) -> Any:
        session: Any = super().load(model, dataclasses.replace(processor, precision="fp32"))
        run, close = session.run, session.close

        def stuck(feed: Tensors) -> Any:
            self.runs += 1
            if self.hangs(feed, processor):
                assert self.go_on.wait(60.0)
            return run(feed)

        def closed() -> None:
            self.closed.append(processor.name)
            close()

        session.run, session.close = stuck, closed
        return session


OTHER = Processor(name="npu", backend="other", units=frozenset({"u"}))
CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"cpu"}))


def not_finite(feed: Tensors, _processor: Processor) -> bool:
    return any(not np.isfinite(array).all() for array in feed.values())


def always(_feed: Tensors, _processor: Processor) -> bool:
    return True


def agreed(*backends: Stuck, cache: ProfileCache | None = None) -> Agreement:
    by_name = {backend.name: backend for backend in backends}
    processors = [OTHER, CPU] if "onnxruntime" in by_name else [OTHER]
    return agreements(MODEL, processors, 1e-3, cache=cache, backends=by_name)["npu"]


@pytest.mark.parametrize("hangs", [always, not_finite])
def test_a_processor_that_hangs_on_the_samples_is_not_used_for_the_model(
    hangs: Callable[..., bool], tmp_path: Path
) -> None:
    cache, backend = ProfileCache(tmp_path), Stuck("other", hangs)
    found = agreed(backend, cache=cache)
    assert "'net' on processor 'npu' has not returned" in found.why
    assert found.error == np.inf
    assert backend.closed == []
    # Another time it may not hang: that is not kept.
    assert agreed(Stuck("other", lambda *_: False), cache=cache) == Agreement(error=0.0)


def test_a_reference_that_hangs_is_not_the_reference() -> None:
    reference = Stuck("onnxruntime", always)
    found = agreed(Stuck("other", lambda *_: False), reference)
    assert found.error == 0.0
    assert "npu, because onnxruntime cannot run it: running model 'net'" in found.reference
    assert reference.closed == []


def test_where_the_reference_hangs_on_numbers_that_are_not_finite_nothing_is_compared() -> None:
    reference = Stuck("onnxruntime", not_finite)
    found = agreed(Stuck("other", lambda *_: False), reference)
    assert found == Agreement(error=0.0)
    assert reference.runs == 3  # one that hangs is not asked again
    assert reference.closed == []


def test_whether_an_axis_is_the_batch_is_asked_elsewhere_if_a_library_hangs(
    tmp_path: Path,
) -> None:
    model = model_from_text(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }""",
        name="net",
    )
    two = [model.sample_inputs(seed=seed) for seed in (1, 2)]
    for hangs in (always, lambda feed, _p: len(feed["x"]) == 2):
        backend = Stuck("other", hangs)
        backends = {"other": backend, "onnxruntime": Stuck("onnxruntime", lambda *_: False)}
        cache = ProfileCache(tmp_path)
        assert counts_samples(model, [OTHER, CPU], backends, lambda: [two], cache)
        assert backend.closed == []
        # Nothing is kept of a library that hangs.
        assert counts_samples(
            model, [OTHER], {"other": Stuck("other", always)}, lambda: [two], cache
        )


def test_an_output_error_below_fp32_whose_reference_hangs_is_a_reason_to_skip() -> None:
    npu = Processor(name="npu", backend="other", units=frozenset({"u"}), precision="fp16")
    backend = Stuck("other", lambda _feed, where: where.precision == "fp32")
    skips: list[Skip] = []
    measured = profile_models(
        {"net": MODEL},
        [npu],
        effort=Effort(warmup_runs=1, min_runs=2, max_runs=2),
        backends={"other": backend},
        skipped=skips.append,
    )
    assert measured.processors() == ()
    [skip] = skips
    assert "'net' on processor 'npu' has not returned" in skip.reason


def test_values_at_borders_come_from_another_processor_if_a_library_hangs() -> None:
    chain = model_from_text(
        """<ir_version: 10, opset_import: ["": 20]>
        g (float[1, 3] x) => (float[1, 3] z) { y = Relu(x) z = Neg(y) }""",
        name="net",
    )
    everything = {name: frozenset((0, 1)) for name in ("npu", "cpu")}
    partition = partition_at(chain, (1,), everything, mode=Mode.UNIT)
    cpu = Processor(name="cpu", backend="cpu", units=frozenset({"cpu"}))
    backends = {"other": Stuck("other", always), "cpu": Stuck("cpu", lambda *_: False)}
    feed = chain.sample_inputs()
    samples = Samples(chain, partition, [OTHER, cpu], backends, [feed])
    [values] = samples.of(partition.whole._replace(first=1))
    np.testing.assert_array_equal(values["y"], np.maximum(feed["x"], 0))
    assert backends["other"].closed == []
