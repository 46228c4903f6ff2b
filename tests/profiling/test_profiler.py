"""The profiler measures all that differs once, remembers it, and says what cannot run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from coinfer.backends.pools import POOLS
from coinfer.errors import BackendError, UnknownNameError
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Profile
from coinfer.model import Model, model_from_ir
from coinfer.profiling import Effort, ProfileCache, Skip, context, profile_models, require_runnable
from coinfer.testing.models import fixed_batch, model_from_text, tiny_linear
from profiling.fakes import LINEAR, FakeBackend, cpu

QUICK = Effort(warmup_runs=0, min_runs=2, max_runs=2)
M = {"m": LINEAR.model}


def profiled(
    backend: FakeBackend,
    *processors: Processor,
    models: dict[str, Model] | None = None,
    **options: Any,
) -> Profile:
    options.setdefault("effort", QUICK)
    return profile_models(
        M if models is None else models,
        processors or (cpu(),),
        backends={"fake": backend},
        **options,
    )


def retrained(model: Model, name: str) -> Model:
    """The same structure with other weights."""
    graph = model.graph.clone()
    for value in graph.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name=value.name)
    return model_from_ir(graph, name=name)


def test_every_model_processor_and_batch_gets_an_entry() -> None:
    wide = cpu("all", units=frozenset({"core0", "core1"}), threads=2)
    found = profiled(FakeBackend(), cpu(), wide, batches=(1, 4))
    assert {(k.model, k.processor, k.batch) for k in found.entries} == {
        ("m", name, batch) for name in ("cpu0", "all") for batch in (1, 4)
    }


def test_a_batch_runs_that_many_samples() -> None:
    backend = FakeBackend()
    profiled(backend, batches=(3,))
    assert backend.batches.count(3) == 3  # once to see the memory, twice counted
    assert set(backend.batches) <= {1, 3}


def test_a_model_without_an_open_batch_is_measured_at_one_only() -> None:
    fixed = fixed_batch().model
    onnx = Processor(name="cpu0", backend="onnxruntime", units=frozenset({"core0"}))
    found = profile_models({"f": fixed}, [onnx], batches=(1, 4), effort=QUICK)
    assert [key.batch for key in found.entries] == [1]


def test_processors_that_differ_only_in_equal_cores_are_measured_once() -> None:
    backend = FakeBackend()
    found = profiled(backend, cpu("cpu0", 0), cpu("cpu1", 1))
    assert len(backend.loads) == 1
    first, second = found.entries.values()
    assert first == second


@pytest.mark.parametrize(
    "change", [{"threads": 2}, {"device": "GPU"}, {"options": {"a": "b"}}], ids=str
)
def test_processors_that_differ_in_kind_are_measured_each(change: dict[str, Any]) -> None:
    backend = FakeBackend()
    profiled(backend, cpu(), dataclasses.replace(cpu("other"), **change))
    assert len(backend.loads) == 2


def test_copies_with_other_weights_share_one_measurement_in_fp32() -> None:
    backend = FakeBackend()
    models = {"a": LINEAR.model, "b": retrained(LINEAR.model, "b")}
    found = profiled(backend, models=models)
    assert found.models() == ("a", "b")
    assert len(backend.loads) == 1


def test_copies_with_other_weights_are_measured_each_below_fp32() -> None:
    backend = FakeBackend()
    models = {"a": LINEAR.model, "b": retrained(LINEAR.model, "b")}
    profiled(backend, cpu(precision="bf16"), models=models)
    assert len(backend.measured) == 2


def test_a_backend_without_versions_is_measured_by_name_and_never_cached(tmp_path: Path) -> None:
    backend = FakeBackend(version="")
    models = {"a": tiny_linear("a").model, "b": tiny_linear("b").model}
    for _ in range(2):
        profiled(backend, models=models, cache=ProfileCache(tmp_path))
    assert len(backend.loads) == 4
    assert not list(tmp_path.iterdir())


class TestCache:
    def measured_again(
        self, cache: ProfileCache, backend: FakeBackend, *args: Any, **kw: Any
    ) -> bool:
        before = len(backend.loads)
        profiled(backend, *args, cache=cache, **kw)
        return len(backend.loads) > before

    @pytest.fixture
    def cache(self, tmp_path: Path) -> ProfileCache:
        cache = ProfileCache(tmp_path / "profiles")
        profiled(FakeBackend(), cache=cache)
        return cache

    def test_what_was_measured_is_not_measured_again(self, cache: ProfileCache) -> None:
        first = profiled(FakeBackend(), cache=cache)
        assert profiled(FakeBackend(), cache=cache) == first
        assert not self.measured_again(cache, FakeBackend())

    def test_names_do_not_matter(self, cache: ProfileCache) -> None:
        renamed = {"other": tiny_linear("other").model}
        assert not self.measured_again(cache, FakeBackend(), cpu("p9", 9), models=renamed)

    def test_another_structure_is_measured(self, cache: ProfileCache) -> None:
        text = "agraph (float[N,4] x) => (float[N,4] y) { y = Relu(x) }"
        changed = {"m": model_from_text(text, name="m")}
        assert self.measured_again(cache, FakeBackend(), models=changed)

    def test_another_version_of_the_library_is_measured(self, cache: ProfileCache) -> None:
        assert self.measured_again(cache, FakeBackend(version="2"))

    def test_another_precision_is_measured(self, cache: ProfileCache) -> None:
        assert self.measured_again(cache, FakeBackend(), cpu(precision="bf16"))

    def test_another_batch_is_measured(self, cache: ProfileCache) -> None:
        assert self.measured_again(cache, FakeBackend(), batches=(2,))

    @pytest.mark.parametrize(
        "more",
        [
            {"warmup_runs": 1},
            {"min_runs": 3},
            {"max_runs": 3},
            {"max_s": 2.0},
            {"precision": 0.001},
        ],
    )
    def test_what_was_measured_with_less_effort_is_measured_again_for_more(
        self, cache: ProfileCache, more: dict[str, Any]
    ) -> None:
        effort = dataclasses.replace(QUICK, **more)
        assert self.measured_again(cache, FakeBackend(), effort=effort)
        assert not self.measured_again(cache, FakeBackend(), effort=effort)

    @pytest.mark.parametrize(
        "less", [{"min_runs": 1}, {"max_runs": 1}, {"max_s": 1.0}, {"precision": 0.1}]
    )
    def test_what_was_measured_with_more_effort_does_for_less(
        self, cache: ProfileCache, less: dict[str, Any]
    ) -> None:
        effort = dataclasses.replace(QUICK, **less)
        assert not self.measured_again(cache, FakeBackend(), effort=effort)
        assert not self.measured_again(cache, FakeBackend())

    def test_more_of_one_and_less_of_another_is_measured_again(self, cache: ProfileCache) -> None:
        assert self.measured_again(
            cache, FakeBackend(), effort=dataclasses.replace(QUICK, min_runs=1, max_s=2.0)
        )

    def test_other_shapes_of_the_samples_are_measured(self, cache: ProfileCache) -> None:
        feeds = {"m": [LINEAR.model.sample_inputs()]}  # one sample instead of four
        assert self.measured_again(cache, FakeBackend(), feeds=feeds)

    def test_another_machine_is_measured(
        self, cache: ProfileCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(context, "cpu_name", lambda: "another processor")
        assert self.measured_again(cache, FakeBackend())

    def test_below_fp32_other_samples_are_measured(self, cache: ProfileCache) -> None:
        low = cpu(precision="bf16")
        profiled(FakeBackend(), low, cache=cache)
        assert not self.measured_again(cache, FakeBackend(), low)
        feeds = {"m": [LINEAR.model.sample_inputs(seed=seed) for seed in range(10, 14)]}
        assert self.measured_again(cache, FakeBackend(), low, feeds=feeds)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"\xff\xfe",
            b'{"format": "coinfer-profile/1", "entries": [{}]}',
            b'{"format": "coinfer-profile/1", "entries": [], "effort": [0, 2, 2, 1.5, -0.01]}',
            b'{"format": "coinfer-profile/1", "entries": [{"model": "model", "processor":'
            b' "processor", "batch": 1, "span": [0, 0], "seconds": [1.0], "load_s": 0,'
            b' "resident_bytes": 0, "run_bytes": 0, "error": "large"}]}',
        ],
    )
    def test_a_damaged_file_is_measured_again_and_mended(
        self, cache: ProfileCache, content: bytes
    ) -> None:
        [file] = cache.folder.rglob("*.json")
        file.write_bytes(content)
        assert self.measured_again(cache, FakeBackend())
        assert not self.measured_again(cache, FakeBackend())

    @pytest.mark.parametrize("effort", [None, "much", [1], [0, 2, "2", 1.5, "x"]])
    def test_a_file_that_does_not_say_its_effort_is_measured_again(
        self, cache: ProfileCache, effort: object
    ) -> None:
        [file] = cache.folder.rglob("*.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), "effort": effort}))
        assert self.measured_again(cache, FakeBackend())

    def test_a_folder_that_cannot_be_written_is_no_error(self, tmp_path: Path) -> None:
        in_the_way = tmp_path / "file"
        in_the_way.write_text("not a folder")
        assert profiled(FakeBackend(), cache=ProfileCache(in_the_way)).entries

    def test_the_error_is_kept_in_the_cache(self, tmp_path: Path) -> None:
        cache, low = ProfileCache(tmp_path), cpu(precision="bf16")
        errors = []
        for backend in (FakeBackend(error=0.125), FakeBackend()):
            [entry] = profiled(backend, low, cache=cache).entries.values()
            errors.append(entry.error)
        assert errors[0] == errors[1] == pytest.approx(0.125, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 4])
def test_the_error_against_fp32_is_measured_at_every_batch(batch: int) -> None:
    low = cpu(precision="bf16")
    [entry] = profiled(FakeBackend(error=0.25), low, batches=(batch,)).entries.values()
    assert entry.error == pytest.approx(0.25, rel=1e-5)


def test_fp32_has_no_error_to_measure() -> None:
    [entry] = profiled(FakeBackend(error=0.25)).entries.values()
    assert entry.error is None


def test_outputs_that_are_not_finite_below_fp32_are_refused() -> None:
    with pytest.raises(BackendError, match="outputs in bf16 are not finite"):
        profiled(FakeBackend(error=float("nan")), cpu(precision="bf16"))


def test_every_session_is_closed() -> None:
    backend = FakeBackend()
    profiled(backend, cpu(), cpu("low", precision="bf16"), batches=(1, 2))
    assert all(session.closed for session in backend.sessions)


def test_rivals_with_more_threads_than_there_is_room_for_are_measured_all_the_same() -> None:
    wide = [
        Processor(
            name=f"wide{at}",
            backend="onnxruntime",
            units=frozenset({"core0", "core1"}),
            threads=4,
            options={"session.dynamic_block_base": str(at)},
        )
        for at in range(1, 8)
    ]
    assert sum(p.threads - 1 for p in wide) > POOLS.room(4)
    held, skips = POOLS.in_use, list[Skip]()
    found = profile_models(M, wide, effort=QUICK, skipped=skips.append)
    assert not skips
    assert set(found.processors()) == {p.name for p in wide}
    assert POOLS.in_use == held


def test_a_processor_that_refuses_a_model_is_skipped_with_the_reason() -> None:
    skips: list[Skip] = []
    wide = cpu("all", threads=2)
    found = profiled(FakeBackend(refused=frozenset({"all"})), cpu(), wide, skipped=skips.append)
    assert [key.processor for key in found.entries] == ["cpu0"]
    [skip] = skips
    assert (skip.model, skip.processor) == ("m", "all")
    assert "refused" in skip.reason
    require_runnable(["m"], found, skips)


def test_a_processor_with_declared_gaps_is_not_given_a_whole_model_that_has_them() -> None:
    skips: list[Skip] = []
    profile = profile_models(
        {"a": LINEAR.model},
        [cpu("whole"), cpu("gaps", 1, unsupported_ops=frozenset({"MatMul"}))],
        backends={"fake": FakeBackend()},
        effort=QUICK,
        skipped=skips.append,
    )
    assert profile.processors() == ("whole",)
    [skip] = skips
    assert (skip.model, skip.processor) == ("a", "gaps")
    assert "it declares that it does not run MatMul; cut the model with `partition`" in skip.reason


def test_a_declaration_that_covers_a_model_changes_nothing() -> None:
    profile = profile_models(
        {"a": LINEAR.model},
        [cpu("p", supported_ops=frozenset({"MatMul", "Add"}))],
        backends={"fake": FakeBackend()},
        effort=QUICK,
    )
    assert profile.processors() == ("p",)


def test_a_session_that_raises_while_it_is_measured_is_skipped_and_closed() -> None:
    skips: list[Skip] = []
    backend = FakeBackend(raises=RuntimeError("out of\nmemory"))
    found = profiled(backend, skipped=skips.append)
    assert not found.entries
    assert skips[0].reason == (
        "model 'm' on processor 'cpu0' failed while it was measured: RuntimeError: out of memory"
    )
    assert all(session.closed for session in backend.sessions)


def test_without_a_place_for_reasons_the_first_one_is_raised() -> None:
    with pytest.raises(BackendError, match="refused"):
        profiled(FakeBackend(refused=frozenset({"cpu0"})))


def test_a_model_that_nothing_runs_is_one_error_with_all_reasons() -> None:
    skips: list[Skip] = []
    refused = frozenset({"cpu0", "all"})
    found = profiled(
        FakeBackend(refused=refused), cpu(), cpu("all", threads=2), skipped=skips.append
    )
    with pytest.raises(BackendError, match=r"no processor runs model 'm': .*cpu0.*all") as caught:
        require_runnable(["m"], found, skips)
    assert "\n" not in str(caught.value)


def test_progress_is_told_before_each_measurement_and_at_the_end() -> None:
    told: list[tuple[int, int, str]] = []
    profiled(FakeBackend(), cpu(), cpu("cpu1", 1), progress=lambda *args: told.append(args))
    assert told == [(0, 2, "m on cpu0, cpu1"), (2, 2, "profiled")]


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(UnknownNameError, match="fake"):
        profile_models(M, [cpu()])
