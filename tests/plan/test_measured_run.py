"""What is saved of measured runs is read again, whatever a measurement has."""

from __future__ import annotations

from dataclasses import fields, replace

from coinfer.machine.profile import Measurement
from coinfer.machine.span import Span
from coinfer.plan.measured_run import MeasuredRun, decode_runs, encode_runs


def test_every_field_of_a_measurement_comes_back() -> None:
    plain = Measurement(seconds=(0.1, 0.2))
    others = {
        "seconds": (0.3,),
        "load_s": 1.5,
        "resident_bytes": 2,
        "run_bytes": 3,
        "error": 0.25,
        "estimated": True,
        "interpolated": True,
    }
    assert others.keys() == {field.name for field in fields(Measurement)}
    runs = [
        MeasuredRun("p", 1, (), Span(0, 0), replace(plain, **{name: value}))
        for name, value in others.items()
    ]
    assert decode_runs(encode_runs(runs)) == runs
