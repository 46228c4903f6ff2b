"""Messages of OpenVINO: what of them tells a user what is wrong."""

from __future__ import annotations

import re

__all__ = ["reason_of"]

_PLACE = re.compile(r"^(Exception from |Check '.*' failed at )\S*:\d+:?\s*")
"""How lines of OpenVINO's messages begin that name a place in its source; more may follow it."""

_NODE = re.compile(r"^While validating ONNX node '<Node\((?P<type>\w+)\): (?P<name>.*?)>'")
"""The line that names the operator of the model that is wrong."""

_NOT_TELLING = (
    "-- Conversion is failed for: ",
    "FrontEnd API failed",
    "Model wasn't fully converted",
    "Shape inference input shapes",
    "Summary:",
    "While validating ",
)
"""How lines of OpenVINO's messages begin that tell a user nothing."""

_HEADING = " with a message:"


def reason_of(error: Exception) -> str:
    """Return the first line that says what is wrong, not where in the source that was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = [text for line in lines if (text := _PLACE.sub("", line))]
    telling = [
        line for line in said if not line.startswith(_NOT_TELLING) and not line.endswith(_HEADING)
    ]
    if not telling:  # the condition that did not hold says more than the place
        return (lines or [type(error).__name__])[-1]
    reason = telling[0].removeprefix("-- ").rstrip(".")
    node = next((found for line in lines if (found := _NODE.match(line))), None)
    return f"{node['type']} {node['name']!r}: {reason}" if node else reason
