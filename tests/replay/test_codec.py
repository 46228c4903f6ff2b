"""Events and processors survive being written as JSON, to the last bit."""

from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from coinfer.core.commands import Abandon, Evict, Execution, Load, Reply, Run, SetTimer
from coinfer.core.events import (
    Arrived,
    Cancelled,
    Closed,
    Event,
    Failed,
    Finished,
    Loaded,
    LoadedVariant,
    LoadFailed,
    MemoryGiven,
    ModelLoaded,
    ModelUnloaded,
    PolicyChanged,
    ProcessorLost,
    ProcessorRestored,
    TimerFired,
)
from coinfer.core.place import Loadable
from coinfer.core.request import OnLate, Outcome, Request
from coinfer.machine.batching import Batching
from coinfer.machine.machine_json import decode_processor, encode_processor
from coinfer.machine.processor import Processor
from coinfer.machine.profile import Measurement, Profile, ProfileKey
from coinfer.machine.span import Fork, Span
from coinfer.machine.variant_use import Use
from coinfer.policies import make_policy
from coinfer.replay.codec import (
    decode_event,
    encode_command,
    encode_event,
)

seconds = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=10)
requests = st.builds(
    Request,
    id=st.integers(0),
    model=texts,
    arrival_s=seconds,
    deadline_s=seconds | st.just(math.inf),
    priority=st.integers(),
    on_late=st.sampled_from(OnLate),
    batch=st.integers(1),
)
events = st.one_of(
    st.builds(Arrived, requests),
    st.builds(Finished, st.integers(0), seconds),
    st.builds(Failed, st.integers(0), texts),
    st.builds(Cancelled, st.integers(0)),
    st.just(TimerFired()),
    st.builds(ProcessorLost, texts, texts),
    st.builds(ProcessorRestored, texts),
    st.builds(ModelUnloaded, texts),
    st.builds(Closed, st.booleans()),
    st.builds(Loaded, st.integers(0), seconds),
    st.builds(LoadFailed, st.integers(0), texts),
    st.builds(
        MemoryGiven,
        st.dictionaries(texts, st.integers(0)),
        st.sampled_from(["cost", "lru"]),
        st.integers(0),
        st.dictionaries(
            texts,
            st.just((Loadable(Span(1, 2), ("p", "q"), "host", 5, 0.1, "m", True),)),
            max_size=2,
        ),
    ),
    st.sampled_from(
        [("edf", {}), ("sjf", {"patience_s": 0.5}), ("fixed", {"assignment": {"m": "p"}})]
    ).map(lambda named: PolicyChanged(make_policy(named[0], **named[1]), *named)),
)


def through_json(value: object) -> object:
    return json.loads(json.dumps(value, allow_nan=False))


@given(events)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    data = through_json(encode_event(event))
    assert isinstance(data, list)
    back = decode_event(data)
    assert back == event
    assert type(back) is type(event)
    assert repr(back) == repr(event)  # -0.0 equals 0.0, and a list may equal a tuple


@given(st.lists(st.just(0.0) | st.floats(1e-12, 1e6), min_size=1))
def test_a_profile_is_read_as_it_was_written(times: list[float]) -> None:
    key = ProfileKey("m", "p", 4, Span(1, 2))
    event = ModelLoaded("m", 3, Profile({key: Measurement(seconds=tuple(times), error=0.1)}))
    data = through_json(encode_event(event))
    assert isinstance(data, list)
    assert decode_event(data) == event


def test_a_loaded_model_keeps_its_variants() -> None:
    entries = {ProfileKey("m@c", "cpu"): Measurement(seconds=(0.5,))}
    cheap = LoadedVariant(
        "m@c",
        0.02,
        Use.WHEN_LATE,
        2,
        Profile(entries),
        (Fork(0, 1, 1),),
        {"npu": 0.5},
        Batching(4, by_unit=(1, 4)),
    )
    event = ModelLoaded("m", 1, Profile(), variants=(cheap,))
    assert decode_event(json.loads(json.dumps(encode_event(event)))) == event


def test_what_a_change_of_the_model_costs_is_read_as_it_was_written() -> None:
    event = ModelLoaded("m", 1, Profile(), (Fork(0, 1, 2),), {"npu": 0.25})
    assert decode_event(through_json(encode_event(event))) == event
    name, model, units, profile, *_ = encode_event(event)
    assert decode_event([name, model, units, profile]) == ModelLoaded("m", 1, Profile())


def test_what_can_be_loaded_is_read_as_it_was_written() -> None:
    places = (
        Loadable(Span(0, 1), ("p", "q"), "host", 3, 0.5, "content", True),
        Loadable(Span(2, 2), ("p",), "host", 4, 0.25),
    )
    event = ModelLoaded("m", 3, Profile(), places=places)
    assert decode_event(through_json(encode_event(event))) == event


def test_a_processor_is_read_as_it_was_written() -> None:
    processor = Processor(
        name="p",
        backend="null",
        device="X",
        units=frozenset({"b", "a"}),
        threads=2,
        precision="bf16",
        cores=(1, 2),
        options={"k": "v"},
    )
    express = Processor(name="e", backend="null", units=frozenset("x"), overlays=frozenset("ab"))
    assert decode_processor(through_json(encode_processor(express))) == express
    data = through_json(encode_processor(processor))
    assert isinstance(data, dict)
    assert decode_processor(data) == processor
    assert decode_processor(data).options == processor.options  # not part of being equal


def test_commands_that_differ_are_written_differently() -> None:
    request = Request(id=7, model="m", arrival_s=0.0)
    run = Execution(1, "m", Span(0, 0), "p", (request,), 0.5, 0.25)
    commands = [
        Run(run),
        Run(run._replace(processor="q")),
        Run(run._replace(requests=(request, request._replace(id=8)))),
        Run(run._replace(expected_s=math.nextafter(0.25, 1))),
        Run(run._replace(span=Span(0, 1))),
        Reply(request, Outcome.COMPLETED),
        Reply(request, Outcome.FAILED, "why"),
        Reply(request, Outcome.FAILED, "why not"),
        SetTimer(0.5),
        SetTimer(math.nextafter(0.5, 1)),
        Abandon(run, "late"),
        Evict("m"),
        Evict("m", 0),
        Evict("m", 0, Span(0, 1), ("p",)),
        Load(0, "m", Span(), ("p",), 0.5),
        Load(0, "m", Span(), ("p",), 0.5, 7),
    ]
    texts = {json.dumps(encode_command(each), allow_nan=False) for each in commands}
    assert len(texts) == len(commands)
