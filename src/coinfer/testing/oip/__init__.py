"""A conformance suite for servers of the Open Inference Protocol v2, over HTTP and gRPC.

`python -m coinfer.testing.oip http://127.0.0.1:8000 --grpc 127.0.0.1:8001` drives any server as its
clients do, and as careless ones do, and prints what held. It reads what the server says of itself:
models from the index, inputs from their metadata, and what is offered from the list of extensions.
"""

from coinfer.testing.oip.suite import run_suite
from coinfer.testing.oip.verdict import Result, Verdict

__all__ = ["Result", "Verdict", "run_suite"]
