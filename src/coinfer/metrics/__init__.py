"""Metrics: the records of a run, and the summaries, tables and trace files made from them.

Pure: knows no clock, thread or inference library, and not which driver (real or simulated) ran.
"""
