"""Planner: makes plans: the passes, and the profiler that they share. Runs no load itself."""
