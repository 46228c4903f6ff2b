"""Server: the engine behind the Open Inference Protocol. Front ends translate; `Service` answers.

The service and what it is made of know no transport: HTTP and gRPC stand beside each other above
it. All but the front ends is synchronous.
"""
