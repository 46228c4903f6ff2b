"""Batch sizes layer by layer, and compute units per network, from numbers alone. Runs nothing.

The model is a reconstruction: of the thesis whose questions it answers (Batch Inference Scheduler,
NTUST 2023) the abstract alone is public.
"""
