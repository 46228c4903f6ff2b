"""Planner: what is best offline, from profiles alone. Runs no network and reads no clock."""
