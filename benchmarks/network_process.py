"""Network process: plain onnxruntime that answers a request for each line that it reads.

    python benchmarks/network_process.py FILE [CORE]

It writes a line when the network is loaded, and one per answer. With a core it is pinned there and
has one thread; without it has onnxruntime's default number of threads.
"""

from __future__ import annotations

import os
import sys

import numpy as np
import onnxruntime as ort


def main() -> None:
    """Load, and answer until the input ends."""
    path, *cores = sys.argv[1:]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if cores:
        os.sched_setaffinity(0, {int(cores[0])})
        options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    shape = [size if isinstance(size, int) else 1 for size in given.shape]
    feed = {given.name: np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    session.run(None, feed)
    print(flush=True)
    for _ in sys.stdin:
        session.run(None, feed)
        print(flush=True)


if __name__ == "__main__":
    main()
