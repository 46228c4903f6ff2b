"""Batching: requests that share runs against runs apart, hand-made batchers, and other servers.

    python benchmarks/batching.py [--networks minilm wide mobilenet detector | ZOO-NAME ...]
        [--loads 30 60 90 120 full] [--deadlines no yes] [--rounds 9] [--seconds 3] [--quick]
        [--ways auto off hand-made http] [--peers mosec litserve ray] [--python PYTHON]
        [--json FILE]

Poisson load at 30, 60, 90 and 120 % of what the cores answer without batching: each network gets an
equal share of their time, by the rates at which one-thread sessions on all cores run it alone.
Without deadlines, and with deadlines of ten runs of the network and one of the longest other, where
late requests are dropped. Then `full`: 64 requests are always under way, in the same shares.

Everything is on ONNX Runtime and is measured in the same minutes: the engines begin with an empty
cache, as the hand-made batcher does. They are told the same but for `batch`: `auto` or `off`. The
hand-made batcher (`batching_ways.py`) takes of each network the batch at which it runs most samples
per second, and for each load the delay that a trial finds best. At full load there is the best
fixed batch, too: each core runs full batches without a pause, with nothing to collect, and answers
nobody. All take turns in each round, with the same arrivals.

`http` is coinfer's own server with `auto` and `off`, and beside it the peers, which collect the
same batches for 2 ms at most: the client is a process of its own, so these are not to be compared
with the others. PYTHON is an interpreter that has the peers, see `serving.py`. They know no
deadlines.

A load takes about rounds * seconds for each way, with deadlines as long again: 3 minutes without
`http`, 9 with it and three peers, after up to a minute of planning and starting. So run one load at
a time: `--loads 30`, then `--loads 60`, and so on.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import onnx_ir

from batching_load import Asks, Result, Serving, in_shares, played, poisson, saturated
from batching_networks import FLAGSHIP, Feed, feeds_of, network
from batching_ways import BATCHES, DELAYS_S, EngineWay, HandMade, Sessions, engine_of_all
from coinfer.hardware.cores import available_cores
from coinfer.metrics.paired import LEAST_ROUNDS, in_turn
from coinfer.model import Model
from environment import OtherWork, machine_lines, print_environment
from requirement import Requirement, print_requirements
from rounds import ratio_of
from tables import new_console, new_table

LOADS = ("30", "60", "90", "120", "full")
WAYS = ("auto", "off", "hand-made", "http")
DEADLINE_RUNS = 10.0
P99, OF_FIXED, HITS = 1.1, 0.95, -0.005
FIXED = "fixed batch"

Found = Mapping[str, Sequence[Result]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What is compared.

    Attributes:
        feeds: What the networks are asked, by name.
        rates: Samples per second of each network alone on all cores, by batch.
        ways: How requests are asked at given moments, by the name of the way.
        hand: The hand-made batcher; None if it takes no part.
        full: How many are answered per second where requests are always under way, by way.
        rounds, seconds: How often, and for how long each time.
    """

    feeds: Mapping[str, Sequence[Feed]]
    rates: Mapping[str, Mapping[int, float]]
    ways: Mapping[str, Callable[[Asks], Result]]
    hand: HandMade | None
    full: Mapping[str, Callable[[], Result]]
    rounds: int
    seconds: float

    @property
    def bound(self) -> dict[str, float]:
        """Requests per second of each network that the cores answer without batching."""
        return {name: each[1] / len(self.rates) for name, each in self.rates.items()}

    @property
    def deadlines_s(self) -> dict[str, float]:
        """By network."""
        own_s = self.own_s
        others_s = {n: max([s for o, s in own_s.items() if o != n], default=0.0) for n in own_s}
        return {name: DEADLINE_RUNS * own_s[name] + others_s[name] for name in own_s}

    @property
    def own_s(self) -> dict[str, float]:
        """What a run of one request takes on one core while the others run, too."""
        return {name: len(available_cores()) / each[1] for name, each in self.rates.items()}

    @property
    def best(self) -> dict[str, int]:
        """The batch at which a network runs most samples per second."""
        return {name: max(each, key=each.__getitem__) for name, each in self.rates.items()}

    def asks(self, load: str, is_due: bool, seed: int, seconds: float) -> Asks:
        """Return the arrivals of a round."""
        rates = {name: rate * int(load) / 100 for name, rate in self.bound.items()}
        feeds = {name: len(each) for name, each in self.feeds.items()}
        return poisson(rates, feeds, seconds, seed, self.deadlines_s if is_due else {})

    def found(self, load: str, is_due: bool) -> tuple[Found, str]:
        """Let all ways take turns; return also how the hand-made batcher was set."""
        if load == "full":
            full: dict[str, list[Result]] = {way: [] for way in self.full}
            for _, way in in_turn(list(full), self.rounds):
                full[way].append(self.full[way]())
            return full, ""
        setting = self._set_by_trial(load, is_due)
        found: dict[str, list[Result]] = {way: [] for way in self.ways}
        for at, way in in_turn(list(found), self.rounds):
            found[way].append(self.ways[way](self.asks(load, is_due, at, self.seconds)))
        return found, setting

    def _set_by_trial(self, load: str, is_due: bool) -> str:
        """Give the hand-made batcher the delay that serves other arrivals best."""
        if self.hand is None:
            return ""
        asks, best = self.asks(load, is_due, 1_000_000, self.seconds), (0.0, 0.0, 0.0)
        for delay_s in DELAYS_S:
            self.hand.delay_s = delay_s
            result = played(self.hand, asks)
            best = max(best, (result.share_in_time, 1 / result.quantile_ms(0.99), delay_s))
        self.hand.delay_s = best[2]
        return f", {best[2] * 1e3:g} ms"


