"""Shipped helpers for tests: tiny models, a virtual machine, contract suites for third parties."""
