"""The interpreter ends well although an engine still runs something in a C++ library."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest

pytestmark = pytest.mark.alone

ENDING_LASTS = """
    import time

    class Lingering:
        def __del__(self):  # once the interpreter ends: whoever comes back now comes too late
            time.sleep(3.0)

    lingering = Lingering()
"""
LONG_MODEL = """
    from onnx import parser
    import numpy as np

    # About a quarter of a second, without the interpreter's lock.
    proto = parser.parse_model('''
    <ir_version: 10, opset_import: ["": 20]>
    net (float[700, 700] x) => (float[700, 700] y) {
      n = Constant <value = int64 {60}> ()
      on = Constant <value = bool {1}> ()
      y = Loop (n, on, x) <body = once (int64 i, bool go, float[700, 700] a)
          => (bool on_, float[700, 700] b) { on_ = Identity(go)  b = MatMul(a, a) }>
    }
    ''')
    x = np.zeros((700, 700), np.float32)
"""

ENGINE = """
    import onnx_ir as ir
    from coinfer import Engine, Processor
    from coinfer.model import model_from_ir
    from coinfer.machine.profile import Profile

    model = model_from_ir(ir.from_proto(proto), name="m")
    engine = Engine(
        {"m": model},
        processors=[Processor(name="p", backend="onnxruntime", units=frozenset({"p"}))],
        profile=Profile.from_seconds({"m": {"p": 0.25}}),
        pin=False,
    )
"""


def ending_of(*parts: str) -> subprocess.CompletedProcess[str]:
    script = "\n".join(textwrap.dedent(part) for part in parts)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_an_engine_that_nobody_stopped_does_not_abort_the_process() -> None:
    ended = ending_of(
        LONG_MODEL,
        ENGINE,
        ENDING_LASTS,
        """
        for _ in range(3):
            engine.submit("m", {"x": x})
        time.sleep(0.05)
        print("done")
        """,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


def test_the_interpreter_waits_for_the_end_of_a_prepared_model_that_was_dropped() -> None:
    ended = ending_of(
        LONG_MODEL,
        """
        import time
        from coinfer import onnx_backend
        from coinfer.runtime.engine import Engine

        stop = Engine.stop

        def slow_stop(self, **options):
            time.sleep(0.3)
            stop(self, **options)
            print("stopped", flush=True)

        Engine.stop = slow_stop
        prepared = onnx_backend.prepare(proto)
        del prepared
        """,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")


def test_an_engine_answers_after_it_had_to_leave() -> None:
    ended = ending_of(
        """
        import atexit

        engines = []

        @atexit.register  # before the import: so it is called after the engine had to leave
        def late():
            [engine] = engines
            began_s = time.monotonic()
            engine.stop()
            print(sorted(type(f.exception(0)).__name__ for f in futures))
            try:
                engine.infer("m", {"x": x})
            except Exception as error:
                print(type(error).__name__, error)
            print(time.monotonic() - began_s < 5)
        """,
        LONG_MODEL,
        ENGINE,
        """
        import time
        engines.append(engine)
        futures = [engine.submit("m", {"x": x}) for _ in range(4)]
        time.sleep(0.05)
        """,
    )
    answers = "['ClosedError', 'ClosedError', 'ClosedError', 'NoneType']"
    refusal = "ClosedError the interpreter is ending"
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        0,
        f"{answers}\n{refusal}\nTrue\n",
        "",
    )


def test_all_let_go_before_any_is_waited_for() -> None:
    ended = ending_of(
        """
        from coinfer.runtime.exit import leave_at_exit

        class Leaver:
            def __init__(self, last=False):
                leave_at_exit(self)

            def leave(self):
                print("leaves", flush=True)

            def wait_until_left(self, timeout_s):
                print("left", 0 <= timeout_s <= 10, flush=True)
                global late
                late = Leaver()  # made while the interpreter ends

        both = Leaver(), Leaver()
        """
    )
    expected = ["leaves", "leaves", "left", "True", "leaves", "left", "True", "leaves"]
    assert (ended.returncode, ended.stdout.split(), ended.stderr) == (0, expected, "")


def test_the_child_of_a_fork_does_not_wait_for_the_threads_of_its_parent() -> None:
    ended = ending_of(
        LONG_MODEL,
        ENGINE,
        """
        import os, sys, time, warnings

        warnings.simplefilter("ignore")
        futures = [engine.submit("m", {"x": x}) for _ in range(4)]
        began_s = time.monotonic()
        child = os.fork()
        if not child:
            sys.exit(3)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), time.monotonic() - began_s < 5)
        engine.stop()
        """,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "3 True\n", "")


def test_a_callback_that_never_returns_does_not_keep_the_process() -> None:
    began_s = time.monotonic()
    ended = ending_of(
        """
        import threading
        from coinfer import Engine, Processor, Profile
        from coinfer.backends.null import NullBackend
        from coinfer.testing.models import tiny_linear
        from coinfer.runtime import exit

        exit._PATIENCE_S = 1.0
        model = tiny_linear().model
        units = [frozenset({name}) for name in ("p0", "p1")]
        engine = Engine(
            {"m": model},
            processors=[Processor(name=min(u), backend="null", units=u) for u in units],
            profile=Profile.from_seconds({"m": {"p0": 0.001, "p1": 0.001}}),
            backends={"null": NullBackend()},
            pin=False,
        )
        stuck = threading.Event()

        def callback(_future):
            stuck.set()
            threading.Event().wait()

        for _ in range(4):
            engine.submit("m", model.sample_inputs()).add_done_callback(callback)
        assert stuck.wait(20)
        print("done")
        """
    )
    assert (ended.returncode, ended.stdout) == (0, "done\n")
    assert time.monotonic() - began_s < 15
