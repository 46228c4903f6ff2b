"""Load test: plays a scenario's load on a server of the Open Inference Protocol, and records it."""
