"""Variants: planned beside their model, kept, run and simulated; what does not fit is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from coinfer.api import Engine
from coinfer.artefacts.settings import VARIABLE as ARTEFACTS
from coinfer.cache_folder import VARIABLE as CACHE
from coinfer.errors import CoinferError, ConfigurationError, ModelError, ScenarioError
from coinfer.experiments.certificate import certify
from coinfer.machine.processor import Processor
from coinfer.machine.variant_use import Use
from coinfer.plan.difference import differences
from coinfer.plan.plan import Plan
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.plan.variant import Kind
from coinfer.planner.compressing import variant_maker
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.planned_scenario import planned_scenario
from coinfer.planner.prepare import prepare
from coinfer.profiling import Effort, Profiler, default_cache
from coinfer.runtime.play import play
from coinfer.sim.simulate import simulate
from coinfer.workload.scenario import Scenario
from coinfer.workload.scenario_file import load_scenario

WIDTH = 384
CPU = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
WAIT_S = 20.0


def network(path: Path, matrices: list[np.ndarray[Any, Any]], output: str = "y") -> None:
    """Write x @ M1 @ M2 ... as a file."""
    nodes, held, value = [], [], "x"
    for at, matrix in enumerate(matrices):
        held.append(numpy_helper.from_array(matrix.astype(np.float32), f"m{at}"))
        result = output if at == len(matrices) - 1 else f"v{at}"
        nodes.append(helper.make_node("MatMul", [value, f"m{at}"], [result]))
        value = result
    sizes = ["batch", WIDTH]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, sizes)],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def redundant(path: Path) -> None:
    """Write two 3x3 convolutions of 128 channels whose weights are of rank 16 on both sides."""
    rng = np.random.default_rng(0)
    held = []
    for at in range(2):
        outputs, inputs = rng.normal(size=(2, 128, 16)) / 16**0.5
        core = rng.normal(size=(16, 16, 3, 3)) / 144**0.5
        weight = np.einsum("or,rskl,is->oikl", outputs, core, inputs).astype(np.float32)
        held.append(numpy_helper.from_array(weight, f"w{at}"))
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["a"], **pads),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "w1"], ["y"], **pads),
    ]
    sizes = ["batch", 128, 16, 16]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of six matrices, and what they are multiplied out, exactly and nearly."""
    path = tmp_path_factory.mktemp("networks")
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5 for _ in range(6)]
    whole = np.linalg.multi_dot(matrices)
    network(path / "net.onnx", matrices)
    network(path / "fast.onnx", [whole])
    network(path / "near.onnx", [whole * 1.01])
    network(path / "far.onnx", [whole * 1.5])
    network(path / "slow.onnx", [*matrices, np.eye(WIDTH), np.eye(WIDTH), np.eye(WIDTH)])
    network(path / "other.onnx", [whole], output="z")
    np.savez(path / "samples.npz", x=rng.normal(size=(6, WIDTH)).astype(np.float32))
    return path


def wanted(folder: Path, variants: object, **changed: Any) -> Scenario:
    model = {
        "source": str(folder / "net.onnx"),
        "inputs": {"npz": str(folder / "samples.npz")},
        "deadline": "2ms",
        "batch": "off",
        "variants": variants,
    }
    described = {"name": "cpu0", "backend": "onnxruntime", "units": ["core0"]}
    data = {
        "models": {"net": model},
        "arrivals": {"net": {"poisson": 20}},
        "duration": "1s",
        "warmup": "0s",
        "processors": [described],
        **changed,
    }
    return Scenario.model_validate(data)


def planned(folder: Path, variants: object) -> Plan:
    return prepare(wanted(folder, variants), profiler()).plan


def profiler() -> Profiler:
    return Profiler(cache=default_cache(), effort=Effort(max_runs=20))


def given(folder: Path, name: str, use: str = "when_late", **more: Any) -> dict[str, Any]:
    return {"compressed": str(folder / f"{name}.onnx"), "use": use, **more}


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    return planned(folder, given(folder, "near"))


