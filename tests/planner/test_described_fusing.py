"""Machines that a file describes may have times of fused variants."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from coinfer.errors import ConfigurationError
from coinfer.planner.prepare import prepare
from coinfer.runtime.prepared import Prepared
from coinfer.sim import simulate
from coinfer.workload.scenario_file import parse_scenario

MACHINE = """
processors: {cpu: {}, npu: {}}
times:
  a: {cpu: 10ms}
  b: {cpu: 10ms, npu: 50ms}
  c: {cpu: 10ms}
  a+b+c: {cpu: 12ms, npu: 1ms}
  a+x: {cpu: 12ms}
"""


def described(folder: Path, fuse: str, more: str = "", models: Sequence[str] = "abc") -> Prepared:
    path = folder / "machine.yaml"
    path.write_text(MACHINE)
    text = (
        f"models: {{{', '.join(f'{m}: {{source: {m}.onnx}}' for m in models)}}}\n"
        f"arrivals: {{{', '.join(f'{m}: {{poisson: 60/s}}' for m in models)}}}\n"
        f"duration: 10s\nfuse: {fuse}\n{more}"
    )
    return prepare(parse_scenario(text), machine_file=path)


def test_they_are_used_where_all_members_run(tmp_path: Path) -> None:
    ready = described(tmp_path, "auto")
    assert {n: (f.models, f.processors) for n, f in ready.plan.fused.items()} == {
        "a+b+c": (("a", "b", "c"), ("cpu",))
    }
    apart = described(tmp_path, "never")
    assert not apart.plan.fused
    counts = [simulate(each.as_run, each.plan).run_counts for each in (ready, apart)]
    served = [sum(each.served for each in one.models.values()) for one in counts]
    assert counts[0].fused
    assert served[0] > 1.4 * served[1]


def test_a_group_without_times_is_an_error(tmp_path: Path) -> None:
    assert list(described(tmp_path, "[[a, b, c]]").plan.fused) == ["a+b+c"]
    with pytest.raises(ConfigurationError, match="give it some as 'b\\+a'"):
        described(tmp_path, "[[b, a]]")


def test_a_variant_of_models_that_are_not_all_there_is_left_out(tmp_path: Path) -> None:
    assert not described(tmp_path, "auto", models="ab").plan.fused


def test_a_model_may_have_such_a_name(tmp_path: Path) -> None:
    assert not described(tmp_path, "auto", models=["a", "b", "c", "a+b+c"]).plan.fused


def test_a_memory_budget_refuses_them(tmp_path: Path) -> None:
    assert not described(tmp_path, "auto", "memory: 1GiB\n").plan.fused
    with pytest.raises(ConfigurationError, match="no memory budget"):
        described(tmp_path, "[[a, b, c]]", "memory: 1GiB\n")
