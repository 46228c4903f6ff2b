"""gRPC: the protocol's service, streams of inferences and gRPC's own health service."""
