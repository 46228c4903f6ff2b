"""ModelOptions: what `coinfer.yaml` beside a model's versions says that `config.pbtxt` cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from coinfer.core.request import OnLate
from coinfer.documents.fields import PositiveSeconds, Section, WholeNumber
from coinfer.documents.reading import read_text, validated
from coinfer.documents.yaml_document import YamlDocument
from coinfer.workload.batch_spec import BatchSpec

__all__ = ["ModelOptions", "read_model_options"]


class ModelOptions(Section):
    """How requests to a model are scheduled, where they do not say it themselves.

    Attributes:
        deadline: Seconds in which an answer is wanted; None: no deadline.
        priority: Larger is more urgent.
        on_late: Whether a request whose deadline passes before it starts is dropped.
        batch: How requests share executions.
        max_batch: Samples that one request may have; None: what the server allows.
    """

    deadline: PositiveSeconds | None = None
    priority: WholeNumber = 0
    on_late: OnLate = OnLate.RUN
    batch: BatchSpec = BatchSpec()
    max_batch: Annotated[int, Field(ge=1)] | None = None


def read_model_options(path: Path) -> ModelOptions:
    """Read a `coinfer.yaml`; a file that is not there says nothing.

    Raises:
        ScenarioError: it is malformed; names file, line and field.
    """
    if not path.exists():
        return ModelOptions()
    text = read_text(path, "options of a model")
    return validated(ModelOptions, YamlDocument.parse(text, origin=str(path)), path.parent)
