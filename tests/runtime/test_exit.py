"""The interpreter ends well although an engine still runs something in a C++ library."""

from __future__ import annotations

import subprocess
import sys
import textwrap

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


def ending_of(*parts: str) -> subprocess.CompletedProcess[str]:
    script = "\n".join(textwrap.dedent(part) for part in parts)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False
    )


def test_an_engine_that_nobody_stopped_does_not_abort_the_process() -> None:
    ended = ending_of(
        LONG_MODEL,
        ENDING_LASTS,
        """
        import onnx_ir as ir
        from coinfer import Engine, Processor
        from coinfer.model import model_from_ir
        from coinfer.profiles import Profile

        model = model_from_ir(ir.from_proto(proto), name="m")
        engine = Engine(
            {"m": model},
            processors=[Processor(name="p", backend="onnxruntime", units=frozenset({"p"}))],
            profile=Profile.from_seconds({"m": {"p": 0.25}}),
            pin=False,
        )
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


def test_what_was_given_up_does_not_keep_the_process() -> None:
    ended = ending_of(
        """
        from coinfer.runtime.exit import await_at_exit

        class Hanging:
            retired = True

            def stop(self):
                print("told", flush=True)

            def join(self, timeout_s=None):
                if timeout_s != 0.0:
                    print("waited for", flush=True)

        hanging = Hanging()
        await_at_exit(hanging)
        """
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "told\n", "")