def main() -> int:
    """Measure and print; the exit status is 1 if a requirement is missed."""
    given = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the servers would stay
    console = new_console()
    requirements: list[Requirement] = []
    written: list[dict[str, Any]] = []
    with OtherWork() as other, ExitStack() as stack:
        os.environ["COINFER_CACHE"] = stack.enter_context(tempfile.TemporaryDirectory())
        contest = _opened(stack, given, console)
        networks = list(contest.feeds)
        table = new_table(
            ("load", "deadline", "way"),
            ("per s", "p50 ms", "p99 ms", "in time", *(f"p99 {name}" for name in networks)),
        )
        for load in given.loads:
            for is_due in (
                (False,) if load == "full" else [each == "yes" for each in given.deadlines]
            ):
                found, setting = contest.found(load, is_due)
                for way, results in found.items():
                    title = f"{way}{setting}" if way == "hand-made" else way
                    row = _row(results, networks)
                    shown = load if load == "full" else f"{load} %"
                    table.add_row(shown, "yes" if is_due else "-", title, *row)
                    written.append(_written(load, is_due, title, results))
                requirements += _required(load, is_due, found)
        console.print(table)
    print_environment(console)
    console.print(other.note)
    if given.json:
        facts = {
            "environment": machine_lines(),
            "other work": other.note,
            "rates": contest.rates,
            "deadlines_s": contest.deadlines_s,
            "cells": written,
            "requirements": [dataclasses.asdict(each) for each in requirements],
        }
        given.json.write_text(json.dumps(facts, indent=1))
    return print_requirements(console, requirements)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--networks", nargs="+", default=list(FLAGSHIP))
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=list(LOADS))
    parser.add_argument("--deadlines", nargs="+", choices=("no", "yes"), default=["no", "yes"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS[:3]))
    parser.add_argument("--peers", nargs="*", default=[], help="with `--ways http`")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with the peers")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--quick", action="store_true", help="two short rounds, no claims")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.quick:
        given.rounds, given.seconds = 2, 1.0
    return given


