"""The default processors: one per core, one over all, one per accelerator; shared cores exclude."""

from __future__ import annotations

from itertools import combinations

import pytest

from coinfer.backends import Device, get_backend
from coinfer.backends.null import NullBackend
from coinfer.errors import UnknownNameError
from coinfer.hardware import Cores, catalogue, default_processors
from coinfer.machine.processor import Processor, twins


def cores(*numbers: int, pinnable: bool = True) -> Cores:
    n = len(numbers)
    return Cores(numbers=numbers, host=n, allowed=n, physical=n, quota=None, pinnable=pinnable)


class Fake(NullBackend):
    """Reports the devices it is told."""

    def __init__(self, name: str, *devices: Device) -> None:
        super().__init__()
        self.name = name
        self._devices = devices

    def devices(self) -> tuple[Device, ...]:
        return self._devices


def device(name: str, kind: str, *precisions: str) -> Device:
    return Device(name=name, kind=kind, precisions=("fp32", *precisions), description="a device")


def processors_of(
    monkeypatch: pytest.MonkeyPatch, *backends: Fake, **options: object
) -> dict[str, Processor]:
    by_name = {backend.name: backend for backend in backends}
    monkeypatch.setattr(catalogue, "get_backend", by_name.__getitem__)
    found = default_processors(by_name, cores=cores(4, 6), **options)  # type: ignore[arg-type]
    return {processor.name: processor for processor in found}


def test_one_processor_per_core_and_one_over_all() -> None:
    found = default_processors(["onnxruntime"], cores=cores(4, 6))
    assert [(p.name, p.threads, p.cores) for p in found] == [
        ("cpu0", 1, (4,)),
        ("cpu1", 1, (6,)),
        ("cpu_all", 2, (4, 6)),
    ]


def test_preemption_adds_an_express_processor_on_top_of_each_of_one_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backends = Fake("onnxruntime", device("CPU", "cpu", "bf16")), Fake("b", device("CPU", "cpu"))
    plain = processors_of(monkeypatch, *backends, precisions=("fp32", "bf16"))
    found = processors_of(monkeypatch, *backends, precisions=("fp32", "bf16"), preempt=True)
    below = [name for name, processor in plain.items() if processor.threads == 1]
    assert list(found) == [*plain, *(f"{name}+" for name in below)]
    express = found["cpu1_bf16+"]
    assert (express.backend, express.precision, express.cores) == ("onnxruntime", "bf16", (6,))
    assert (express.units, express.overlays) == ({"core6+"}, {"core6"})
    assert twins(found.values()) == {f"{name}+": name for name in below}
    assert found["cpu1_bf16+"].excludes(found["b1+"])


def test_a_single_core_has_no_second_processor_over_all() -> None:
    assert [p.name for p in default_processors(["onnxruntime"], cores=cores(0))] == ["cpu0"]


def test_processors_exclude_each_other_exactly_where_they_share_a_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cpu = device("CPU", "cpu")
    found = processors_of(monkeypatch, Fake("onnxruntime", cpu), Fake("openvino", cpu))
    assert sorted(found) == ["cpu0", "cpu1", "cpu_all", "ov0", "ov1", "ov_all"]
    for a, b in combinations(found.values(), 2):
        assert a.excludes(b) == bool(set(a.cores) & set(b.cores))


def test_cores_that_are_not_ours_alone_are_not_pinned_to() -> None:
    found = default_processors(["onnxruntime"], cores=cores(0, 1, pinnable=False))
    assert all(processor.cores == () for processor in found)
    assert found[0].units == {"core0"}


def test_low_precision_needs_both_the_users_and_the_devices_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = Fake("openvino", device("CPU", "cpu", "bf16"))
    assert not any("bf16" in name for name in processors_of(monkeypatch, backend))
    found = processors_of(monkeypatch, backend, precisions=("fp32", "bf16", "int8"))
    low = [name for name, processor in found.items() if processor.precision != "fp32"]
    assert low == ["ov0_bf16", "ov1_bf16", "ov_all_bf16"]
    assert found["ov0_bf16"].precision == "bf16"


def test_every_accelerator_is_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    npu = device("QNN:0", "npu")
    found = processors_of(monkeypatch, Fake("onnxruntime", device("CPU", "cpu"), npu))
    assert found["qnn0"].units == {"qnn:0"}
    assert found["qnn0"].device == "QNN:0"
    assert found["qnn0"].cores == ()


