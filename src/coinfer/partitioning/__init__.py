"""Partitioning: one model over several processors, from what they support and how long they take.

Chooses with measured times and compiles; the cutting itself is pure and `graph`'s work.
"""