def _opened(stack: ExitStack, given: argparse.Namespace, console: Any) -> Contest:
    """Load and start everything, and say what the networks are like."""
    models: dict[str, Model] = {name: network(name) for name in given.networks}
    feeds = {name: feeds_of(name, model) for name, model in models.items()}
    sessions = Sessions(models, available_cores())
    rates = sessions.rates(feeds, 0.1 if given.quick else 0.3)
    known = Contest(
        feeds=feeds,
        rates=rates,
        ways={},
        hand=None,
        full={},
        rounds=given.rounds,
        seconds=given.seconds,
    )
    _tell(console, known)
    serving: dict[str, Serving] = {}
    for batch in ("auto", "off"):
        if batch in given.ways:
            engine = stack.enter_context(engine_of_all(models, batch))
            serving[f"coinfer {batch}"] = EngineWay(engine, feeds)
            for name, planned in engine.plan.models.items():
                said = [str(choice) for choice in planned.choices if choice.by == "batching"]
                console.print(f"coinfer {batch}, {name}: {'; '.join(said)}", soft_wrap=True)
    hand = None
    if "hand-made" in given.ways:
        hand = HandMade(sessions, feeds, known.best, known.own_s)
        serving["hand-made"] = stack.enter_context(closing(hand))
    shares, counts, seconds = known.bound, {n: len(f) for n, f in feeds.items()}, given.seconds

    def full(way: Serving) -> Result:
        return saturated(way, in_shares(shares, counts), seconds)

    ways: dict[str, Callable[[Asks], Result]] = {}
    at_full: dict[str, Callable[[], Result]] = {}
    for title, way in serving.items():
        ways[title] = lambda asks, way=way: played(way, asks)
        at_full[title] = lambda way=way: full(way)
    at_full[FIXED] = lambda: Result.of_rate(
        sessions.full_batches(feeds, known.best, shares, seconds)
    )
    if "http" in given.ways:
        from batching_http import http_ways

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "models"
        folder.mkdir()
        for name, model in models.items():
            onnx_ir.save(model.graph, folder / f"{name}.onnx")
        said = http_ways(stack, folder, feeds, known.best, given.python, given.peers)
        for title, server in said.items():
            ways[title] = server.played
            at_full[title] = lambda server=server: server.saturated(shares, seconds)
        missing = {"mosec", "litserve", "ray"} - set(given.peers)
        if missing:
            console.print(f"not asked for, so not there: {', '.join(sorted(missing))}")
    return dataclasses.replace(known, ways=ways, hand=hand, full=at_full)


def _tell(console: Any, contest: Contest) -> None:
    table = new_table(
        ("network",),
        ("ms", *(f"batch {batch}" for batch in BATCHES), "per s at 100 %", "deadline ms"),
    )
    for name, rates in contest.rates.items():
        share = [f"{rates[1] / rate:.2f}" for rate in rates.values()]
        table.add_row(
            name,
            f"{contest.own_s[name] * 1e3:.2f}",
            *share,
            f"{contest.bound[name]:.0f}",
            f"{contest.deadlines_s[name] * 1e3:.0f}",
        )
    console.print(
        "What a run of one takes, and a sample of it in larger ones, on all cores at once"
    )
    console.print(table)


def _row(results: Sequence[Result], networks: Sequence[str]) -> Iterator[str]:
    yield f"{statistics.median(r.per_s for r in results):.0f}"
    if not results[0].latencies_s:
        return
    for share in (0.5, 0.99):
        yield f"{statistics.median(r.quantile_ms(share) for r in results):.2f}"
    yield f"{statistics.mean(r.share_in_time for r in results):.1%}"
    for name in networks:
        yield f"{_pooled_ms(results, name):.2f}"


def _pooled_ms(results: Sequence[Result], name: str) -> float:
    """The p99 of a network, of the requests of all rounds."""
    everyone = {name: [s for result in results for s in result.latencies_s[name]]}
    return dataclasses.replace(results[0], latencies_s=everyone).quantile_ms(0.99)


def _written(load: str, is_due: bool, way: str, results: Sequence[Result]) -> dict[str, Any]:
    rounds = [
        {
            "per_s": each.per_s,
            "p50_ms": each.quantile_ms(0.5),
            "p99_ms": each.quantile_ms(0.99),
            "asked": each.asked,
            "in_time": each.in_time,
        }
        for each in results
    ]
    return {"load": load, "deadlines": is_due, "way": way, "rounds": rounds}


def _required(load: str, is_due: bool, found: Found) -> Iterator[Requirement]:
    ours, apart = found.get("coinfer auto"), found.get("coinfer off")
    where = f"{load} %" + (" with deadlines" if is_due else "")
    if load == "full":
        for way in (FIXED, "hand-made"):
            if ours and way in found:
                per_s = [[each.per_s for each in results] for results in (ours, found[way])]
                ratio = ratio_of(*per_s, larger_is_better=True)
                yield Requirement(
                    what=f"full load: answers per second, auto / {way}",
                    value=ratio.median,
                    required=OF_FIXED,
                    remark=ratio.bounds,
                )
    elif ours and apart and is_due:
        hits = [statistics.mean(r.share_in_time for r in results) for results in (ours, apart)]
        yield Requirement(
            what=f"{where}: in time, auto less off",
            value=hits[0] - hits[1],
            required=HITS,
            unit="",
        )
    elif ours and apart:
        p99 = [[each.quantile_ms(0.99) for each in results] for results in (ours, apart)]
        ratio = ratio_of(*p99, larger_is_better=False).inverse
        yield Requirement(
            what=f"{where}: p99, auto / off",
            value=ratio.median,
            required=P99,
            at_most=True,
            remark=ratio.bounds,
        )


if __name__ == "__main__":
    raise SystemExit(main())
