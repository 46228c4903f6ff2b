"""`coinfer plan`, and the verbs that begin with a saved plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from cli.program import TINY, Outcome
from coinfer import zoo
from coinfer.testing.models import tiny_linear

Program = Callable[..., Outcome]


def must_not_run(*_args: object, **_options: object) -> None:
    raise AssertionError("something was measured")


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(f"{TINY}policy: earliest_finish\n")
    return path


@pytest.fixture
def plan(scenario: Path, tmp_path: Path, program: Program) -> Path:
    folder = tmp_path / "plan"
    assert program("plan", scenario, "-o", folder).status == 0
    return folder


def test_the_table_has_a_row_per_model_and_processor(scenario: Path, program: Program) -> None:
    shown = program("plan", scenario)
    assert shown.status == 0
    for word in ("model", "variant", "cut", "processor", "precision", "batch", "ms", "MiB"):
        assert word in shown.out
    for word in ("cnn", "mlp", "original", "whole", "fp32"):
        assert word in shown.out


def test_why_shows_what_lost(scenario: Path, program: Program) -> None:
    shown = program("plan", scenario, "--why")
    assert "cnn, worth loading: " in shown.out
    assert "x as long as" in shown.out


def test_models_can_be_planned_without_a_scenario(tmp_path: Path, program: Program) -> None:
    shown = program("plan", "zoo:lenet", "zoo:tiny_mlp", "-o", tmp_path / "plan")
    assert shown.status == 0
    assert "lenet" in shown.out
    assert f"plan: {tmp_path / 'plan'}" in shown.out


def test_a_relative_model_and_one_of_the_home_folder_are_saved_relative_to_the_plan(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        model = tiny_linear().model
        onnx.save(onnx.load_from_string(model.to_bytes()), tmp_path / f"{name}.onnx")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert program("plan", "one.onnx", "~/two.onnx", "-o", tmp_path / "plan").status == 0
    text = (tmp_path / "plan" / "plan.yaml").read_text()
    assert "source: one.onnx\n" in text
    assert "source: two.onnx\n" in text


@pytest.mark.parametrize(
    "verb", [("run",), ("simulate",), ("bound",), ("saturate", "--simulate", "--duration", "2s")]
)
def test_a_verb_that_begins_with_a_plan_measures_nothing(
    verb: tuple[str, ...],
    scenario: Path,
    plan: Path,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coinfer.profiling.profiler.profile_models", must_not_run)
    monkeypatch.setattr("coinfer.planner.passes.surroundings.measure_contention", must_not_run)
    name, *options = verb
    done = program(name, scenario, "--plan", plan, *options)
    assert done.status == 0, done.err
    assert "warning: the plan has no contention" not in done.out


def test_two_plans_are_compared(plan: Path, tmp_path: Path, program: Program) -> None:
    assert program("plan", "--diff", plan, plan).out == "the plans are the same\n"
    other = tmp_path / "other"
    assert program("plan", "zoo:lenet", "-o", other).status == 0
    shown = program("plan", "--diff", plan, other).out
    assert "cnn: only in the first" in shown
    assert "lenet: only in the second" in shown


def test_the_policy_of_the_plan_is_used_unless_one_is_named(
    scenario: Path, plan: Path, program: Program
) -> None:
    path = plan / "plan.yaml"
    path.write_text(path.read_text().replace("name: earliest_finish", "name: edf"))
    shown = program("simulate", scenario, "--plan", plan).out
    assert "policy edf" in shown
    assert "warning: the plan's policy edf is used, not the scenario's earliest_finish" in shown
    assert "policy fcfs" in program("simulate", scenario, "--plan", plan, "--policy", "fcfs").out


def test_an_option_on_the_command_line_goes_before_that_of_the_plan(
    scenario: Path, plan: Path, program: Program
) -> None:
    begin = ("simulate", scenario, "--plan", plan, "--policy-option")
    assert "unknown option" in program(*begin, "nonsense=3").complaint
    shown = program(*begin, "patience_s=2")
    assert shown.status == 0, shown.err
    assert "the plan's policy" not in shown.out
    path = plan / "plan.yaml"
    path.write_text(path.read_text().replace("name: earliest_finish", "name: edf"))
    assert "policy edf (patience_s=2)" in " ".join(program(*begin, "patience_s=2").out.split())


def test_a_tiny_option_is_the_same_in_the_plan(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(f"{TINY}policy: {{name: edf, patience_s: 0.00001}}\n")
    assert program("plan", path, "-o", tmp_path / "plan").status == 0
    shown = program("simulate", path, "--plan", tmp_path / "plan")
    assert shown.status == 0, shown.err
    assert "the plan's policy" not in shown.out


@pytest.mark.parametrize("verb", [("run",), ("simulate",), ("bound",), ("saturate", "--simulate")])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("zoo:tiny_mlp", "zoo:tiny_cnn", "'mlp' is zoo:tiny_cnn in the scenario and zoo:tiny_mlp"),
        ("zoo:tiny_mlp", "zoo:tiny_mlp?seed=1", "in the scenario and zoo:tiny_mlp in the plan"),
        ("zoo:tiny_mlp", "other.onnx", "other.onnx in the scenario and zoo:tiny_mlp in the plan"),
        (
            "deadline: 1s",
            "deadline: 1s, batch: 3",
            "batch of 3 in the scenario and of 1 in the plan",
        ),
    ],
)
def test_a_plan_of_other_models_is_refused(
    verb: tuple[str, ...],
    old: str,
    new: str,
    message: str,
    tmp_path: Path,
    plan: Path,
    program: Program,
) -> None:
    path = tmp_path / "changed.yaml"
    path.write_text(TINY.replace(old, new).replace("{closed: 2}", "{poisson: 10/s}"))
    complaint = program(verb[0], path, *verb[1:], "--plan", plan).complaint
    assert message in complaint
    assert f"`coinfer plan SCENARIO -o {plan}`" in complaint


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ('processors: [{name: mine, backend: "null", cores: [0]}]', "processors"),
        ("processors: {backends: [other]}", "processors"),
        ("precision: {allow: [int8], tolerance: 0.1}", "precision"),
        ("partition: {pieces: 2}", "partition"),
    ],
)
@pytest.mark.parametrize("verb", [("simulate",), ("bound",), ("saturate", "--simulate")])
def test_what_the_plan_does_not_follow_is_said(
    verb: tuple[str, ...], section: str, word: str, tmp_path: Path, plan: Path, program: Program
) -> None:
    path = tmp_path / "changed.yaml"
    path.write_text(f"{TINY}{section}\n")
    shown = " ".join(program(verb[0], path, *verb[1:], "--plan", plan).out.split())
    assert f"was not made by the scenario's {word}, and the plan decides" in shown
    assert shown.count("was not made by") == 1


def test_a_plan_that_was_made_by_the_scenario_follows_it(tmp_path: Path, program: Program) -> None:
    path = tmp_path / "cut.yaml"
    path.write_text(f"{TINY}partition: {{pieces: 2}}\nprocessors: {{backends: [onnxruntime]}}\n")
    assert program("plan", path, "-o", tmp_path / "plan").status == 0
    shown = program("simulate", path, "--plan", tmp_path / "plan")
    assert shown.status == 0, shown.err
    assert "was not made" not in shown.out


def test_a_machine_and_a_plan_are_too_much(scenario: Path, plan: Path, program: Program) -> None:
    done = program("simulate", scenario, "--plan", plan, "--machine", "lib:synthetic-edge")
    assert "--plan and --machine are both given" in done.complaint


def test_a_model_that_the_plan_does_not_have_is_named(
    tmp_path: Path, plan: Path, program: Program
) -> None:
    path = tmp_path / "more.yaml"
    path.write_text(TINY.replace("mlp", "other", 1).replace("  mlp: {closed", "  other: {closed"))
    complaint = program("run", path, "--plan", plan).complaint
    assert "unknown model in the plan" in complaint
    assert "coinfer plan SCENARIO -o" in complaint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--diff", "one"), "--diff compares two plans, got 1"),
        (("plan", "--diff", "a", "b", "-o", "c"), "and -o is for making one; leave one out"),
        (("plan", "--diff", "a", "b", "--why"), "and --why is for making one; leave one out"),
        (("plan", "--diff", "a", "b", "--policy", "edf"), "and --policy is for making one"),
        (("plan", "--diff", "a", "b", "--measure", "1s"), "and --measure is for making one"),
        (("plan", "a.yaml", "zoo:lenet"), "a plan is for one scenario or for models"),
        (("plan", "zoo:lenet", "zoo:lenet"), "two models are named 'lenet'"),
        (("run", "lib:etri-equal-mix", "--plan", "nowhere"), "there is no plan here"),
        (("plan", "zoo:lenet", "-o", ""), "'' is no folder; name one"),
        (("plan", "zoo:lenet", "-o", "/dev/null"), "/dev/null is a file; name a folder"),
        (("plan", "zoo:lenet", "-o", "/dev/null/x"), "/dev/null is no folder"),
        (("plan", "zoo:lenet", "-o", "/dev"), "/dev is not empty and holds no plan"),
        (("plan", "zoo:lenet", "--policy", "nonsense"), "unknown policy 'nonsense'"),
        (("plan", "zoo:lenet", "--policy", "fixed"), "option 'assignment': is required"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    program: Program,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coinfer.profiling.profiler.profile_models", must_not_run)
    assert message in program(*arguments).complaint


def test_a_file_whose_name_a_plan_cannot_keep_is_named_before_measuring(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coinfer.profiling.profiler.profile_models", must_not_run)
    onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), tmp_path / "a b.onnx")
    complaint = program("plan", tmp_path / "a b.onnx").complaint
    assert "model name 'a b' cannot be kept in a plan; use only" in complaint


def test_models_in_a_cache_of_a_hub_are_planned_and_run_where_that_is_allowed(
    tmp_path: Path, program: Program
) -> None:
    [made] = zoo.export(["tiny_cnn"], tmp_path / "made")
    hub = tmp_path / "hub"
    for name in ("blobs", "snapshots"):
        (hub / name).mkdir(parents=True)
    onnx.save(
        *(onnx.load(made), hub / "blobs" / "1.onnx"),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    (hub / "snapshots" / "net.onnx").symlink_to("../blobs/1.onnx")
    (hub / "blobs" / "weights.bin").rename(hub / "blobs" / "2")
    (hub / "snapshots" / "weights.bin").symlink_to("../blobs/2")
    file = tmp_path / "hub.yaml"
    file.write_text(
        f"models: {{net: {hub}/snapshots/net.onnx}}\narrivals: {{net: {{closed: 1}}}}\n"
        "processors: {backends: [onnxruntime]}\nduration: 100ms\nwarmup: 0s\n"
    )
    allowed, folder = ["--allow-data-in", hub], tmp_path / "planned"
    for source in (file, hub / "snapshots" / "net.onnx"):
        assert "--allow-data-in FOLDER" in program("plan", source).complaint
    assert program("plan", file, "-o", folder, *allowed).status == 0
    for verb in ("run", "bound", "simulate"):
        assert program(verb, file, *allowed).status == 0
    assert "--allow-data-in FOLDER" in program("run", file, "--plan", folder).complaint
    assert program("run", file, "--plan", folder, *allowed).status == 0


FINITE = """\
models:
  cnn: {source: "zoo:tiny_cnn", deadline: 1us}
