import io

from rich.console import Console

from coinfer.metrics.summary import (
    BoundSummary,
    LatencySummary,
    ModelSummary,
    ProcessorSummary,
    Summary,
    TotalsSummary,
)
from coinfer.metrics.table import render

LATENCY = LatencySummary(mean=21.0, p50=20.25, p90=101.4, p95=1234.5, p99=12345.6, max=99999.0)


def model(**more: int) -> ModelSummary:
    counts = {"submitted": 123456, "completed": 123400, "late": 12, "dropped": 50, "failed": 6}
    return ModelSummary(
        **{**counts, **more},
        throughput_per_s=1234.5,
        deadline_hit_rate=0.9987,
        latency_ms=LATENCY,
    )


def summary(**outcomes: int) -> Summary:
    empty = ModelSummary(submitted=0, completed=0, late=0, dropped=0, failed=0,
                         throughput_per_s=0.0, deadline_hit_rate=None,
                         latency_ms=LatencySummary())  # fmt: skip
    return Summary(
        scenario="three-networks",
        mode="run",
        policy="earliest_finish",
        seed=0,
        duration_s=10.0,
        environment={},
        models={"mobilenetv2-1.0-224": model(**outcomes), "resnet50": empty},
        processors={
            "cpu0-openvino": ProcessorSummary(
                backend="openvino", units=("core0", "core1"), precision="bf16",
                busy_fraction=0.9812, executions=123400, output_errors={"resnet50": 0.0021},
            ),
        },
        totals=TotalsSummary(
            submitted=123456, completed=123400, late=12, throughput_per_s=1234.5, **outcomes
        ),
        bound=BoundSummary(throughput_per_s=1300.0, fraction=0.9496),
        warnings=("resnet50: never asked for",),
    )  # fmt: skip


def printed(shown: Summary) -> str:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(shown))
    return capture.get()


def test_everything_is_readable_in_a_hundred_columns() -> None:
    text = printed(summary(unfinished=3, cancelled=7))
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    for figure in ("mobilenetv2-1.0-224", "123,456", "20.25", "101.4", "1,234", "12,346", "99.9%"):
        assert figure in text


def test_figures_that_do_not_exist_are_dashes_and_not_zeros() -> None:
    row = next(line for line in printed(summary()).splitlines() if line.startswith(" resnet50"))
    assert row.split()[-6:] == ["-"] * 6


def test_rare_outcomes_have_a_line_only_if_they_occurred() -> None:
    assert "unfinished" not in printed(summary())
    text = printed(summary(unfinished=3, cancelled=7))
    assert " mobilenetv2-1.0-224: 7 cancelled, 3 unfinished" in text


def test_bound_precision_error_and_warnings_are_shown() -> None:
    text = printed(summary())
    assert "of 1,300/s, the bound for the offered mix: 95.0%" in text
    assert "bf16 (error <= 0.0021)" in text
    assert "warning: resnet50: never asked for" in text
    assert "98.1%" in text
