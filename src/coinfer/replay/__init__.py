"""Replay: log the steps of a run, and feed them to a fresh dispatcher. Performs no command."""

from __future__ import annotations

from coinfer.replay.event_log import EventLog, LogHeader, recording
from coinfer.replay.replay import Difference, Replayed, replay

__all__ = ["Difference", "EventLog", "LogHeader", "Replayed", "recording", "replay"]
