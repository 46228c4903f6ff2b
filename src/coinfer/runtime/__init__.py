"""The real driver: performs the core's commands with threads, sessions and real time."""