arrivals:
  cnn: {periodic: 50/s}
duration: 1s
"""
"""A scenario with so few requests that all policies are simulated in no time."""


def test_a_plan_chooses_its_policy_where_the_scenario_names_none(
    tmp_path: Path, program: Program
) -> None:
    path, folder = tmp_path / "finite.yaml", tmp_path / "plan"
    path.write_text(FINITE)
    shown = program("plan", path, "-o", folder)
    assert shown.status == 0, shown.err
    text = " ".join(shown.out.split())
    assert "policy: earliest_finish, which none of" in text
    assert "warning: no policy keeps the deadlines" in text
    assert "  not edf: " not in shown.out
    why = program("plan", path, "--why").out
    assert "others do the same" in " ".join(why.split())
    assert why.count("  not ") < 12  # a table of processors, and a few of thirty policies
    named = program("plan", path, "--policy", "edf", "--why").out
    assert "policy:" not in named
    for verb in ("run", "simulate"):
        again = program(verb, path, "--plan", folder)
        assert again.status == 0, again.err
        assert "policy: earliest_finish, which none of" in " ".join(again.out.split())
    explained = program("run", path, "--plan", folder, "--explain", "slowest").out
    assert "others do the same" in " ".join(explained.split())


def test_a_policy_is_chosen_for_a_run_or_a_simulation_that_asks_for_it(
    tmp_path: Path, program: Program
) -> None:
    path = tmp_path / "finite.yaml"
    path.write_text(FINITE)
    for verb in ("run", "simulate"):
        assert "policy:" not in program(verb, path).out
        shown = program(verb, path, "--policy", "auto")
        assert shown.status == 0, shown.err
        assert "policy: " in shown.out
    complaint = program(
        "simulate", path, "--policy", "auto", "--policy-option", "patience_s=2"
    ).complaint
    assert "policy 'auto' chooses the options too, and 'patience_s' is given" in complaint


def test_the_bound_of_a_scenario_that_leaves_the_policy_open_simulates_nothing(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "finite.yaml"
    path.write_text(f"{FINITE}policy: auto\n")
    monkeypatch.setattr("coinfer.planner.passes.policy.with_best_policy", must_not_run)
    shown = program("bound", path)
    assert shown.status == 0, shown.err


def test_models_alone_have_no_load_to_choose_a_policy_for(program: Program) -> None:
    complaint = program("plan", "zoo:lenet", "--policy", "auto").complaint
    assert "policy 'auto' stands for the one that planning finds best for a scenario" in complaint
