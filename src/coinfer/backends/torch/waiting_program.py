"""WaitingProgram: a program whose weights wait on the host, to be copied to a device when needed.

The memory on the device goes with the last who holds the loaded program.
"""

from __future__ import annotations

import weakref
from collections.abc import Hashable
from dataclasses import dataclass, field

from coinfer.backends.device_faults import Fault
from coinfer.backends.torch.packed_weights import PackedWeights
from coinfer.backends.torch.program import Program
from coinfer.backends.torch.stream import CopyStream, Upload

__all__ = ["LoadedProgram", "WaitingProgram"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class LoadedProgram:
    """A program whose weights are on a device, or on their way.

    Attributes:
        program: What runs.
        upload: Whoever runs it first on a stream lets the stream wait for this.
        nbytes: What the weights take.
    """

    program: Program
    upload: Upload
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class WaitingProgram:
    """A program on the host.

    Attributes:
        program: What runs, but for its weights.
        weights: Those.
        choices: By processor, what its launchers found out: see `Launcher.choices`.
    """

    program: Program
    weights: PackedWeights
    choices: dict[Hashable, dict[Hashable, bool]] = field(default_factory=dict)

    @classmethod
    def of(cls, program: Program) -> WaitingProgram:
        """Take a program whose constants are apart."""
        return cls(
            program=program.placed([None] * len(program.apart)),
            weights=PackedWeights.of([program.slots[slot] for slot in program.apart]),
        )

    def pin(self, copies: CopyStream) -> None:
        """Let the weights be copied while nobody waits, if the host allows it."""
        unpin = copies.pin(self.weights.buffer) if self.weights.nbytes else None
        if unpin is not None:
            weakref.finalize(self, unpin).atexit = False  # the device may be gone by then

    def load(self, copies: CopyStream) -> LoadedProgram:
        """Begin to copy the weights; keep this program until the upload is finished.

        Without memory for them, what is kept for later is given back, and it is tried once more.

        Raises:
            Exception: what the library raises.
        """
        upload = self._uploaded(copies)
        return LoadedProgram(
            program=self.program.placed(self.weights.views(upload.buffer)),
            upload=upload,
            nbytes=self.weights.nbytes,
        )

    def _uploaded(self, copies: CopyStream) -> Upload:
        try:
            return copies.upload(self.weights.buffer)
        except Exception as error:
            if copies.fault(error) is not Fault.MEMORY:
                raise
        copies.relieve()
        return copies.upload(self.weights.buffer)
