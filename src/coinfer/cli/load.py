"""`coinfer load`: play a scenario's load on a server and print what came of it."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli import options
from coinfer.cli.console import out
from coinfer.cli.output import check_writable, write_result
from coinfer.cli.progress_bars import time_bar
from coinfer.errors import BackendError, ConfigurationError
from coinfer.metrics.table import render
from coinfer.units import parse_seconds

if TYPE_CHECKING:
    from coinfer.load_test.call import Sender

__all__ = ["load"]


@options.with_groups
def load(
    scenario: options.ScenarioArgument,
    *,
    url: Annotated[
        str | None,
        typer.Option(help="The server over HTTP, e.g. http://127.0.0.1:8000.", metavar="URL"),
    ] = None,
    grpc: Annotated[
        str | None, typer.Option(help="The server over gRPC instead.", metavar="HOST:PORT")
    ] = None,
    duration: options.DurationOption = None,
    seed: options.SeedOption = None,
    rate_factor: Annotated[
        float | None, typer.Option(help="Multiply all open-loop rates.", metavar="F")
    ] = None,
    dim: options.DimOption = None,
    allow_data_in: options.AllowDataOption = None,
    connections: Annotated[
        int, typer.Option(help="Connections of HTTP at most; requests wait for one.", min=1)
    ] = 1000,
    token: Annotated[
        str | None,
        typer.Option(help="A bearer token.", metavar="TOKEN", envvar="COINFER_TOKEN"),
    ] = None,
    json: options.JsonOption = None,
) -> None:
    """Play a scenario's load on a server of the Open Inference Protocol, and show what it reached.

    Requests are sent when they are due, whether or not earlier ones were answered, and latency
    counts from then. The server must serve the scenario's models under the same names.
    """
    from coinfer.hardware.environment import describe
    from coinfer.load_test.play import play_on_server
    from coinfer.metrics.summary import summarise
    from coinfer.planner.model_source import resolve_model
    from coinfer.planner.prepare import feeds_of
    from coinfer.planner.scenario_sizes import with_sizes
    from coinfer.workload.scenario_file import load_scenario

    check_writable(json)
    wanted = load_scenario(scenario).with_options(
        duration_s=None if duration is None else parse_seconds(duration),
        seed=seed,
        rate_factor=rate_factor,
    )
    sender = _sender(url, grpc, connections, token)
    models = {
        name: resolve_model(spec.source, name=name, data_root=allow_data_in)
        for name, spec in wanted.models.items()
    }
    open_dims = {name: model.open_dims for name, model in models.items()}
    wanted = with_sizes(wanted, options.sizes(dim), open_dims, {})
    with time_bar("loading", wanted.end_s) as on_tick:
        done = play_on_server(wanted, feeds_of(wanted, models), sender, on_tick=on_tick)
    warnings = []
    if done.interrupted:
        warnings.append(f"interrupted: these are the first {done.run_counts.duration_s:.3g} s")
    if done.unanswered:
        warnings.append(f"{done.unanswered} requests were never answered")
    summary = summarise(
        done.run_counts,
        scenario=wanted.name,
        mode=f"load on {grpc or url}",
        policy="of the server",
        seed=wanted.seed,
        processors=(),
        models=wanted.models,
        environment=describe(),
        warnings=warnings,
    )
    out().print(render(summary))
    write_result(json, summary.to_json())
    if done.interrupted:
        raise typer.Exit(130)


def _sender(url: str | None, grpc: str | None, connections: int, token: str | None) -> Sender:
    """Make what sends.

    Raises:
        ConfigurationError: not one of both is given.
        BackendError: a library is missing.
    """
    if (url is None) == (grpc is None):
        raise ConfigurationError(
            "name the server with --url http://127.0.0.1:8000, or with --grpc 127.0.0.1:8001"
        )
    library = "httptools" if grpc is None else "grpc"
    if importlib.util.find_spec(library) is None:
        raise BackendError(f"{library} is missing; install it with `pip install 'coinfer[server]'`")
    if url is not None:
        from coinfer.load_test.http_sender import HttpSender

        return HttpSender(url, connections=connections, token=token)
    from coinfer.load_test.grpc_sender import GrpcSender

    assert grpc is not None
    return GrpcSender(grpc, token=token)
