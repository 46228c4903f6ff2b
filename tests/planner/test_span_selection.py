"""Preparing a model: only spans that some plan wants are compiled, and only those are measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from coinfer.backends.null import Faults, NullBackend
from coinfer.errors import BackendError, ConfigurationError
from coinfer.graph.cut_model import CutModel
from coinfer.graph.partition_options import Mode, PartitionOptions
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Fork, Span, completes
from coinfer.model import Model
from coinfer.planner import span_selection as module
from coinfer.planner.span_selection import prepare
from coinfer.profiling import Profiler, Skip
from coinfer.profiling import profiler as profiler_module
from coinfer.profiling.declaration import undeclared
from coinfer.testing.models import model_from_text

FINEST = PartitionOptions(minimum_subgraph_size=1)


def alternating(convolutions: int) -> Model:
    """Convolutions with a Softplus after each: `Conv Softplus Conv Softplus ...`."""
    lines = []
    value = "x"
    for at in range(convolutions):
        after = "y" if at == convolutions - 1 else f"s{at}"
        lines.append(f"c{at} = Conv <pads=[1,1,1,1]> ({value}, w)  {after} = Softplus(c{at})")
        value = after
    weights = ", ".join(["0.1"] * 16 * 16 * 9)
    return model_from_text(
        f"""agraph (float[N,16,32,32] x) => (float[N,16,32,32] y)
        <float[16,16,3,3] w = {{{weights}}}> {{ {" ".join(lines)} }}""",
        name="m",
    )


MODEL = alternating(3)


def npu(**fields: Any) -> Processor:
    fields.setdefault("unsupported_ops", frozenset({"Softplus"}))
    return Processor(name="npu", backend="null", units=frozenset({"npu"}), **fields)


def cpu(name: str = "cpu", **fields: Any) -> Processor:
    fields.setdefault("units", frozenset({name}))
    return Processor(name=name, backend="null", **fields)


class FakeProfiler:
    """Stands in for the profiler: a time per operator type, processor and run, exactly."""

    def __init__(self, seconds: Mapping[str, Mapping[str, float]]) -> None:
        self.seconds = seconds
        self.measured: list[tuple[str, str]] = []
        self.errors: dict[str, float] = {}
        self.surcharge: dict[str, float] = {}
        self.refused: Callable[[str, str], bool] = lambda model, processor: False

    def profile(
        self,
        models: Mapping[str, Model],
        processors: Sequence[Processor],
        *,
        skipped: Callable[[Skip], None],
        batches: Sequence[int],
        feeds: Mapping[str, Sequence[Any]],
        **_: Any,
    ) -> Profile:
        entries = {}
        for name, model in models.items():
            assert [model.check_inputs(feed) for feed in feeds[name]]
            for processor in processors:
                if self.refused(name, processor.name) or undeclared(model, processor):
                    skipped(Skip(name, processor.name, f"{name} on {processor.name}: refused"))
                    continue
                self.measured.append((name, processor.name))
                row = self.seconds[processor.name]
                nodes = list(model.graph.graph)
                total = sum(row.get(node.op_type, 0.0) for node in nodes)
                total += sum(self.surcharge.get(n.outputs[0].name or "", 0.0) for n in nodes)
                entries[ProfileKey(name, processor.name, batches[0])] = Measurement(
                    seconds=(total,),
                    resident_bytes=1000,
                    error=self.errors.get(processor.name),
                )
        return Profile(entries)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeProfiler:
    found = FakeProfiler(
        {
            "npu": {"Conv": 0.001},
            "cpu": {"Conv": 0.010, "Softplus": 0.001},
            "cpu0": {"Conv": 0.010, "Softplus": 0.001},
            "cpu1": {"Conv": 0.010, "Softplus": 0.001},
            "slow": {"Conv": 0.020, "Softplus": 0.002},
        }
    )
    monkeypatch.setattr(profiler_module, "profile_models", found.profile)
    return found


def prepared(
    *processors: Processor,
    model: Model = MODEL,
    options: PartitionOptions = FINEST,
    faults: Faults | None = None,
    **more: Any,
) -> CutModel:
    profiler = Profiler(backends={"null": NullBackend(faults=faults)})
    return prepare(model, processors, options, profiler, **more)


def reaches_the_end(cut: CutModel, *, without: str = "") -> bool:
    return completes({k.span for k, _ in cut.profile if k.processor != without}, cut.units)


def test_a_model_that_every_processor_runs_is_not_cut(fake: FakeProfiler) -> None:
    cut = prepared(cpu("cpu0"), cpu("cpu1"))
    assert (cut.units, cut.pieces[Span()].model) == (1, MODEL)
    assert [key[:4] for key, _ in cut.profile] == [
        ("m", "cpu0", 1, Span()),
        ("m", "cpu1", 1, Span()),
    ]
    assert fake.measured == [("m", "cpu0"), ("m", "cpu1")]


def test_a_fast_processor_with_gaps_gets_what_it_runs_and_the_other_the_rest(
    fake: FakeProfiler,
) -> None:
    cut = prepared(npu(), cpu())
    assert cut.units == 6
    assert cut.profile.expected_s("m", "npu", span=Span(2, 2)) == pytest.approx(0.001)
    assert cut.profile.expected_s("m", "cpu", span=Span(3, 3)) == pytest.approx(0.001)
    assert reaches_the_end(cut)
    assert reaches_the_end(cut, without="npu")
    assert not cut.warnings


def test_only_what_is_used_and_the_longest_runs_are_measured_each_once(
    fake: FakeProfiler,
) -> None:
    model = alternating(12)
    cut = prepared(npu(), cpu(), model=model)
    assert cut.units == 24
    assert len(set(fake.measured)) == len(fake.measured)
    assert {tuple(key) for key, _ in cut.profile} <= {tuple(key) for key, _ in cut.measured}
    possible = 12 + 24 * 25 // 2
    assert len(fake.measured) <= len(cut.profile.entries) + 6 < possible / 4


def test_a_cut_that_would_be_a_loss_is_not_made(fake: FakeProfiler) -> None:
    """What the fast one saves is less than what handing over costs."""
    fake.seconds = {"npu": {"Conv": 0.00099}, "cpu": {"Conv": 0.001, "Softplus": 0.001}}
    cut = prepared(npu(), cpu())
    idle = {key.span for key, _ in cut.profile if key.processor == "cpu"}
    assert Span(0, cut.units - 1) in idle or cut.units == 1
    chains = [key for key, _ in cut.profile if key.processor == "npu" and key.span.first == 2]
    assert not chains


@pytest.mark.parametrize("limit_s", [0.012, 0.015, 0.025])
def test_no_span_exceeds_the_longest_that_is_allowed(fake: FakeProfiler, limit_s: float) -> None:
    options = PartitionOptions(minimum_subgraph_size=1, max_span_s=limit_s)
    cut = prepared(cpu("cpu0"), cpu("cpu1"), options=options)
    assert cut.units > 1
    assert all(entry.mean_s <= limit_s for _, entry in cut.profile)
    for lost in ("cpu0", "cpu1"):
        assert reaches_the_end(cut, without=lost)


def test_spans_that_turn_out_too_long_are_cut_again_where_the_time_really_goes(
    fake: FakeProfiler,
) -> None:
    """The last convolution takes far longer than its arithmetic tells."""
    fake.surcharge = {"c5": 0.090}
    options = PartitionOptions(max_span_s=0.060)
    cut = prepared(cpu(), model=alternating(6), options=options)
    multiple = [key for key, entry in cut.profile if entry.mean_s > 0.066]
    assert [len(list(cut.pieces[key.span].model.graph.graph)) for key in multiple] in ([], [1])
    assert len(cut.profile.entries) <= 4
    assert not cut.warnings


def test_a_span_that_stays_too_long_is_said(
    fake: FakeProfiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_CUTS", 1)
    fake.surcharge = {"c5": 0.090}
    cut = prepared(cpu(), model=alternating(6), options=PartitionOptions(max_span_s=0.060))
    (warning,) = cut.warnings
    assert warning.startswith("the longest span of m takes ")
    assert warning.endswith("more than the 60 ms that were asked for")


def test_twins_get_the_same_spans_and_times(fake: FakeProfiler) -> None:
    options = PartitionOptions(max_span_s=0.012)
    cut = prepared(cpu("cpu0"), cpu("cpu1"), options=options)
    times = {
        name: {key.span: entry for key, entry in cut.measured if key.processor == name}
        for name in ("cpu0", "cpu1")
    }
    assert times["cpu0"] == times["cpu1"]


def test_a_superfluous_processor_does_not_make_spans_shorter_for_the_others(
    fake: FakeProfiler,
) -> None:
    core = frozenset({"core"})
    options = PartitionOptions(max_span_s=0.012)
    alone = prepared(cpu("cpu", units=core), options=options)
    both = prepared(cpu("cpu", units=core), cpu("slow", units=core), options=options, spare=False)
    assert both.pieces.keys() == alone.pieces.keys()


def test_an_uncut_run_that_was_measured_is_kept_for_the_bound(fake: FakeProfiler) -> None:
    options = PartitionOptions(max_span_s=0.012)
    cut = prepared(cpu("cpu0"), options=options)
    whole = Span(0, cut.units - 1)
    assert cut.profile.expected_s("m", "cpu0", span=whole) is None
    assert cut.measured.expected_s("m", "cpu0", span=whole) == pytest.approx(0.033)


def test_a_span_that_does_not_run_is_replaced_by_others_and_named(fake: FakeProfiler) -> None:
    fake.refused = lambda model, processor: (model, processor) == ("m[2-2]", "npu")
    cut = prepared(npu(), cpu())
    assert cut.profile.expected_s("m", "npu", span=Span(0, 0)) is not None
    assert cut.profile.expected_s("m", "npu", span=Span(2, 2)) is None
    assert reaches_the_end(cut)
    assert cut.warnings == ("m[2-2] on npu: refused",)


def test_what_is_not_precise_enough_does_not_run(fake: FakeProfiler) -> None:
    fake.errors = {"npu": 0.1}
    lower = npu(precision="bf16")
    assert prepared(lower, cpu(), tolerance=0.2).profile.processors() == ("npu", "cpu")
    cut = prepared(lower, cpu(), tolerance=0.05)
    assert cut.profile.processors() == ("cpu",)
    assert any("error against fp32 is 0.1, the tolerance 0.05" in each for each in cut.warnings)


def test_a_model_of_which_nobody_runs_a_part_is_refused_by_name(fake: FakeProfiler) -> None:
    with pytest.raises(ConfigurationError, match="Softplus"):
        prepared(npu())


def test_a_model_that_compiles_nowhere_is_refused_with_the_reasons(fake: FakeProfiler) -> None:
    fake.refused = lambda model, processor: True
    with pytest.raises(BackendError, match="'m' together: m on cpu: refused"):
        prepared(cpu())


def test_superfluous_processors_are_kept_only_if_wanted(fake: FakeProfiler) -> None:
    core = frozenset({"core"})
    both = cpu("cpu", units=core), cpu("slow", units=core)
    assert prepared(*both, spare=False).profile.processors() == ("cpu",)
    assert prepared(*both, spare=True).profile.processors() == ("cpu", "slow")


def test_mode_whole_does_not_cut_and_leaves_out_who_cannot_run_it(fake: FakeProfiler) -> None:
    cut = prepared(npu(), cpu(), options=PartitionOptions(mode=Mode.WHOLE))
    assert (cut.units, cut.profile.processors()) == (1, ("cpu",))


@pytest.mark.parametrize("mode", [Mode.UNIT, Mode.FALLBACK_PER_PROCESSOR, Mode.MERGED])
def test_in_every_mode_the_end_is_reached(fake: FakeProfiler, mode: Mode) -> None:
    options = PartitionOptions(mode=mode, minimum_subgraph_size=1)
    cut = prepared(npu(), cpu(), options=options)
    assert reaches_the_end(cut)
    if mode is Mode.UNIT:
        assert all(span.first == span.last for span in cut.pieces)


def test_memory_is_summed_over_sessions(fake: FakeProfiler) -> None:
    options = PartitionOptions(mode=Mode.UNIT, minimum_subgraph_size=1)
    cut = prepared(npu(), cpu(), options=options)
    assert cut.resident_bytes == 1000 * len(cut.profile.entries)
    assert cut.whole_bytes == 1000  # only `cpu` runs it whole


def test_a_larger_batch_is_measured_and_keyed_as_such(fake: FakeProfiler) -> None:
    cut = prepared(npu(), cpu(), batch=4)
    assert {key.batch for key, _ in cut.profile} == {4}


def test_processors_without_declarations_are_asked_or_tried(fake: FakeProfiler) -> None:
    """Loading fails wherever a Softplus is in it; the null backend cannot say so beforehand."""

    class Gaps(NullBackend):
        def supported(self, model: Model, processor: Processor) -> frozenset[str] | None:
            return None

        def load(self, model: Model, processor: Processor) -> Any:
            if processor.name == "npu" and "Softplus" in {n.op_type for n in model.graph.graph}:
                raise BackendError("no Softplus here")
            return super().load(model, processor)

    open_npu = npu(unsupported_ops=frozenset(), device="NPU")
    cut = prepare(MODEL, [open_npu, cpu()], FINEST, Profiler(backends={"null": Gaps()}))
    assert cut.profile.expected_s("m", "npu", span=Span(2, 2)) == pytest.approx(0.001)
    assert reaches_the_end(cut)


def branchy() -> Model:
    """A convolution, two branches of two, their sum, and a last one."""
    weights = ", ".join(["0.1"] * 16 * 16 * 9)
    conv = "Conv <pads=[1,1,1,1]>"
    return model_from_text(
        f"""agraph (float[N,16,32,32] x) => (float[N,16,32,32] y)
        <float[16,16,3,3] w = {{{weights}}}> {{
          s = {conv} (x, w)  l1 = {conv} (s, w)  r1 = {conv} (s, w)
          l2 = {conv} (l1, w)  r2 = {conv} (r1, w)  j = Add(l2, r2)  y = {conv} (j, w) }}""",
        name="m",
    )


def test_branches_are_cut_off_where_two_processors_finish_sooner(fake: FakeProfiler) -> None:
    cut = prepared(
        cpu("cpu0"), cpu("cpu1"), model=branchy(), options=PartitionOptions(branches=True)
    )
    assert cut.forks == (Fork(1, 2, 2),)
    for name in ("cpu0", "cpu1"):
        assert reaches_the_end(cut, without=name)
    assert all(fork in cut.renamed("other").forks for fork in cut.forks)


def test_without_being_asked_for_branches_are_not_cut_off(fake: FakeProfiler) -> None:
    cut = prepared(cpu("cpu0"), cpu("cpu1"), model=branchy(), options=PartitionOptions())
    assert (cut.units, cut.forks) == (1, ())


@pytest.mark.parametrize("names", [["cpu0"], ["slow", "cpu0"]])
def test_branches_that_no_second_processor_speeds_up_are_not_cut_off(
    fake: FakeProfiler, names: list[str]
) -> None:
    fake.seconds["slow"]["Conv"] = 0.9
    processors = [cpu(name) for name in names]
    cut = prepared(*processors, model=branchy(), options=PartitionOptions(branches=True))
    assert cut.forks == ()
