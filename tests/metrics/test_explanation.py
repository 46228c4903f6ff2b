"""An explanation says what the core expected of every processor when it chose one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from coinfer.core.commands import Command, Run
from coinfer.core.dispatcher import Dispatcher
from coinfer.core.events import (
    Arrived,
    Event,
    Failed,
    Finished,
    LoadedVariant,
    ModelLoaded,
    ProcessorLost,
)
from coinfer.core.request import Outcome, Request
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Span
from coinfer.machine.variant_use import Use
from coinfer.metrics.explanation import SLOWEST, Explainer, Explanation
from coinfer.metrics.explanation_table import render_explanation
from coinfer.policies import make_policy

TIMES = {
    (0, 1, "cpu"): 10.0,
    (0, 0, "npu"): 1.0,
    (0, 0, "cpu"): 8.0,
    (1, 1, "cpu"): 3.0,
    (1, 1, "gpu"): 4.0,
}


def profile() -> Profile:
    return Profile(
        {
            ProfileKey("m", name, 1, Span(first, last)): Measurement(seconds=(s,))
            for (first, last, name), s in TIMES.items()
        }
    )


class Story:
    """A dispatcher under an explainer; the test plays the driver."""

    def __init__(
        self, explainer: Explainer, since_s: float = -math.inf, policy: str = "earliest_finish"
    ) -> None:
        names = ("cpu", "npu", "gpu")
        everyone = [Processor(name=n, backend="null", units=frozenset({n})) for n in names]
        self.core = Dispatcher(everyone, make_policy(policy))
        self.explainer = explainer
        explainer.watch(self.core.view, since_s)
        self.tell(ModelLoaded("m", 2, profile()), 0.0)

    def tell(self, event: Event, now: float) -> list[Command]:
        commands = self.core.handle(event, now)
        self.explainer.observe(event, commands, now)
        return commands

    def ask(self, number: int, now: float) -> list[int]:
        return started(self.tell(Arrived(Request(number, "m", now)), now))

    def finish(self, execution: int, now: float, service_s: float = 1.0) -> list[int]:
        return started(self.tell(Finished(execution, service_s), now))


def started(commands: Sequence[Command]) -> list[int]:
    return [c.execution.id for c in commands if isinstance(c, Run)]


def found(explainer: Explainer) -> Explanation:
    assert explainer.found is not None
    return explainer.found


def rows(choice: Any) -> dict[str, tuple[Any, ...]]:
    return {
        each.processor: (each.wait_s, each.span and tuple(each.span), each.span_s, each.reason)
        for each in choice.alternatives
    }


def test_each_choice_lists_what_every_processor_could_have_done() -> None:
    story = Story(Explainer("0"))
    (first,) = story.ask(0, 0.0)
    (second,) = story.finish(first, 1.0)
    story.finish(second, 4.0, service_s=3.0)
    way = found(story.explainer)
    assert (way.outcome, way.latency_s) == (Outcome.COMPLETED, 4.0)
    npu, cpu = way.choices
    assert (npu.processor, tuple(npu.span), npu.took_s) == ("npu", (0, 0), 1.0)
    assert rows(npu) == {
        "npu": (0.0, (0, 0), 1.0, ""),
        "cpu": (0.0, (0, 1), 10.0, ""),
        "gpu": (0.0, None, math.inf, "it does not run what comes next"),
    }
    assert (cpu.processor, tuple(cpu.span), cpu.at_s) == ("cpu", (1, 1), 1.0)
    assert [each.processor for each in cpu.alternatives] == ["cpu", "gpu", "npu"]
    assert [each.finish_s for each in npu.alternatives][:2] == [
        pytest.approx(4.0, abs=1e-3),
        10.0,
    ]


def test_the_wait_is_for_what_ran_before_and_not_for_the_execution_itself() -> None:
    story = Story(Explainer("1"), policy="fcfs")  # which does not wait for what is faster
    (first,) = story.ask(0, 0.0)
    (other,) = story.ask(1, 0.25)
    story.finish(first, 1.0)
    story.finish(other, 11.0, service_s=10.0)
    (choice, *_) = found(story.explainer).choices
    assert choice.processor == "cpu"
    assert rows(choice)["npu"][0] == pytest.approx(0.75)
    assert rows(choice)["cpu"][0] == 0.0


def test_a_failure_is_told_and_its_processor_is_out_of_question_afterwards() -> None:
    story = Story(Explainer("0"))
    (first,) = story.ask(0, 0.0)
    (again,) = started(story.tell(Failed(first, "oops"), 0.5))
    story.finish(again, 10.5, service_s=10.0)
    failed, retried = found(story.explainer).choices
    assert (failed.processor, failed.failure, failed.took_s) == ("npu", "oops", None)
    assert rows(retried)["npu"][3] == "it failed there before"


def test_a_processor_out_of_service_is_said_to_be() -> None:
    story = Story(Explainer("0"))
    story.tell(ProcessorLost("npu", "gone"), 0.0)
    (first,) = story.ask(0, 0.0)
    story.finish(first, 10.0)
    assert rows(found(story.explainer).choices[0])["npu"][3] == "out of service"


@pytest.mark.parametrize(("wanted", "number"), [(SLOWEST, 1), ("m", 1), ("2", 2)])
def test_the_slowest_or_the_one_that_was_named_is_found(wanted: str, number: int) -> None:
    story = Story(Explainer(wanted))
    now = 0.0
    for request, service_s in enumerate((1.0, 9.0, 2.0)):
        now += 100.0
        (first,) = story.ask(request, now)
        (second,) = story.finish(first, now + service_s)
        story.finish(second, now + service_s + 3.0)
    assert found(story.explainer).request.id == number


def test_what_was_due_before_the_window_is_left_out() -> None:
    story = Story(Explainer(SLOWEST), since_s=50.0)
    for request, now in enumerate((0.0, 100.0)):
        (first,) = story.ask(request, now)
        (second,) = story.finish(first, now + (20.0 if request == 0 else 1.0))
        story.finish(second, now + 30.0)
    assert found(story.explainer).request.id == 1


def test_another_model_s_requests_are_not_looked_at() -> None:
    story = Story(Explainer("n"))
    (first,) = story.ask(0, 0.0)
    (second,) = story.finish(first, 1.0)
    story.finish(second, 4.0)
    assert story.explainer.found is None


def test_the_moments_of_a_request_follow_one_another_from_due_to_answered() -> None:
    explainer = Explainer("0")
    story = Story(explainer)
    (first,) = started(story.tell(Arrived(Request(0, "m", 0.5)), 1.0))
    explainer.handed_over(first, 1.125)
    explainer.ended(first, 2.5, 1.0)
    (second,) = story.finish(first, 3.0)
    explainer.handed_over(second, 3.125)
    explainer.ended(second, 6.5, 3.0)
    story.finish(second, 7.0, service_s=3.0)
    explainer.answered(0, 7.25)
    explainer.answered(1, 100.0)  # another one
    way = found(explainer)
    assert way.latency_s == 6.75
    assert [(each.at_s, each.what) for each in way.moments()] == [
        (0.5, "due"),
        (1.0, "seen by the core"),
        (1.0, "decided"),
        (1.125, "handed over"),
        (1.5, "started"),
        (2.5, "ended"),
        (3.0, "decided"),
        (3.125, "handed over"),
        (3.5, "started"),
        (6.5, "ended"),
        (7.25, "answered"),
    ]
    assert [tuple(each.span) for each in way.moments() if each.span] == [(0, 0)] * 4 + [(1, 1)] * 4
    console = Console(width=100, file=StringIO())
    console.print(render_explanation(way))
    lines = [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert "2.62 s 125 ms handed over, units 1" in lines
    assert "6.75 s 750 ms answered" in lines


def test_a_run_that_failed_has_its_moment_too() -> None:
    explainer = Explainer("0")
    story = Story(explainer)
    (first,) = story.ask(0, 0.0)
    explainer.ended(first, 0.25, None)
    (again,) = started(story.tell(Failed(first, "oops"), 0.5))
    story.finish(again, 10.5, service_s=10.0)
    whats = [each.what for each in found(explainer).moments()]
    assert whats == ["due", "seen by the core", "decided", "failed", "decided", "answered"]


def test_a_request_that_never_ran_is_not_explained() -> None:
    story = Story(Explainer(SLOWEST))
    for name in ("cpu", "npu", "gpu"):
        story.tell(ProcessorLost(name, "gone"), 0.0)
    story.ask(0, 0.0)
    assert story.explainer.found is None


def test_the_table_shows_every_processor_of_every_choice() -> None:
    story = Story(Explainer("0"))
    (first,) = story.ask(0, 0.0)
    (second,) = story.finish(first, 1.0)
    story.finish(second, 4.0, service_s=3.0)
    console = Console(width=100, file=StringIO())
    console.print(render_explanation(found(story.explainer)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "request 0 of m: completed after 4 s, in 2 executions" in text
    assert "chosen; took 1 s" in text
    assert "it does not run what comes next" in text
    assert text.count("npu") == text.count("gpu") == 2


WHOLE = {"m": 1.0, "m@int8": 0.4, "m@tiny": 0.3}


def varied(*uses: Use, wanted: str = SLOWEST) -> Story:
    """Make a model of one unit on one processor, with cheaper variants."""
    story = Story(Explainer(wanted), policy="fcfs")
    known = [
        Profile({ProfileKey(name, "cpu", 1, Span()): Measurement(seconds=(seconds,))})
        for name, seconds in WHOLE.items()
    ]
    others = tuple(
        LoadedVariant(name, error, use, 1, each)
        for name, error, use, each in zip(
            list(WHOLE)[1:], (0.02, 0.1), uses, known[1:], strict=False
        )
    )
    story.tell(ModelLoaded("m", 1, known[0], variants=others), 0.0)
    return story


def why(story: Story, in_s: float) -> str:
    """Serve a request with a deadline; return what is printed above the table."""
    (execution,) = started(story.tell(Arrived(Request(0, "m", 0.0, in_s)), 0.0))
    story.finish(execution, 1.0)
    return shown(found(story.explainer))


@pytest.mark.parametrize(
    ("in_s", "said"),
    [
        (2.0, "served by m: m needs 1.25 s, a quarter of it to spare; 2 s were left"),
        (0.9, "served by m@int8: m needs 1.25 s, a quarter of it to spare; 900 ms were left"),
        (math.inf, "served by m: the request has no deadline"),
    ],
)
def test_it_says_which_variant_served_and_why(in_s: float, said: str) -> None:
    assert said in why(varied(Use.WHEN_LATE), in_s)


def test_what_is_always_used_is_said_to_be() -> None:
    assert "served by m@int8: no more accurate one is used" in why(varied(Use.ALWAYS), 9.0)
    both = why(varied(Use.ALWAYS, Use.WHEN_LATE), 0.2)
    assert "served by m@tiny: m@int8 needs 500 ms, a quarter of it to spare; 200 ms" in both


def test_of_a_model_with_one_variant_none_is_named() -> None:
    assert "served by" not in why(varied(), 0.9)


def test_each_processor_is_shown_with_the_variant_that_ran() -> None:
    story = varied(Use.WHEN_LATE)
    why(story, 0.9)
    (choice,) = found(story.explainer).choices
    assert choice.variant == "m@int8"
    assert rows(choice)["cpu"][2] == pytest.approx(0.4)


def shown(way: Explanation) -> str:
    out = StringIO()
    Console(file=out, width=100).print(render_explanation(way))
    return out.getvalue()
