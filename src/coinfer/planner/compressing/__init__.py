"""Compressing: choose the ranks of a model's layers by rule or by measuring; keep the promise."""
