"""MLPerf's LoadGen and Triton's perf_analyzer drive the server unchanged, where installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytest.importorskip("uvicorn", reason="the extra `server` is not installed")

from coinfer.server.serving import ServeOptions, Server
from coinfer.testing.models import tiny_linear
from server.servers import serving

X = np.ones((1, 4), np.float32)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving({"m": tiny_linear().model}, options=ServeOptions(http=0, grpc=0)) as made:
        yield made


def _answered(server: Server) -> int:
    [said] = server.service.model_statistics("m")["model_stats"]
    return int(said["inference_stats"]["success"]["count"])


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["SingleStream", "MultiStream", "Server", "Offline"])
def test_loadgen_drives_it(server: Server, scenario: str, tmp_path: Path) -> None:
    loadgen = pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen is not installed")
    before = _answered(server)
    sent = _run_loadgen(loadgen, server, scenario, tmp_path)
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    assert "Result is : VALID" in summary
    assert sent >= 50
    assert _answered(server) - before == sent


def _run_loadgen(loadgen: Any, server: Server, scenario: str, folder: Path) -> int:
    """Let LoadGen ask the server by Triton's client; return how many samples it asked for."""
    import tritonclient.grpc as triton

    sent = 0
    errors: list[object] = []
    with triton.InferenceServerClient(f"127.0.0.1:{server.ports['grpc']}") as client:
        tensor = triton.InferInput("x", list(X.shape), "FP32")
        tensor.set_data_from_numpy(X)

        def issue(samples: Sequence[Any]) -> None:
            nonlocal sent
            sent += len(samples)
            for sample in samples:

                def done(result: Any, error: Any, number: int = sample.id) -> None:
                    errors.extend([] if error is None else [error])
                    answer = loadgen.QuerySampleResponse(number, 0, 0)
                    loadgen.QuerySamplesComplete([answer])

                client.async_infer("m", [tensor], callback=done)

        asked = loadgen.ConstructSUT(issue, lambda: None)
        samples = loadgen.ConstructQSL(8, 8, lambda _: None, lambda _: None)
        settings = loadgen.TestSettings()
        settings.scenario = getattr(loadgen.TestScenario, scenario)
        settings.mode = loadgen.TestMode.PerformanceOnly
        # LoadGen calls a result valid only from so many queries on.
        settings.min_query_count = 700
        settings.min_duration_ms = 10
        settings.multi_stream_samples_per_query = 2
        settings.server_target_qps = 400.0
        settings.server_target_latency_ns = 10_000_000_000
        settings.offline_expected_qps = 5000.0
        logs = loadgen.LogSettings()
        logs.log_output.outdir = str(folder)
        logs.enable_trace = False
        loadgen.StartTestWithLogSettings(asked, samples, settings, logs, "")
        loadgen.DestroyQSL(samples)
        loadgen.DestroySUT(asked)
    assert not errors
    return sent


def _perf_analyzer() -> str:
    """Return the program, or skip; a wheel of it has the program inside."""
    found = shutil.which("perf_analyzer")
    package = importlib.util.find_spec("perf_analyzer")
    if package is not None and package.origin is not None:
        inside = Path(package.origin).parent / "bin" / "perf_analyzer"
        found = str(inside) if inside.exists() else found
    if found is None:
        pytest.skip("perf_analyzer is not installed")
    tried = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)
    if "GLIBC" in tried.stderr:
        pytest.skip(f"perf_analyzer does not run here: {tried.stderr.splitlines()[0]}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_perf_analyzer_drives_it(server: Server, protocol: str) -> None:
    program = _perf_analyzer()
    place = f"127.0.0.1:{server.ports[protocol]}"
    options = ["-m", "m", "-u", place, "-i", protocol, "-b", "1", "--shape", "x:4"]
    options += ["--measurement-mode", "count_windows", "--measurement-request-count", "50"]
    options += ["--stability-percentage", "999", "--max-trials", "3"]
    done = subprocess.run(
        [program, *options], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
