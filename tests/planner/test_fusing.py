"""Which models are fused, what is kept of that in a plan, and why not."""

from __future__ import annotations

import dataclasses
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import coinfer
from coinfer.artefacts.settings import VARIABLE as ARTEFACTS
from coinfer.cache_folder import VARIABLE as CACHE
from coinfer.errors import ConfigurationError, ScenarioError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.metrics.recorder import Recorder
from coinfer.model import Model
from coinfer.plan import Plan
from coinfer.plan.difference import differences
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.fusing import graphs
from coinfer.planner.make_plan import Planned, make_plan
from coinfer.planner.model_source import resolve_model
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.passes import fusing as fusing_pass
from coinfer.planner.planned_scenario import planned_scenario
from coinfer.planner.wishes import Wishes
from coinfer.profiling import Effort, Profiler
from coinfer.profiling.budget import Budget
from coinfer.profiling.cache import ProfileCache
from coinfer.profiling.fused_trial import FusedTrial
from coinfer.runtime.play import play
from coinfer.sim import simulate
from coinfer.workload.fuse_spec import FuseSpec, fuse_of
from coinfer.workload.scenario_file import parse_scenario

CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))
QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
NAMES = tuple("abcdefgh")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, with artefacts."""
    monkeypatch.setenv(ARTEFACTS, "200MiB")
    monkeypatch.setenv(CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """Gains by number of members, in place of what is timed; answers are compared all the same."""
    gains: dict[int, float] = {}
    real = fusing_pass.tried

    def tried(*args: Any, **options: Any) -> Any:
        found = real(*args, **{**options, "rounds": 0})
        count = len(args[2])
        times = FusedTrial(
            fused_s=(0.001,) * 9,
            apart_s=(0.001 * gains.get(count, 0.5),) * 9,
            load_s=0.1,
            resident_bytes=1000,
            error=found.trial.error,
        )
        return dataclasses.replace(found, trial=times)

    monkeypatch.setattr(fusing_pass, "tried", tried)
    monkeypatch.setattr("coinfer.experiments.handover.handover_s", lambda *_: 0.0)
    return gains


def networks(names: tuple[str, ...] = NAMES, network: str = "tiny_mlp") -> dict[str, Model]:
    sources = {name: f"zoo:{network}?seed={at}" for at, name in enumerate(names)}
    return {name: resolve_model(source, name=name) for name, source in sources.items()}


def planned(
    models: dict[str, Model], fuse: FuseSpec = "auto", *, budget_s: float = math.inf
) -> Planned:
    profiler = Profiler(effort=QUICK, budget=Budget(budget_s))
    sources = {name: f"zoo:tiny_mlp?seed={at}" for at, name in enumerate(models)}
    return make_plan(models, [CPU], Wishes(fuse=fuse, sources=sources), profiler)


def why(plan: Plan, name: str) -> str:
    return "; ".join(str(c) for c in plan.models[name].choices if c.by == "fusing")


class TestAuto:
    def test_what_gains_most_is_kept_with_one_smaller(self, trials: dict[int, float]) -> None:
        trials |= {8: 1.8, 4: 1.5, 2: 1.2}
        plan = planned(networks()).plan
        assert {n: each.models for n, each in plan.fused.items()} == {
            "a+7": NAMES,
            "a+3": NAMES[:4],
            "e+3": NAMES[4:],
        }
        assert "8 models in one run: 1.80x on cpu as fast as apart" in why(plan, "a")
        alone_s = plan.measured.expected_s("a", "cpu")
        fused_s = plan.measured.expected_s("a+7", "cpu")
        assert alone_s is not None
        assert fused_s is not None
        assert fused_s == pytest.approx(
            sum(plan.measured.expected_s(name, "cpu") or 0.0 for name in NAMES) / 1.8
        )
        assert plan.profile.expected_s("a+7", "cpu") == fused_s

    def test_what_handing_over_takes_counts_on_both_sides(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of 8 runs apart all are handed over, of a fused one it is one."""
        trials |= {8: 0.97}
        assert not planned(networks()).plan.fused
        monkeypatch.setattr("coinfer.experiments.handover.handover_s", lambda *_: 50e-6)
        plan = planned(networks()).plan
        assert [each.models for each in plan.fused.values()] == [NAMES]
        assert plan.machine.overhead_s == 50e-6
        gain = (0.97e-3 + 8 * 50e-6) / (1e-3 + 50e-6)
        assert f"{gain:.2f}x on cpu as fast as apart" in why(plan, "a")
        alone_s = [plan.measured.expected_s(name, "cpu") or 0.0 for name in NAMES]
        assert plan.measured.expected_s("a+7", "cpu") == pytest.approx(sum(alone_s) / 0.97)

    def test_what_is_left_over_is_fused_by_less(self, trials: dict[int, float]) -> None:
        trials |= {4: 1.5, 2: 1.2}
        plan = planned(networks(NAMES[:7])).plan
        groups = [NAMES[:4], NAMES[4:6], NAMES[:2], NAMES[2:4]]
        assert [each.models for each in plan.fused.values()] == groups

    def test_what_loses_is_not_kept_and_said(self, trials: dict[int, float]) -> None:
        trials |= {8: 0.97, 4: 0.97, 2: 0.97}
        plan = planned(networks()).plan
        assert not plan.fused
        assert why(plan, "a").startswith("none: no fused variant is faster; 8 models on cpu: 0.97x")
        assert "2 models on cpu" in why(plan, "a")

    def test_after_a_clear_loss_nothing_else_is_tried(self, trials: dict[int, float]) -> None:
        trials |= {8: 0.6, 4: 9.0}
        plan = planned(networks()).plan
        assert not plan.fused
        assert "4 models" not in why(plan, "a")

    def test_other_architectures_and_single_models_are_left_alone(
        self, trials: dict[int, float]
    ) -> None:
        trials |= dict.fromkeys((2, 4, 8), 2.0)
        models = {
            **networks(NAMES[:2]),
            **networks(("x", "y"), "tiny_cnn"),
            **networks(("z",), "lenet"),
        }
        plan = planned(models).plan
        assert sorted(each.models for each in plan.fused.values()) == [("a", "b"), ("x", "y")]
        assert not why(plan, "z")

    def test_slow_models_are_not_looked_at(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trials |= {8: 2.0}
        monkeypatch.setattr(fusing_pass, "_MOST_S", 1e-9)
        plan = planned(networks()).plan
        assert not plan.fused
        assert "which leaves little to gain" in why(plan, "a")

    def test_nothing_is_fused_when_the_time_is_over(self, trials: dict[int, float]) -> None:
        trials |= {8: 2.0}
        plan = planned(networks(), budget_s=0.5).plan
        assert not plan.fused

    def test_without_artefacts_nothing_is_fused(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(ARTEFACTS, "0")
        trials |= {8: 2.0}
        assert not planned(networks()).plan.fused

    def test_never(self, trials: dict[int, float]) -> None:
        trials |= {8: 2.0}
        plan = planned(networks(), "never").plan
        assert not plan.fused
        assert not why(plan, "a")


class TestGroups:
    def test_they_are_kept_whatever_they_gain(self, trials: dict[int, float]) -> None:
        trials |= {3: 0.7}
        plan = planned(networks(), fuse_of([["a", "c", "b"]])).plan
        assert [each.models for each in plan.fused.values()] == [("a", "c", "b")]
        assert "0.70x on cpu as fast as apart" in why(plan, "c")
        assert "as asked" in why(plan, "c")

    def test_models_that_cannot_be_fused_are_an_error_that_says_why(
        self, trials: dict[int, float]
    ) -> None:
        models = {**networks(NAMES[:1]), **networks(("x",), "tiny_cnn")}
        with pytest.raises(ConfigurationError, match=r"fuse: \[a, x\]: they cannot be fused: .*x"):
            planned(models, fuse_of([["a", "x"]]))

    def test_an_unknown_model_is_an_error(self) -> None:
        with pytest.raises(UnknownNameError, match="unknown model 'bb'"):
            planned(networks(NAMES[:2]), fuse_of([["a", "bb"]]))

    @pytest.mark.parametrize(
        "value", ["always", [], [["a"]], [["a", 1]], [["a", "a"]], 3, {"a": 1}]
    )
    def test_what_makes_no_sense_is_an_error(self, value: object) -> None:
        with pytest.raises(ConfigurationError, match="fuse"):
            fuse_of(value)

    def test_a_graph_that_takes_too_long_is_given_up(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graphs, "_MOST_S", 0.01)
        trials |= {8: 2.0}
        plan = planned(networks()).plan
        assert not plan.fused
        assert "it was not made within 0.01 s" in why(plan, "a")

    def test_ctrl_c_ends_the_child_and_the_next_planning_fuses(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch, cache: Path
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        trials |= {2: 2.0}
        before = set(psutil.Process().children())
        with monkeypatch.context() as patch:
            patch.setattr(subprocess.Popen, "communicate", interrupted)
            with pytest.raises(KeyboardInterrupt):
                planned(networks(NAMES[:2]))
        assert set(psutil.Process().children()) <= before
        assert not list((cache / "artefacts").glob("*/fused.onnx"))
        assert list(planned(networks(NAMES[:2])).plan.fused) == ["a+1"]

    def test_large_weights_are_not_fused(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(graphs, "MOST_BYTES", 100)
        trials |= {8: 2.0}
        assert "can be fused" in why(planned(networks()).plan, "a")

    def test_answers_that_differ_are_refused(
        self, trials: dict[int, float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trials |= {8: 2.0}
        right = networks()
        real = fusing_pass.fused_graph

        def wrong(name: str, members: dict[str, Model], planning: Any) -> Any:
            """Fuse them in another order than is said."""
            turned = dict(zip(members, reversed(list(members.values())), strict=True))
            return real(name, turned, planning)

        monkeypatch.setattr(fusing_pass, "fused_graph", wrong)
        plan = planned(right).plan
        assert not plan.fused
        assert "its answers differ by" in why(plan, "a")


class TestScenario:
    TEXT = """
models: {a: {source: "zoo:tiny_mlp"}, b: {source: "zoo:tiny_mlp?seed=1"}}
arrivals: {a: {poisson: 10/s}, b: {poisson: 10/s}}
"""

    def test_it_says_what_to_fuse(self) -> None:
        assert parse_scenario(self.TEXT).fuse == "auto"
        assert parse_scenario(self.TEXT + "fuse: never").fuse == "never"
        assert parse_scenario(self.TEXT + "fuse: [[a, b]]").fuse == (("a", "b"),)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("fuse: always", ":4: fuse: write `auto`"),
            ("fuse: [[a, c]]", ":4: fuse: unknown model 'c'"),
            ("fuse: [[a, b], [b, a]]", ":4: fuse: 'a' is named twice"),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(self, line: str, message: str) -> None:
        with pytest.raises(ScenarioError) as caught:
            parse_scenario(self.TEXT + line)
        assert message in str(caught.value)


class TestSaved:
    @pytest.fixture
    def folder(self, trials: dict[int, float], tmp_path: Path) -> Path:
        trials |= {2: 1.5}
        made = planned(networks(NAMES[:2]))
        save_plan(made.plan, tmp_path / "plan")
        return tmp_path / "plan"

    def test_it_is_read_as_it_was(self, folder: Path, tmp_path: Path) -> None:
        plan = load_plan(folder).plan
        fused = plan.fused["a+1"]
        assert fused.models == ("a", "b")
        assert Path(fused.graph.path) == folder.resolve() / "graphs" / "a+1.onnx"
        assert plan.profile.expected_s("a+1", "cpu") is not None
        save_plan(plan, tmp_path / "again")
        again = load_plan(tmp_path / "again").plan
        assert (tmp_path / "again" / "plan.yaml").read_bytes() == (
            folder / "plan.yaml"
        ).read_bytes()
        assert not list(differences(plan, again))

    def test_the_same_plan_gives_the_same_bytes(self, folder: Path) -> None:
        before = (folder / "graphs" / "a+1.onnx").read_bytes()
        save_plan(load_plan(folder).plan, folder)
        assert (folder / "graphs" / "a+1.onnx").read_bytes() == before

    def test_it_is_opened_with_its_graph(self, folder: Path) -> None:
        opened = open_plan(folder)
        assert {spec.name for spec in opened.models["a+1"].inputs} == {"a/x", "b/x"}  # type: ignore[union-attr]

    @pytest.mark.parametrize(("names", "fused"), [("ab", ["a+1"]), ("a", [])])
    def test_a_scenario_runs_with_those_whose_members_it_has(
        self, names: str, fused: list[str], folder: Path
    ) -> None:
        sources = ", ".join(f"{n}: 'zoo:tiny_mlp?seed={NAMES.index(n)}'" for n in names)
        loops = ", ".join(f"{n}: {{closed: 1}}" for n in names)
        wanted = parse_scenario(f"models: {{{sources}}}\narrivals: {{{loops}}}\nduration: 50ms\n")
        ready = planned_scenario(wanted, folder)
        assert list(ready.plan.fused) == fused
        played = play(ready, scenario=ready.as_run)
        assert all(played.run_counts.models[name].completed for name in names)

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ("models: [a, b]", "models: [a, c]", "fused.a+1.models: unknown model 'c'"),
            ("models: [a, b]", "models: [a, a]", "'a' is there twice"),
            ("models: [a, b]", "models: [a]", "models"),
            ("processors: [cpu]", "processors: [gpu]", "unknown processor 'gpu'"),
            (
                "batch: 1\n    profile: {file: profiles/a+1",
                "batch: 2\n    profile: {file: profiles/a+1",
                "is 2, and the batch of 'a' is 1",
            ),
        ],
    )
    def test_what_is_wrong_is_named_with_its_line(
        self, folder: Path, old: str, new: str, message: str
    ) -> None:
        path = folder / "plan.yaml"
        text = path.read_text()
        before, after = text.split("\nfused:", 1)
        assert old in after
        path.write_text(before + "\nfused:" + after.replace(old, new))
        with pytest.raises(ScenarioError, match=r"plan.yaml:\d+: ") as caught:
            load_plan(folder)
        assert message in str(caught.value)

    def test_another_graph_is_refused(self, folder: Path) -> None:
        path = folder / "graphs" / "a+1.onnx"
        path.write_bytes(path.read_bytes()[:-1] + b"x")
        with pytest.raises(
            ConfigurationError, match="is not the graph that the plan was made with"
        ):
            open_plan(folder)
        read_plan(folder)  # to simulate it, no graph is needed

    def test_a_processor_where_it_was_not_measured_is_refused(
        self, trials: dict[int, float], tmp_path: Path
    ) -> None:
        trials |= {2: 1.5}
        plan = planned(networks(NAMES[:2])).plan
        without = plan.with_profile(plan.measured.where(lambda key: key.model != "a+1"))
        save_plan(without, tmp_path / "plan")
        with pytest.raises(ConfigurationError, match="was not measured on cpu"):
            load_plan(tmp_path / "plan")

    def test_a_difference_is_said(self, folder: Path) -> None:
        plan = load_plan(folder).plan
        assert "fused a+1: only in the first" in list(differences(plan, plan.without_fused("a+1")))

    def test_without_a_member_it_is_gone(self, folder: Path) -> None:
        assert not load_plan(folder).plan.without("b").fused


class TestMeasured:
    """With real times: whichever wins, what is in the plan holds."""

    def test_what_is_planned_is_remembered(self, cache: Path) -> None:
        profiler = Profiler(effort=QUICK, cache=ProfileCache(cache / "profiles"))
        first = make_plan(networks(), [CPU], Wishes(fuse=(NAMES,)), profiler).plan
        again = make_plan(networks(), [CPU], Wishes(fuse=(NAMES,)), profiler).plan
        key = "a+7", "cpu"
        assert first.measured.expected_s(*key) == again.measured.expected_s(*key)
        assert first.fused == again.fused

    def test_from_plan_to_simulation_and_run(self, tmp_path: Path) -> None:
        models = {name: f"zoo:tiny_mlp?seed={at}" for at, name in enumerate(NAMES)}
        feed = networks()["a"].sample_inputs(seed=4)
        with coinfer.Engine(models, processors=[CPU], fuse=[list(NAMES)]) as engine:
            recorder = Recorder()
            engine.attach(recorder)
            alone = {name: engine.infer(name, feed) for name in NAMES}
            futures = [(n, engine.submit(n, feed)) for _ in range(40) for n in NAMES]
            for name, future in futures:
                for output, array in future.result().items():
                    np.testing.assert_allclose(array, alone[name][output], rtol=1e-5, atol=1e-6)
            save_plan(engine.plan, tmp_path / "plan")
        scenario = parse_scenario(
            "models: {"
            + ", ".join(f'{name}: {{source: "{source}"}}' for name, source in models.items())
            + "}\narrivals: {"
            + ", ".join(f"{name}: {{closed: 4}}" for name in NAMES)
            + "}\nduration: 50ms\nwarmup: 0s"
        )
        plan = read_plan(tmp_path / "plan")
        done = simulate(scenario, plan, deterministic=True)
        assert all(done.run_counts.models[name].completed for name in NAMES)
        with coinfer.Engine(tmp_path / "plan") as engine:
            assert engine.plan.fused.keys() == {"a+7"}
            engine.infer("a", feed)
