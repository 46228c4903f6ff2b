"""Shares of a GPU: disjoint, made once, and as large as the driver says they are."""

from __future__ import annotations

import dataclasses
import sys
from contextlib import closing
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from backends.fake_gpus import GPU, FakeGpus, FakeSplitter  # noqa: E402
from coinfer.backends.torch.backend import TorchBackend  # noqa: E402
from coinfer.backends.torch.green_contexts import GreenContexts  # noqa: E402
from coinfer.backends.torch.shares import Multiprocessors, Share, Shares  # noqa: E402
from coinfer.errors import BackendError  # noqa: E402
from coinfer.machine.processor import Processor  # noqa: E402
from coinfer.testing.models import tiny_linear  # noqa: E402


def share(text: str) -> Processor:
    return Processor(
        name=f"gpu0_{text}",
        backend="torch",
        device=GPU,
        units=frozenset({text}),
        options={"share": text},
    )


def test_a_gpu_is_split_once_and_each_processor_has_its_part() -> None:
    gpus = FakeGpus()
    backend = TorchBackend(gpus)
    example = tiny_linear()
    for text in ("1of2", "2of2", "1of2"):
        with closing(backend.load(example.model, share(text))) as session:
            assert session.placement().multiprocessors == 64
            inputs = example.model.sample_inputs()
            assert session.run(inputs).keys() == {"y"}
    assert gpus.splitter.splits == [[64, 64]]
    assert len(gpus.made) == 2, "a stream for each share"


def test_a_second_split_would_overlap_the_first_and_is_refused() -> None:
    backend = TorchBackend(FakeGpus())
    backend.load(tiny_linear().model, share("1of2")).close()
    with pytest.raises(BackendError, match=r"CUDA:0 is split into 2 shares.*would overlap"):
        backend.load(tiny_linear().model, share("1of4"))


def test_the_whole_gpu_and_its_streams_have_no_share() -> None:
    gpus = FakeGpus()
    whole = dataclasses.replace(share("1of2"), name="gpu0", options={})
    with closing(TorchBackend(gpus).load(tiny_linear().model, whole)) as session:
        assert session.placement().multiprocessors == 0
    assert not gpus.splitter.splits


@pytest.mark.parametrize("text", ["2", "0of2", "3of2", "1of1", "half", "1of2of3"])
def test_a_share_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(BackendError, match="written like 1of2"):
        TorchBackend(FakeGpus()).load(tiny_linear().model, share(text))


def test_more_shares_than_there_are_groups_of_multiprocessors_are_refused() -> None:
    with pytest.raises(BackendError, match=r"has 132 multiprocessors, of which a share has 8"):
        TorchBackend(FakeGpus()).load(tiny_linear().model, share("1of20"))


def test_what_the_driver_made_is_read_back_and_must_be_what_was_asked_for() -> None:
    shares = Shares(FakeSplitter(lacking=8))
    with pytest.raises(BackendError, match=r"2 shares of 64 multiprocessors, .* made \[56, 56\]"):
        shares.part(0, Share(1, 2), "it")


@pytest.mark.parametrize(
    ("there", "parts", "each"),
    [
        (Multiprocessors(count=132, least=8, multiple=8), 2, 64),
        (Multiprocessors(count=132, least=8, multiple=8), 16, 8),
        (Multiprocessors(count=132, least=8, multiple=8), 17, 0),
        (Multiprocessors(count=108, least=4, multiple=2), 2, 54),
        (Multiprocessors(count=80, least=2, multiple=0), 3, 26),
    ],
)
def test_parts_are_equal_and_as_large_as_groups_allow(
    there: Multiprocessors, parts: int, each: int
) -> None:
    assert there.each(parts) == each


def test_without_cuda_core_or_a_driver_it_is_one_clear_error() -> None:
    pattern = "shares of a GPU need cuda-core|cannot be split into shares"
    with pytest.raises(BackendError, match=pattern):
        Shares(GreenContexts()).part(0, Share(1, 2), "it")


def cuda_core(made: list[object]) -> ModuleType:
    """What of cuda.core 1.2 is used, with a GPU of 132 multiprocessors."""

    @dataclasses.dataclass
    class Resource:
        sm_count: int
        min_partition_size: int = 8
        coscheduled_alignment: int = 8

        def split(self, options: SimpleNamespace) -> tuple[list[Resource], Resource]:
            made.append(("split", options.count))
            rest = self.sm_count - sum(options.count)
            return [Resource(count) for count in options.count], Resource(rest)

    class Context:
        def __init__(self, group: Resource) -> None:
            self.resources = SimpleNamespace(sm=group)

        def create_stream(self, options: SimpleNamespace) -> SimpleNamespace:
            made.append(("stream", self.resources.sm.sm_count, options.priority))
            return SimpleNamespace(handle=4711)

    class Device:
        def __init__(self, number: int) -> None:
            self.resources = SimpleNamespace(sm=Resource(132))

        def set_current(self) -> None:
            made.append("current")

        def create_context(self, options: SimpleNamespace) -> Context:
            (group,) = options.resources
            return Context(group)

    core = ModuleType("cuda.core")
    names = ("SMResourceOptions", "ContextOptions", "StreamOptions")
    vars(core).update(dict.fromkeys(names, SimpleNamespace), Device=Device, __version__="1.2")
    return core


def test_green_contexts_are_made_of_one_split_and_their_streams_are_torchs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[object] = []
    monkeypatch.setitem(sys.modules, "cuda.core", cuda_core(made))
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle, device: (handle, device))
    shares = Shares(GreenContexts())
    one, other = (shares.part(0, Share(number, 2), "it") for number in (1, 2))
    assert (one.multiprocessors, other.multiprocessors) == (64, 64)
    assert one.stream(is_urgent=True) == (4711, 0)
    other.stream(is_urgent=False)
    assert [each for each in made if each != "current"] == [
        ("split", (64, 64)),
        ("stream", 64, -1),
        ("stream", 64, 0),
    ]


def test_a_cuda_core_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("cuda.core")
    old.__version__ = "0.3"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cuda.core", old)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    with pytest.raises(BackendError, match=r"cuda-core 1.0 or later, and 0.3 is installed"):
        Shares(GreenContexts()).part(0, Share(1, 2), "it")
