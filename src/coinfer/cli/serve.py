"""`coinfer serve`: answer requests over the Open Inference Protocol until it is told to end."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coinfer.cli.console import err
from coinfer.cli.preparing import prepared
from coinfer.cli.progress_bars import profiler_bar
from coinfer.cli.serve_log import LogFormat, request_listeners, serve_log
from coinfer.errors import BackendError, ConfigurationError
from coinfer.plan.plan import AUTO
from coinfer.units import parse_bytes, parse_seconds

if TYPE_CHECKING:
    from coinfer.ensembles import EnsembleDescription
    from coinfer.server.model_folder import ModelFolder
    from coinfer.server.opening import Opened
    from coinfer.server.serving import Server
    from coinfer.server.telemetry.writer import LogWriter

__all__ = ["serve"]

_SCENARIO = (".yaml", ".yml")
_LIBRARY = "lib:"
_NEEDED = ("uvicorn", "httptools", "orjson", "prometheus_client", "google.protobuf", "grpc")


def serve(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of models, MODEL/1/model.onnx in each; or one scenario (.yaml or "
            "lib:NAME), whose models are served.",
            metavar="REPOSITORY...|SCENARIO",
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="A plan's folder; nothing is measured.", metavar="FOLDER"),
    ] = None,
    ensemble: Annotated[
        list[Path] | None,
        typer.Option(
            "--ensemble",
            help="A file that describes a pipeline of these models, served as one; may be given "
            "several times. Python functions that it names run in the server.",
            metavar="FILE",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind; others than this machine's own need tokens.")
    ] = "127.0.0.1",
    http: Annotated[
        int, typer.Option(help="Port of HTTP; -1: none.", min=-1, max=65535, metavar="PORT")
    ] = 8000,
    grpc: Annotated[
        int, typer.Option(help="Port of gRPC; -1: none.", min=-1, max=65535, metavar="PORT")
    ] = 8001,
    metrics: Annotated[
        int,
        typer.Option(
            help="Port of the metrics alone; -1: only at /metrics of HTTP.",
            min=-1,
            max=65535,
            metavar="PORT",
        ),
    ] = 8002,
    metrics_compat: Annotated[
        bool, typer.Option("--metrics-compat", help="Add metrics under Triton's names.")
    ] = False,
    tokens: Annotated[
        Path | None,
        typer.Option(
            help="Only these may ask: lines of NAME TOKEN, and if wanted 100/s and weight=3.",
            metavar="FILE",
        ),
    ] = None,
    allow_anyone: Annotated[
        bool,
        typer.Option("--allow-anyone", help="Let everybody ask, whatever address is bound."),
    ] = False,
    model_control: Annotated[
        bool, typer.Option("--model-control", help="Let clients load and unload models.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Follow changes of the repository: new versions take over."),
    ] = False,
    lenient: Annotated[
        bool,
        typer.Option("--lenient", help="Warn of fields of config.pbtxt that are not followed."),
    ] = False,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Policy of a repository's models; `auto`: chosen while it serves, for what comes, "
            "also for a scenario's or a plan's.",
            metavar="NAME",
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Budget of a repository's models, e.g. 2GiB; others are evicted.", metavar="BYTES"
        ),
    ] = None,
    max_waiting: Annotated[
        int, typer.Option(help="Requests that may wait; more are refused.", min=1)
    ] = 1000,
    max_body: Annotated[
        str, typer.Option(help="Largest request that is taken.", metavar="BYTES")
    ] = "256MiB",
    drain: Annotated[
        str, typer.Option(help="Time that requests have at the end.", metavar="SECONDS")
    ] = "30s",
    shared_memory: Annotated[
        bool,
        typer.Option(help="Let clients share memory with the server."),
    ] = True,
    access_log: Annotated[
        bool, typer.Option("--access-log", help="Write a line for each request.")
    ] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="How the lines of the log are written.")
    ] = LogFormat.TEXT,
    otlp: Annotated[
        str | None,
        typer.Option(
            help="Send traces there over OTLP/HTTP, e.g. http://127.0.0.1:4318; without, where "
            "OTEL_EXPORTER_OTLP_ENDPOINT says, if it does.",
            metavar="URL",
        ),
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Certificate of the server (PEM).", metavar="FILE")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).", metavar="FILE")] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(help="Who vouches for clients (PEM); they need one then.", metavar="FILE"),
    ] = None,
) -> None:
    """Serve models over the Open Inference Protocol, as Triton and KServe clients speak it.

    It is live at once, and ready when all models are loaded and were run. SIGTERM and Ctrl-C end
    it: no more requests are taken, and what was taken is answered.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise BackendError(
            f"the server needs {', '.join(missing)}; install it with "
            "`pip install 'coinfer[server]'`"
        )
    from coinfer.server.access import read_tokens
    from coinfer.server.limits import ServerLimits
    from coinfer.server.serving import ServeOptions, Server
    from coinfer.server.tls import Tls

    if (tls_certificate is None) != (tls_key is None):
        raise ConfigurationError("--tls-certificate and --tls-key belong together; give both")
    tls = None
    if tls_certificate is not None and tls_key is not None:
        tls = Tls(certificate=tls_certificate, key=tls_key, client_authorities=tls_client_ca)
    options = ServeOptions(
        host=host,
        http=_port(http),
        grpc=_port(grpc),
        metrics=_port(metrics),
        tenants=() if tokens is None else read_tokens(tokens),
        allow_anyone=allow_anyone,
        has_shared_memory=shared_memory,
        has_triton_metrics=metrics_compat,
        limits=ServerLimits(body_bytes=int(parse_bytes(max_body)), drain_s=parse_seconds(drain)),
        tls=tls,
    )
    made = _Sources(
        names=sources or [],
        plan=plan,
        policy=policy,
        memory=memory,
        max_waiting=max_waiting,
        lenient=lenient,
        ensembles=ensemble or [],
    )
    made.check(needs_repository=model_control or watch)
    with (
        serve_log(log_format) as log,
        request_listeners(log, has_access_log=access_log, otlp=otlp) as listeners,
        Server(options, listeners=listeners) as server,
    ):
        _serve(server, made, log, has_control=model_control, watch_s=1.0 if watch else None)


