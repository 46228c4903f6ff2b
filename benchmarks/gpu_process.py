"""A process that answers a request for each line that it reads, with torch, as `gpu_peers` does.

    python benchmarks/gpu_process.py FILE DEVICE

It writes a line when the network is loaded, and one per answer. On a GPU it repeats a CUDA graph.
"""

from __future__ import annotations

import sys

import torch

from coinfer.model import load_model
from gpu_peers import PEERS, translated


def main() -> None:
    """Load, and answer until the input ends."""
    path, name = sys.argv[1:]
    torch.set_num_threads(1)
    model, device = load_model(path), torch.device(name)
    kind = PEERS["graphs" if device.type == "cuda" else "in sequence"]
    peer, feed = kind([model], device, translated([model], device)), model.sample_inputs(seed=1)
    for _ in range(2):
        peer.round([feed])
    print(flush=True)
    for _ in sys.stdin:
        peer.round([feed])
        print(flush=True)


if __name__ == "__main__":
    main()
