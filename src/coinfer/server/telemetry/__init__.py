"""Telemetry: what a server tells of its requests: a line of the log each, and traces."""