class TestPlanning:
    def test_it_stands_beside_its_model_with_its_error_and_the_reason(self, plan: Plan) -> None:
        model = plan.models["net"]
        variant = model.variants[Kind.COMPRESSED]
        assert list(plan.models) == ["net"]
        assert variant.error == pytest.approx(0.01, rel=0.05)
        assert variant.use is Use.WHEN_LATE
        assert variant.spans == model.original.spans
        assert plan.cheaper == {"net": ("net@compressed",)}
        assert plan.profile.expected_s("net@compressed", "cpu0") < 0.6 * plan.profile.expected_s(
            "net", "cpu0"
        )
        (choice,) = [each for each in model.choices if each.by == "compress of compressed"]
        assert "x as fast on cpu0; off by 0.01 at most" in choice.what

    def test_with_artefacts_too_and_beside_a_model_that_is_alike(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As users have it: artefacts are made, and what is alike is tried fused."""
        monkeypatch.setenv(ARTEFACTS, "200MiB")
        monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
        alone = planned(folder, given(folder, "near"))
        assert alone.cheaper == {"net": ("net@compressed",)}
        scenario = wanted(folder, given(folder, "near"))
        both = {"net": scenario.models["net"], "twin": scenario.models["net"]}
        pair = prepare(
            scenario.model_copy(
                update={"models": both, "arrivals": dict.fromkeys(both, scenario.arrivals["net"])}
            ),
            profiler(),
        ).plan
        assert list(pair.models) == ["net", "twin"]
        assert pair.cheaper == {"net": ("net@compressed",), "twin": ("twin@compressed",)}
        assert all("@" not in name for each in pair.fused.values() for name in each.models)

    def test_what_was_made_once_is_not_measured_again(
        self, folder: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise AssertionError("it is measured")

        monkeypatch.setattr(variant_maker, "contests", fail)
        again = planned(folder, given(folder, "near"))
        assert again.models["net"].variants == plan.models["net"].variants

    def test_one_that_is_too_far_off_is_refused(self, folder: Path) -> None:
        with pytest.raises(
            ConfigurationError, match=r"far\.onnx is off by 0\.5, more than max_err"
        ):
            planned(folder, given(folder, "far"))

    def test_one_with_other_outputs_is_refused(self, folder: Path) -> None:
        with pytest.raises(ModelError, match=r"other\.onnx: its outputs are z.*, and those of the"):
            planned(folder, given(folder, "other"))

    def test_one_that_is_not_faster_is_left_out_with_the_reason(self, folder: Path) -> None:
        found = planned(folder, given(folder, "slow"))
        assert list(found.models["net"].variants) == [Kind.ORIGINAL]
        assert any("no compressed variant: it is not surely faster" in w for w in found.warnings)

    def test_where_nothing_can_be_made_the_model_stays_alone(self, folder: Path) -> None:
        found = planned(folder, "when_late")
        assert list(found.models["net"].variants) == [Kind.ORIGINAL]
        assert any("nothing to decompose" in warning for warning in found.warnings)
        (choice,) = [c for c in found.models["net"].choices if c.by == "compress"]
        assert choice.alternatives[0].name == "compressed"

    def test_auto_keeps_a_network_in_parts_that_is_faster(self, tmp_path: Path) -> None:
        """Convolutions of 128 channels whose weights need 16: their parts lose nothing."""
        pytest.importorskip("tensorly", reason="decomposing needs tensorly")
        redundant(tmp_path / "net.onnx")
        pictures = np.random.default_rng(1).normal(size=(6, 128, 16, 16)).astype(np.float32)
        np.savez(tmp_path / "samples.npz", x=pictures)
        found = planned(tmp_path, {"compressed": "auto", "use": "when_late"})
        variant = found.models["net"].variants[Kind.COMPRESSED]
        assert variant.error < 1e-3
        assert found.cheaper == {"net": ("net@compressed",)}
        took = {name: found.profile.expected_s(name, "cpu0") for name in ("net", "net@compressed")}
        assert took["net@compressed"] < took["net"]
        made = onnx.load(str(variant.graph and variant.graph.path))
        assert sum(node.op_type == "Conv" for node in made.graph.node) == 6

    def test_never_looks_at_nothing(self, folder: Path) -> None:
        found = planned(folder, given(folder, "far", use="never"))
        assert not found.cheaper
        assert not found.warnings

    def test_always_leaves_the_original_out(self, folder: Path) -> None:
        found = planned(folder, given(folder, "near", use="always"))
        assert not found.models["net"].original.spans
        assert list(found.serving("net")) == ["net@compressed"]


class TestKept:
    @pytest.fixture
    def kept(self, plan: Plan, tmp_path: Path) -> Path:
        save_plan(plan, tmp_path / "plan")
        return tmp_path / "plan"

    def test_it_is_read_as_it_was_written(self, plan: Plan, kept: Path) -> None:
        found = load_plan(kept).plan
        before, after = (each.models["net"].variants[Kind.COMPRESSED] for each in (plan, found))
        assert dataclasses.replace(after, graph=None) == dataclasses.replace(before, graph=None)
        assert after.graph is not None
        assert after.graph.path == "graphs/net@compressed.onnx"
        assert found.profile == plan.profile
        assert not list(differences(plan, found))

    def test_nothing_is_measured_to_run_it(
        self, kept: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Profiler, "profile", None)
        opened = open_plan(kept)
        assert list(opened.models) == ["net", "net@compressed"]
        assert read_plan(kept).cheaper

    def test_another_graph_in_its_place_is_refused(self, kept: Path) -> None:
        path = kept / "graphs" / "net@compressed.onnx"
        path.write_bytes(path.read_bytes() + b"\0")
        with pytest.raises(
            ConfigurationError, match="is not the graph that the plan was made with"
        ):
            open_plan(kept)

    @pytest.mark.parametrize(
        ("before", "after", "error"),
        [
            ("use: when_late", "use: sometimes", r"plan\.yaml:\d+: .*use: .*'sometimes'"),
            ("        error: ", "        error: -", r"plan\.yaml:\d+: .*error: "),
            ("original:", "int8:", r"plan\.yaml:\d+: models\.net\.variants: there is no `original"),
            (
                "        profile: {file: profiles/net@c",
                "        # {file: profiles/net@c",
                r"plan\.yaml:\d+: models\.net\.variants\.compressed\.profile: is missing",
            ),
        ],
    )
    def test_errors_say_where(self, kept: Path, before: str, after: str, error: str) -> None:
        text = (kept / "plan.yaml").read_text()
        assert before in text
        (kept / "plan.yaml").write_text(text.replace(before, after, 1))
        with pytest.raises(ScenarioError, match=error):
            load_plan(kept)

    def test_a_scenario_that_wants_another_rule_is_told_that_the_plan_decides(
        self, folder: Path, kept: Path
    ) -> None:
        ready = planned_scenario(wanted(folder, given(folder, "near", "always")), kept)
        assert any("scenario's variants, and the plan decides" in w for w in ready.plan.warnings)
        same = planned_scenario(wanted(folder, given(folder, "near")), kept)
        assert not same.plan.warnings


class TestRunning:
    def test_it_answers_who_would_be_late(self, folder: Path) -> None:
        with Engine(
            {"net": str(folder / "net.onnx")},
            processors=[CPU],
            samples={"net": folder / "samples.npz"},
            variants={"net": given(folder, "near")},
        ) as engine:
            feed = {"x": np.ones((1, WIDTH), np.float32)}
            relaxed = engine.infer("net", feed, deadline_s=10.0, timeout_s=WAIT_S)["y"]
            hurried = engine.infer("net", feed, deadline_s=1e-6, timeout_s=WAIT_S)["y"]
            stats = engine.stats()
        np.testing.assert_allclose(hurried, relaxed * 1.01, rtol=1e-3, atol=1e-5)
        assert stats.models["net"].variants == {"net": 1, "net@compressed": 1}
        assert stats.models["net"].mean_error == pytest.approx(0.005, rel=0.1)
        assert set(stats.processors["cpu0"].loaded) == {"net", "net@compressed"}

    def test_it_answers_all_where_it_always_serves_and_can_be_unloaded(self, folder: Path) -> None:
        with Engine(
            {"net": str(folder / "net.onnx")},
            processors=[CPU],
            samples={"net": folder / "samples.npz"},
            variants=given(folder, "near", "always"),
        ) as engine:
            feed = {"x": np.ones((1, WIDTH), np.float32)}
            engine.warm_up("net", feed)
            engine.infer("net", feed, timeout_s=WAIT_S)
            assert engine.stats().models["net"].variants == {"net@compressed": 1}
            engine.unload("net")
            assert not engine._model_store.span_ios
            assert not engine._model_store._sessions
            engine.load("net", str(folder / "net.onnx"), samples=folder / "samples.npz")
            engine.infer("net", feed, timeout_s=WAIT_S)
            assert engine.stats().models["net"].variants == {"net@compressed": 1}

    def test_a_run_and_a_simulation_say_which_served(self, folder: Path) -> None:
        scenario = wanted(folder, given(folder, "near"))
        ready = prepare(scenario, profiler(), surroundings=False)
        hurried = scenario.models["net"].model_copy(update={"deadline": 1e-6})
        scenario = scenario.model_copy(update={"models": {"net": hurried}})
        simulated = simulate(scenario, ready.plan).run_counts.models["net"]
        assert simulated.completed
        assert simulated.variants == {"net@compressed": simulated.completed}
        played = play(ready, scenario=scenario).run_counts.models["net"]
        assert played.completed
        assert played.variants == {"net@compressed": played.completed}

    def test_the_bound_counts_what_may_serve(self, folder: Path, plan: Plan) -> None:
        scenario = wanted(folder, given(folder, "near"))
        alone = certify(scenario, plan.machine).bound.throughput_per_s
        both = certify(scenario, plan.machine, variants=plan.cheaper).bound.throughput_per_s
        seconds = plan.profile.expected_s("net@compressed", "cpu0")
        assert alone == pytest.approx(1 / plan.profile.expected_s("net", "cpu0"))
        assert both == pytest.approx(1 / seconds)
        never = dataclasses.replace(plan.models["net"].variants[Kind.COMPRESSED], use=Use.NEVER)
        assert not plan.with_variant("net", never).cheaper


MACHINE = """
processors: {p: {}}
times:
  m: {p: 10ms}
  m@int8: {p: 4ms}
"""


class TestDescribed:
    def prepared(self, folder: Path, variants: str, load: str) -> Any:
        (folder / "machine.yaml").write_text(MACHINE)
        path = folder / "s.yaml"
        path.write_text(
            f"models: {{m: {{deadline: 30ms, on_late: drop, {variants}}}}}\narrivals: {load}\n"
            "machine: machine.yaml\npolicy: edf\nduration: 20s\n"
        )
        return prepare(load_scenario(path))

    def test_a_machine_may_have_times_of_variants(self, tmp_path: Path) -> None:
        load = "{m: {poisson: 120}}"
        missed = {}
        for use in ("never", "when_late", "always"):
            variants = f"variants: {{use: {use}, int8: auto, max_error: 0.02}}"
            ready = self.prepared(tmp_path, variants, load)
            counts = simulate(ready.scenario, ready.plan).run_counts.models["m"]
            missed[use] = counts.submitted - counts.hits
            assert (sum(counts.variants.values()) == counts.completed) == (use != "never")
            assert ("m" in counts.variants) == (use == "when_late")
        assert missed["always"] <= missed["when_late"] < 0.6 * missed["never"]

    def test_what_it_has_no_times_of_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="no times of it; give it some as 'm@compr"):
            self.prepared(tmp_path, "variants: always", "{m: {closed: 1}}")


@pytest.mark.parametrize(
    ("variants", "error"),
    [
        ("sometimes", "use: must be one of 'always', 'when_late'"),
        ("{max_error: 0}", r"max_error: "),
        ("{use: when_late, speed: 2}", "speed"),
        ("{compressed: null}", "compressed: names no variant; give a file or `auto`"),
    ],
)
def test_a_scenario_says_where_it_is_wrong(tmp_path: Path, variants: str, error: str) -> None:
    path = tmp_path / "s.yaml"
    model = f"  m:\n    source: zoo:lenet\n    variants: {variants}\n"
    path.write_text(f"models:\n{model}arrivals: {{m: {{closed: 1}}}}\n")
    with pytest.raises(ScenarioError, match=rf"s\.yaml:4: models\.m\.variants\.?{error}"):
        load_scenario(path)


@pytest.mark.parametrize("options", [{"variants": {"x": "always"}}, {"variants": 3}])
def test_an_engine_refuses_what_is_no_wish(folder: Path, options: Mapping[str, Any]) -> None:
    with pytest.raises(CoinferError, match=r"variants are|unknown model"):
        Engine({"net": str(folder / "net.onnx")}, processors=[CPU], **options)