def test_two_libraries_for_one_gpu_exclude_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Fake("onnxruntime", device("CUDA:0", "gpu"), device("Tensorrt:0", "gpu"))
    found = processors_of(monkeypatch, backend)
    assert set(found) == {"cuda0", "cuda0_s1", "cuda0_s2", "tensorrt0"}
    assert all(found["tensorrt0"].excludes(processor) for processor in found.values())


def test_gpus_of_different_vendors_do_not_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = processors_of(
        monkeypatch,
        Fake("onnxruntime", device("CUDA:0", "gpu")),
        Fake("openvino", device("GPU.0", "gpu"), device("NPU", "npu")),
    )
    assert sorted(found) == ["cuda0", "cuda0_s1", "cuda0_s2", "ov_gpu0", "ov_npu"]
    three = [found[name] for name in ("cuda0", "ov_gpu0", "ov_npu")]
    assert not any(a.excludes(b) for a, b in combinations(three, 2))


def test_a_third_partys_processors_carry_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    found = processors_of(monkeypatch, Fake("mylib", device("CPU", "cpu")))
    assert sorted(found) == ["mylib0", "mylib1", "mylib_all"]


def test_names_are_unique_and_null_is_never_among_the_defaults() -> None:
    found = default_processors(precisions=("fp32", "bf16", "int8"))
    assert len({p.name for p in found}) == len(found)
    assert "null" not in {p.backend for p in found}


def test_every_default_processor_is_one_that_its_backend_reports() -> None:
    for processor in default_processors():
        devices = {d.name: d for d in get_backend(processor.backend).devices()}
        assert processor.precision in devices[processor.device].precisions


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="nosuch"):
        default_processors(["nosuch"])


def test_a_gpu_of_torch_is_one_processor_and_two_streams_that_run_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = Fake("torch", device("CUDA:1", "gpu", "bf16"))
    ort = Fake("onnxruntime", device("CUDA:1", "gpu"))
    found = processors_of(monkeypatch, torch, ort, precisions=("fp32", "bf16"))
    streams, others = {"gpu1", "gpu1_s1", "gpu1_s2"}, {"cuda1", "cuda1_s1", "cuda1_s2"}
    assert set(found) == streams | {f"{name}_bf16" for name in streams} | others
    assert not found["gpu1_s1"].excludes(found["gpu1_s2"])
    assert found["gpu1_s1"].excludes(found["gpu1_s1_bf16"])
    assert all(found["gpu1"].excludes(found[name]) for name in (*streams, *others))
    assert found["gpu1_s1"].excludes(found["cuda1_s1"])  # never more than two together
    assert not found["gpu1_s1"].excludes(found["cuda1_s2"])
    assert found["gpu1_s1"].likeness == found["gpu1_s2"].likeness


def test_shares_of_a_gpu_are_there_if_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Fake("torch", device("CUDA:0", "gpu", "fp16"))
    ort = Fake("onnxruntime", device("CUDA:0", "gpu"), device("Tensorrt:0", "gpu"))
    found = processors_of(monkeypatch, torch, ort, precisions=("fp32", "fp16"), shares=2)
    one, other = found["gpu0_1of2"], found["gpu0_2of2"]
    assert (one.options, other.options) == ({"share": "1of2"}, {"share": "2of2"})
    assert not one.excludes(other)
    assert one.excludes(found["gpu0_1of2_fp16"])
    assert all(found["gpu0"].excludes(each) for each in (one, other, found["cuda0"]))
    wholes = (found["cuda0"], found["tensorrt0"])
    assert all(whole.excludes(each) for whole in wholes for each in (one, other))
    assert not any("of" in name for name in processors_of(monkeypatch, torch, ort))


def test_the_cpu_of_torch_is_there_only_if_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = Fake("torch", device("CPU", "cpu"))
    assert "torch0" in processors_of(monkeypatch, torch)
    monkeypatch.setattr(catalogue, "installed", lambda: (torch,))
    assert default_processors(cores=cores(4, 6)) == ()


def test_urgent_work_of_a_gpu_has_one_stream_of_high_priority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = Fake("torch", device("CUDA:0", "gpu"))
    found = processors_of(monkeypatch, torch, preempt=True)
    express = [name for name, processor in found.items() if processor.overlays]
    assert express == ["gpu0+", "gpu0_s1+", "gpu0_s2+"]
    assert twins(found.values()) == {name: name[:-1] for name in express}
    assert {found[name].units for name in express} == {frozenset({"cuda:0+"})}
    assert all(found[name].options == {"priority": "high"} for name in express)