def _serve(
    server: Server, sources: _Sources, log: LogWriter, *, has_control: bool, watch_s: float | None
) -> None:
    from coinfer.backends import heap
    from coinfer.server.control import RepositoryControl

    opened = sources.opened()
    control = None
    if opened.planner is not None:
        control = RepositoryControl(
            server.service,
            opened.planner,
            sources.repositories,
            sources.folders,
            lenient=sources.lenient,
        )
        server.service.control = control if has_control else None
    server.end_by_signals()
    server.open(opened, control, sources.ensembles)
    log.say(_announcement(server))
    with heap.settled():
        server.wait(watch_s)
    log.say("ending; what was taken is answered")


def _announcement(server: Server) -> str:
    options = server.options
    names = ", ".join(f"{each.name} ({each.version})" for each in server.service.catalogue)
    scheme = "http" if options.tls is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    schemes = {"http": f"{scheme}://", "metrics": f"{scheme}://", "grpc": ""}
    paths = {"metrics": "/metrics"}
    places = [
        f"{schemes[name]}{host}:{port}{paths.get(name, '')}" for name, port in server.ports.items()
    ]
    return f"serving {names} at {', '.join(places)}"


class _Sources:
    """What is to be served.

    Attributes:
        repositories: Folders of models.
        folders: What is in them, once it was opened.
        lenient: As of the verb.
        ensembles: Pipelines of the models, once they were read.
    """

    def __init__(
        self,
        *,
        names: list[str],
        plan: Path | None,
        policy: str | None,
        memory: str | None,
        max_waiting: int,
        lenient: bool,
        ensembles: list[Path],
    ) -> None:
        self._scenarios = [n for n in names if n.endswith(_SCENARIO) or n.startswith(_LIBRARY)]
        self.repositories = [Path(name) for name in names if name not in self._scenarios]
        self.folders: list[ModelFolder] = []
        self.lenient = lenient
        self._plan, self._policy, self._memory = plan, policy, memory
        self._max_waiting = max_waiting
        self.ensembles: list[EnsembleDescription] = []
        self._ensemble_files = ensembles

    def check(self, *, needs_repository: bool) -> None:
        """See that they make sense, before a port is bound.

        Raises:
            ConfigurationError: they do not.
        """
        from coinfer.ensembles import load_ensemble
        from coinfer.server.model_folder import read_model_folder, repository_folders

        if not self._scenarios and not self.repositories and self._plan is None:
            raise ConfigurationError(
                "nothing to serve; name a folder with MODEL/1/model.onnx in it, a scenario, or "
                "--plan FOLDER"
            )
        if self.repositories and (self._scenarios or self._plan is not None):
            raise ConfigurationError(
                "a repository is served alone; leave the scenario or the plan out"
            )
        if len(self._scenarios) > 1:
            raise ConfigurationError("one scenario is served at a time; name one")
        if needs_repository and not self.repositories:
            raise ConfigurationError(
                "--model-control and --watch are for repositories; name one, or leave them out"
            )
        if not self.repositories and (self._memory or self._policy not in (None, AUTO)):
            raise ConfigurationError(
                "--memory and --policy, but for `--policy auto`, are for repositories; a scenario "
                "and a plan say their own"
            )
        self.ensembles = [load_ensemble(path) for path in self._ensemble_files]
        paths = repository_folders(self.repositories)
        self.folders = [
            read_model_folder(path, lenient=self.lenient, warn=_warn) for path in paths.values()
        ]

    def opened(self) -> Opened:
        """Load everything and return it, warm.

        Raises:
            CoinferError: a model cannot be used; the message names it.
        """
        from coinfer.core.dispatcher import Limits
        from coinfer.server.opening import open_folders, open_prepared, open_saved_plan
        from coinfer.workload.scenario_file import load_scenario

        limits, is_auto = Limits(max_waiting=self._max_waiting), self._policy == AUTO
        if self._scenarios:
            scenario = load_scenario(self._scenarios[0])
            return open_prepared(prepared(scenario, self._plan), is_auto=is_auto)
        if self._plan is not None:
            return open_saved_plan(self._plan, limits=limits, is_auto=is_auto)
        with profiler_bar() as progress:
            return open_folders(
                self.folders,
                limits=limits,
                progress=progress,
                memory=self._memory,
                policy=self._policy,
            )


def _warn(text: str) -> None:
    err().print(f"coinfer: warning: {text}")


def _port(given: int) -> int | None:
    return None if given < 0 else given
