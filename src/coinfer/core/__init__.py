"""The scheduling core: events in, commands out. Knows no clock, thread, file or backend."""
