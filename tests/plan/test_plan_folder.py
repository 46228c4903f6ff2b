"""A plan is saved as a folder, read again, edited by hand, and refused where it does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import coinfer
from coinfer.backends.null import NullBackend
from coinfer.backends.registry import get_backend
from coinfer.errors import CallerError, ConfigurationError, ScenarioError
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.machine import Machine
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import load_model
from coinfer.plan import Plan, PolicyChoice
from coinfer.plan.difference import differences
from coinfer.plan.plan_destination import check_can_save
from coinfer.plan.plan_folder import load_plan, save_plan
from coinfer.planner.make_plan import Planned, make_plan
from coinfer.planner.model_source import resolve_model
from coinfer.planner.opened_plan import open_plan, read_plan
from coinfer.planner.wishes import CutWish, Wishes
from coinfer.profiling import Effort, Profiler
from coinfer.testing.models import tiny_linear, two_convs
from coinfer.workload.batch_spec import BatchSpec

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
CNN = resolve_model("zoo:tiny_cnn")
CPU = Processor(name="cpu", backend="onnxruntime", units=frozenset({"core0"}))
PAIR = Processor(name="pair", backend="onnxruntime", units=frozenset({"core0", "core1"}), threads=2)


def saved(folder: Path) -> Planned:
    """Plan a small file on onnxruntime and save the plan beside it."""
    onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), folder / "m.onnx")
    model = load_model(folder / "m.onnx", name="m")
    source = str(folder / "m.onnx")
    wishes = Wishes(sources={"m": source}, keep_all=True, riders={"m": BatchSpec.of("off")})
    planned = make_plan({"m": model}, [CPU, PAIR], wishes, Profiler(effort=QUICK))
    save_plan(planned.plan, folder / "plan")
    return planned


def edited(folder: Path, change: Callable[[str], str]) -> None:
    path = folder / "plan" / "plan.yaml"
    before = path.read_text()
    after = change(before)
    assert after != before, "the edit changes nothing"
    path.write_text(after)


def test_a_saved_plan_is_read_as_it_was(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    assert load_plan(tmp_path / "plan").plan == plan


def test_a_folder_may_be_named_by_a_text(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    save_plan(plan, str(tmp_path / "kept"))
    assert load_plan(str(tmp_path / "kept")).plan == plan


def test_a_cut_plan_is_read_as_it_was(tmp_path: Path) -> None:
    plan = cut_by_hand(tmp_path)
    assert load_plan(tmp_path / "plan").plan == plan


def test_options_of_a_policy_are_read_as_they_were(tmp_path: Path) -> None:
    options = {"a": 1e-05, "b": {"c d": [2.5e-9, 1e22, 3.0, math.inf, -math.inf], "e": "1e-05"}}
    plan = saved(tmp_path).plan
    plan = dataclasses.replace(plan, policy=PolicyChoice(name="x", options=options))
    save_plan(plan, tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan.policy == plan.policy


@pytest.mark.parametrize("size", [2 << 30, 3 << 20, 12345])
def test_budgets_are_read_as_they_were(tmp_path: Path, size: int) -> None:
    plan = dataclasses.replace(saved(tmp_path).plan, memory={"host": size, "GPU.0": 1 << 20})
    save_plan(plan, tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan.memory == plan.memory
    plan = dataclasses.replace(plan, pinned=tuple(plan.models))
    save_plan(plan, tmp_path / "pinned")
    assert load_plan(tmp_path / "pinned").plan == plan


def test_the_rates_that_processors_were_chosen_for_are_read_as_they_were(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    plan = dataclasses.replace(plan, rates=dict.fromkeys(plan.models, 12.5))
    save_plan(plan, tmp_path / "rated")
    assert load_plan(tmp_path / "rated").plan == plan


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    save_plan(load_plan(tmp_path / "plan").plan, tmp_path / "again")
    save_plan(plan, tmp_path / "once more")
    for path in (tmp_path / "plan").rglob("*.*"):
        name = path.relative_to(tmp_path / "plan")
        assert (tmp_path / "again" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / "once more" / name).read_bytes() == path.read_bytes()


def test_the_folder_can_be_moved_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    saved(tmp_path / "here")
    shutil.move(tmp_path / "here", tmp_path / "there")
    assert open_plan(tmp_path / "there" / "plan").models.keys() == {"m"}


def test_an_engine_runs_a_saved_plan_and_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path)
    monkeypatch.setattr("coinfer.profiling.profiler.profile_models", _must_not_run)
    x = tiny_linear().model.sample_inputs()
    with coinfer.Engine(tmp_path / "plan") as engine:
        answer = engine.infer("m", x)
    np.testing.assert_allclose(answer["y"], tiny_linear().reference(x)["y"], rtol=1e-5)


def test_what_a_plan_settles_cannot_be_given_beside_it(tmp_path: Path) -> None:
    saved(tmp_path)
    for given in ({"processors": [CPU]}, {"profile": Profile()}):
        with pytest.raises(ConfigurationError, match=f"leave {next(iter(given))}= out"):
            coinfer.Engine(tmp_path / "plan", **given)  # type: ignore[arg-type]


def test_an_engine_on_a_plan_can_run_unpinned(tmp_path: Path) -> None:
    saved(tmp_path)
    with coinfer.Engine(tmp_path / "plan", pin=False) as engine:
        assert {processor.cores for processor in engine.plan.processors} == {()}


@pytest.mark.parametrize("given", ["zoo:lenet", "detector.onnx", Path("detector.onnx")])
def test_a_model_without_a_name_is_not_taken_for_a_plan(given: str | Path) -> None:
    with pytest.raises(ConfigurationError, match="models have names"):
        coinfer.Engine(given)


def test_a_file_is_not_taken_for_a_plan(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("")
    with pytest.raises(ScenarioError, match="is a file; a plan is a folder"):
        coinfer.Engine(tmp_path / "plan")


def test_a_folder_is_not_taken_for_the_file(tmp_path: Path) -> None:
    (tmp_path / "plan" / "plan.yaml").mkdir(parents=True)
    with pytest.raises(ScenarioError, match=r"plan\.yaml: is a folder, not a file; name the"):
        coinfer.Engine(tmp_path / "plan")


def test_sources_are_found_from_within_and_through_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = saved(tmp_path).plan
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "link").symlink_to(tmp_path / "plan")
    assert load_plan(tmp_path / "else" / "link").plan == plan
    monkeypatch.chdir(tmp_path / "plan")
    assert load_plan(".").plan == plan
    assert open_plan(".").models.keys() == {"m"}


def test_a_source_of_the_home_folder_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = saved(tmp_path).plan
    monkeypatch.setenv("HOME", str(tmp_path))
    edited(tmp_path, lambda t: t.replace("source: m.onnx", 'source: "~/m.onnx"'))
    assert load_plan(tmp_path / "plan").plan == plan


@pytest.mark.parametrize("source", ["m.onnx", "~/m.onnx", Path("m.onnx")])
def test_an_engine_can_be_saved_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | Path
) -> None:
    onnx.save(onnx.load_from_string(tiny_linear().model.to_bytes()), tmp_path / "m.onnx")
    (tmp_path / "else").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with coinfer.Engine({"m": source}, processors=[CPU], measure_s=0.1) as engine:
        monkeypatch.chdir(tmp_path / "else")
        save_plan(engine.plan, tmp_path / "plan")
    assert "source: m.onnx\n" in (tmp_path / "plan" / "plan.yaml").read_text()


def _must_not_run(*_args: object, **_options: object) -> Profile:
    raise AssertionError("something was measured")


def test_a_processor_that_is_taken_out_is_not_loaded(tmp_path: Path) -> None:
    saved(tmp_path)
    edited(tmp_path, lambda text: _without(text, "          pair: whole"))
    with coinfer.Engine(str(tmp_path / "plan")) as engine:
        assert engine.placement("m").keys() == {"cpu"}


def test_a_processor_that_is_added_runs_with_its_measured_times(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    edited(tmp_path, lambda text: _without(text, "          pair: whole"))
    edited(
        tmp_path,
        lambda t: t.replace("          cpu: whole", "          pair: whole\n          cpu: whole"),
    )
    opened = open_plan(tmp_path / "plan").plan
    assert opened.profile.entries == plan.profile.entries
    assert not opened.warnings


def cut_by_hand(folder: Path) -> Plan:
    """A plan of a model that is cut into single units."""
    onnx.save(onnx.load_from_string(CNN.to_bytes()), folder / "m.onnx")
    model = load_model(folder / "m.onnx", name="m")
    options = PartitionOptions(mode=Mode.UNIT, pieces=3, minimum_subgraph_size=1)
    wishes = Wishes(
        sources={"m": str(folder / "m.onnx")}, cuts={"m": CutWish(options)}, keep_all=True
    )
    plan = make_plan({"m": model}, [CPU, PAIR], wishes, Profiler(effort=QUICK)).plan
    save_plan(plan, folder / "plan")
    return plan


def _without(text: str, start: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(start))


MISTAKES: list[tuple[str, Callable[[str], str], str]] = [
    ("typo", lambda t: t.replace("models:", "modles:"), "plan.yaml:6: modles: unknown field"),
    (
        "processor",
        lambda t: t.replace("          cpu: whole", "          cpo: whole"),
        "plan.yaml:15: models.m.variants.original.processors.cpo: unknown processor 'cpo'; "
        "did you mean 'cpu'",
    ),
    (
        "span",
        lambda t: t.replace("cpu: whole", "cpu: [0-3]"),
        "there is no unit 3: the model has 1, from 0",
    ),
    (
        "base 60",
        lambda t: t.replace("cpu: whole", "cpu: [1:30]"),
        "plan.yaml:15: models.m.variants.original.processors.cpu[0]: 1:30 is a number in base 60",
    ),
    (
        "base 8",
        lambda t: t.replace("batch: 1", "batch: 010"),
        "models.m.batch: 010 is a number in base 8",
    ),
    ("format", lambda t: t.replace("coinfer-plan/1", "coinfer-plan/9"), "newer coinfer"),
    ("no plan", lambda t: t.replace("format: coinfer-plan/1", "formt: x"), "this version reads"),
    ("yaml", lambda t: t.replace("models:", "models: ["), "not valid YAML"),
    *(
        (
            f"NUL in {field}",
            lambda t, field=field: re.sub(rf"\b{field}: [\w./]+", rf'{field}: "a\\0b"', t, count=1),
            f"{field}: 'a\\x00b' holds a null character",
        )
        for field in ("source", "file")
    ),
    (
        "NUL in graph",
        lambda t: t.replace("original:", 'original:\n        graph: "a\\0b"\n        sha256: "0"'),
        "graph: 'a\\x00b' holds a null character",
    ),
    (
        "home",
        lambda t: t.replace("source: m.onnx", "source: ~nobody-here/m.onnx"),
        "'~nobody-here/m.onnx' names no home folder; write the whole path",
    ),
    *(
        (
            f"operators {name}",
            lambda t, value=value: t.replace(
                "original:", f"original:\n        units: [{{operators: {value}}}]"
            ),
            "plan.yaml:14: models.m.variants.original.units[0].operators: expected numbers from 0 "
            "to 999999",
        )
        for name, value in [
            ("range", '"8-9999999999"'),
            ("digits", f'"{"9" * 5000}"'),
            ("hex", "0x" + "f" * 90),
        ]
    ),
    *(
        (
            f"n_units {value}",
            lambda t, value=value: t.replace("original:", f"original:\n        n_units: {value}"),
            "plan.yaml:14: models.m.variants.original.n_units: must be at most 10000",
        )
        for value in (10_001, 10**12)
    ),
    (
        "digits",
        lambda t: t.replace("original:", f"original:\n        n_units: {'9' * 5000}"),
        "plan.yaml:14: models.m.variants.original.n_units: a number has 5000 digits; at most 100",
    ),
    (
        "fork",
        lambda t: t.replace("original:", f"original:\n        forks: [[0, 1, 0x{'f' * 90}]]"),
        "plan.yaml:14: models.m.variants.original.forks[0][2]: must be at most 10000",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_in_an_edit_is_one_clear_line(
    tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    saved(tmp_path)
    edited(tmp_path, change)
    with pytest.raises(ScenarioError) as raised:
        open_plan(tmp_path / "plan")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def _change_model(folder: Path) -> None:
    onnx.save(onnx.load_from_string(two_convs().model.to_bytes()), folder / "m.onnx")


def _other_library(folder: Path) -> None:
    path = folder / "plan" / "machine.json"
    data = json.loads(path.read_text())
    data["identity"]["onnxruntime"] = "0.1"
    path.write_text(json.dumps(data))
    _refingerprint(folder)


def _refingerprint(folder: Path) -> None:
    digest = hashlib.sha256((folder / "plan" / "machine.json").read_bytes()).hexdigest()[:16]
    text = (folder / "plan" / "plan.yaml").read_text()
    head, _, rest = text.partition("fingerprint: ")
    (folder / "plan" / "plan.yaml").write_text(
        f'{head}fingerprint: "{digest}"' + "}" + rest[rest.index("\n") :]
    )


def _rewrite_profile(folder: Path, text: str) -> None:
    """Change a profile together with its checksum."""
    path = folder / "plan" / "profiles" / "m.json"
    before, after = (
        hashlib.sha256(data).hexdigest()[:16] for data in (path.read_bytes(), text.encode())
    )
    path.write_text(text)
    written = re.compile(f'"?{before}"?')
    edited(folder, lambda t: written.sub(f'"{after}"', t))


WRONGS: list[tuple[str, Callable[[Path], None], str]] = [
    (
        "model",
        _change_model,
        "is not the model that the plan was made with; make it anew with `coin",
    ),
    ("gone", lambda f: (f / "m.onnx").unlink(), "m.onnx"),
    ("machine", _other_library, "onnxruntime was '0.1' and is"),
    (
        "machine file",
        lambda f: (f / "plan" / "machine.json").write_text("{}"),
        "machine.json: is not the file that the plan was made with",
    ),
    (
        "profile",
        lambda f: (f / "plan" / "profiles" / "m.json").unlink(),
        "profiles/m.json: No such file or directory; restore the file, or make the plan anew",
    ),
    (
        "changed profile",
        lambda f: (f / "plan" / "profiles" / "m.json").write_text("{}"),
        "profiles/m.json: is not the file that the plan was made with; restore it, or make",
    ),
    (
        "damaged profile",
        lambda f: _rewrite_profile(f, '{"format": "x"}'),
        "m.json: not a plan's profile of format coinfer-plan-profile/1",
    ),
]


@pytest.mark.parametrize(("wrong", "message"), [w[1:] for w in WRONGS], ids=[w[0] for w in WRONGS])
def test_what_no_longer_fits_is_one_clear_line(
    tmp_path: Path, wrong: Callable[[Path], None], message: str
) -> None:
    saved(tmp_path)
    wrong(tmp_path)
    with pytest.raises(CallerError) as raised:
        open_plan(tmp_path / "plan")
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("seconds", ["0.1"]), ("seconds", "12"), ("batch", True), ("load_s", "1"), ("speed", 1)],
)
def test_an_entry_of_a_profile_is_read_strictly(tmp_path: Path, field: str, value: object) -> None:
    saved(tmp_path)
    data = json.loads((tmp_path / "plan" / "profiles" / "m.json").read_text())
    data["entries"][0][field] = value
    _rewrite_profile(tmp_path, json.dumps(data))
    with pytest.raises(ConfigurationError, match=rf"m\.json: damaged profile .*{field}"):
        load_plan(tmp_path / "plan")


def test_a_plan_of_another_machine_can_be_simulated(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    _other_library(tmp_path)
    (tmp_path / "m.onnx").unlink()
    assert read_plan(tmp_path / "plan").profile == plan.profile


def test_a_graph_that_the_plan_holds_is_checked(tmp_path: Path) -> None:
    model = tiny_linear().model
    planned = make_plan({"m": model}, [CPU], Wishes(), Profiler(effort=QUICK))
    with pytest.raises(ConfigurationError, match="'m' was made in memory"):
        save_plan(planned.plan, tmp_path / "plan")
    save_plan(planned.plan, tmp_path / "plan", {"m": model.to_bytes()})
    with coinfer.Engine(tmp_path / "plan") as engine:
        engine.infer("m", model.sample_inputs())
    graph = tmp_path / "plan" / "graphs" / "m.onnx"
    graph.write_bytes(graph.read_bytes() + b"\x00")
    with pytest.raises(ConfigurationError, match="is not the graph that the plan was made with"):
        open_plan(tmp_path / "plan")
    graph.unlink()
    with pytest.raises(ConfigurationError, match=r"m\.onnx: No such file.*make the plan anew"):
        open_plan(tmp_path / "plan")


@pytest.mark.parametrize("field", ["profile", "graph"])
def test_no_file_outside_the_folder_is_read(tmp_path: Path, field: str) -> None:
    saved(tmp_path)
    (tmp_path / "secret.json").write_text("{}")
    if field == "profile":
        edited(tmp_path, lambda t: t.replace("profiles/m.json", "../secret.json"))
    else:
        edited(
            tmp_path,
            lambda t: t.replace(
                "original:", 'original:\n        graph: ../secret.json\n        sha256: "0"'
            ),
        )
    with pytest.raises(ConfigurationError, match="outside of the plan's folder"):
        open_plan(tmp_path / "plan")


def test_a_folder_that_holds_something_else_is_not_written_to(tmp_path: Path) -> None:
    planned = saved(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(ConfigurationError, match="holds no plan; name another folder"):
        save_plan(planned.plan, other)


def described(*names: str) -> Plan:
    """Plan models of these names on a machine that nothing must be measured on."""
    cpu = Processor(name="cpu", backend="imagined", units=frozenset({"core0"}))
    profile = Profile.from_seconds({name: {"cpu": 0.01} for name in names})
    return Plan.of(Machine(processors=(cpu,), profile=profile))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    "name", ["a b", "é", "../../evil", "a/b", "a\u2028b", "a\0b", "a\udce9", "", ".", "a\n"]
)
def test_a_name_that_cannot_be_read_again_is_not_saved(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be kept in a plan; use only") as raised:
        save_plan(described("m", name), tmp_path / "in" / "plan")
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_plan_without_models_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the plan has no models"):
        save_plan(described(), tmp_path / "plan")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_again_is_not_saved(tmp_path: Path) -> None:
    """The name of a processor."""
    plan = saved(tmp_path).plan
    before = contents(tmp_path)
    machine = replace(plan.machine, processors=(replace(CPU, name="c p u"),), profile=Profile())
    original = plan.models["m"].original
    variant = replace(original, spans={"c p u": original.spans["cpu"]})
    with pytest.raises(ConfigurationError, match=r"could not be read again: .*c p u") as raised:
        save_plan(replace(plan, machine=machine).with_variant("m", variant), tmp_path / "plan")
    assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


def test_a_file_name_that_is_not_utf8_is_read_again(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.onnx")
    moved = replace(plan, models={"m": replace(plan.models["m"], source=odd)})
    save_plan(moved, tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan == moved


def test_any_character_of_a_text_is_read_again(tmp_path: Path) -> None:
    odd = "".join(map(chr, [*range(1, 256), 0x2028, 0x2029, 0xFEFF, 0xFFFE, 0x1F600, 0xE0001]))
    save_plan(described("m").warned(odd), tmp_path / "plan")
    assert load_plan(tmp_path / "plan").plan.warnings == (odd,)


def test_nothing_of_an_older_plan_stays(tmp_path: Path) -> None:
    model = tiny_linear().model
    planned = make_plan({"m": model}, [CPU], Wishes(), Profiler(effort=QUICK))
    save_plan(planned.plan, tmp_path / "plan", {"m": model.to_bytes()})
    assert {"graphs/m.onnx", "profiles/m.json"} < contents(tmp_path / "plan").keys()
    for folder in ("plan", "fresh"):
        save_plan(described("other"), tmp_path / folder)
    assert contents(tmp_path / "plan") == contents(tmp_path / "fresh")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fresh", "plan"]


def test_nothing_of_an_older_plan_stays_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_plan(described("m", "old"), tmp_path / "plan")
    save_plan(described("m"), tmp_path / "fresh")
    monkeypatch.chdir(tmp_path / "plan")
    save_plan(described("m"), Path())
    assert contents(Path()) == contents(tmp_path / "fresh")


@pytest.mark.parametrize("call", range(1, 6))
@pytest.mark.parametrize("method", ["write_bytes", "rename"])
def test_an_interrupted_save_leaves_the_older_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, call: int
) -> None:
    folder = tmp_path / "plan"
    save_plan(described("one", "two"), folder)
    before, left = contents(folder), iter(range(1, 99))
    real = getattr(Path, method)

    def interrupted(*args: object) -> object:
        if next(left) == call:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(Path, method, interrupted)
    with suppress(KeyboardInterrupt):
        save_plan(described("three", "four"), folder)
    monkeypatch.undo()
    assert next(left) > (call if method == "write_bytes" and call < 5 else 1)
    if method == "write_bytes" and call < 5:
        assert contents(folder) == before
    load_plan(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]


def test_several_can_save_one_folder_at_once(tmp_path: Path) -> None:
    plans = [described(f"m{i}") for i in range(4)]
    with ThreadPoolExecutor(len(plans)) as pool:
        for _ in range(20):
            list(pool.map(lambda plan: save_plan(plan, tmp_path / "plan"), plans))
            [name] = load_plan(tmp_path / "plan").plan.models
            assert contents(tmp_path / "plan").keys() == {
                "plan.yaml",
                "machine.json",
                f"profiles/{name}.json",
            }
    assert [p.name for p in tmp_path.iterdir()] == ["plan"]


@pytest.mark.parametrize(
    "name", ["notes.txt", "profiles/notes.txt", "graphs/a/b.onnx", ".git/config", "profiles/x.onnx"]
)
def test_what_is_not_ours_is_never_removed(tmp_path: Path, name: str) -> None:
    save_plan(described("m"), tmp_path / "plan")
    foreign = tmp_path / "plan" / name
    foreign.parent.mkdir(parents=True, exist_ok=True)
    foreign.write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(ConfigurationError, match="is no part of a plan and would be lost"):
        save_plan(described("m"), tmp_path / "plan")
    assert contents(tmp_path) == before


def test_where_no_plan_can_be_saved_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    before = contents(tmp_path)
    for folder, message in [
        ("", "is no folder; name one"),
        ("a\0b", "is no folder; name one"),
        ("/dev/null", "/dev/null is a file; name a folder"),
        (tmp_path / "file", "is a file; name a folder"),
        (tmp_path / "file" / "x", "file is no folder, so .*x cannot be made"),
        (tmp_path / "dangling", "is a link to nothing"),
        (tmp_path / "dangling" / "x", "dangling is no folder, so .*x cannot be made"),
        (tmp_path / "full", "is not empty and holds no plan"),
        (tmp_path / ("x" * 300), "too long; name another folder"),
    ]:
        with pytest.raises(ConfigurationError, match=message) as raised:
            check_can_save(folder)
        assert "\n" not in str(raised.value)
    assert contents(tmp_path) == before


def test_a_plan_for_a_described_machine_is_only_for_simulations(tmp_path: Path) -> None:
    cpu = Processor(name="cpu", backend="imagined", units=frozenset({"core0"}))
    machine = Machine(processors=(cpu,), profile=Profile.from_seconds({"m": {"cpu": 0.01}}))
    save_plan(Plan.of(machine), tmp_path / "plan")
    assert read_plan(tmp_path / "plan").profile == machine.profile
    with pytest.raises(ConfigurationError, match="can only be simulated"):
        open_plan(tmp_path / "plan")


class TestEditedCuts:
    def test_the_outputs_are_those_of_the_whole(self, tmp_path: Path) -> None:
        plan = cut_by_hand(tmp_path)
        assert plan.models["m"].is_cut
        _same_outputs(tmp_path)

    def test_a_cut_that_was_moved_is_estimated_and_computes_the_same(self, tmp_path: Path) -> None:
        plan = cut_by_hand(tmp_path)
        _move_first_cut(tmp_path, plan)
        opened = open_plan(tmp_path / "plan").plan
        assert any(entry.estimated for _, entry in opened.profile)
        assert any("are estimated, not measured" in warning for warning in opened.warnings)
        assert read_plan(tmp_path / "plan").profile == opened.profile
        _same_outputs(tmp_path)

    def test_an_operator_that_is_left_out_is_named(self, tmp_path: Path) -> None:
        cut_by_hand(tmp_path)
        edited(tmp_path, _leave_first_operator_out)
        with pytest.raises(ConfigurationError, match=r"operator 0 .* is in no unit; add it to one"):
            open_plan(tmp_path / "plan")

    def test_a_wrong_name_is_corrected(self, tmp_path: Path) -> None:
        plan = cut_by_hand(tmp_path)
        first = plan.models["m"].original.units[0].first
        edited(tmp_path, lambda t: t.replace(f"first: {first}", "first: Gemm_9", 1))
        with pytest.raises(
            ConfigurationError, match=f"should begin with operator 'Gemm_9'.*{first}"
        ):
            open_plan(tmp_path / "plan")


def _leave_first_operator_out(text: str) -> str:
    return re.sub(r'operators: "0-([0-9]+)", first: [^}]+', r'operators: "1-\1"', text)


def _same_outputs(folder: Path) -> None:
    x = CNN.sample_inputs()
    with closing(get_backend("onnxruntime").load(CNN, CPU)) as session:
        expected = session.run(x)
    with coinfer.Engine(folder / "plan") as engine:
        answer = engine.infer("m", x)
    for name, value in expected.items():
        np.testing.assert_allclose(answer[name], value, rtol=1e-4, atol=1e-5)


def _move_first_cut(folder: Path, plan: Plan) -> None:
    """Give the first operator of the second unit to the first unit."""
    one, two, *rest = plan.models["m"].original.units
    moved = two.operators[0]
    lines = [f'          - {{operators: "0-{moved}"}}']
    left = two.operators[1:]
    lines += [f'          - {{operators: "{left[0]}-{left[-1]}"}}'] if left else []
    lines += [f'          - {{operators: "{u.operators[0]}-{u.operators[-1]}"}}' for u in rest]
    assert one.operators == tuple(range(moved))
    assert left, "the second unit has one operator only"
    path = folder / "plan" / "plan.yaml"
    text = path.read_text()
    head, _, tail = text.partition("        units:\n")
    tail = "".join(x for x in tail.splitlines(keepends=True) if not x.startswith("          - {op"))
    path.write_text(head + "        units:\n" + "\n".join(lines) + "\n" + tail)


def test_the_difference_of_two_plans_is_said(tmp_path: Path) -> None:
    plan = saved(tmp_path).plan
    assert not list(differences(plan, plan))
    edited(tmp_path, lambda text: _without(text, "          pair: whole"))
    assert list(differences(plan, load_plan(tmp_path / "plan").plan)) == [
        "m on pair: units 0-0 -> not loaded"
    ]


def test_null_backends_need_no_library(tmp_path: Path) -> None:
    """A plan made with a backend that is handed over opens with it."""
    cpu = Processor(name="cpu", backend="null", units=frozenset({"core0"}))
    profiler = Profiler(effort=QUICK, backends={"null": NullBackend()})
    planned = make_plan({"m": tiny_linear().model}, [cpu], Wishes(), profiler)
    save_plan(planned.plan, tmp_path / "plan", {"m": tiny_linear().model.to_bytes()})
    assert open_plan(tmp_path / "plan").plan.models.keys() == {"m"}
