"""The library: published multi-model workloads as scenario files, and machines to simulate them on.

Only files and their names. Reading them is the work of `workload` and `sim`.
"""
