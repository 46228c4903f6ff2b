"""Calls: what gRPC answers beside inferences: health, metadata, models, shared memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from coinfer.errors import NotOfferedError
from coinfer.server.messages import INFERENCE, METHODS
from coinfer.server.service import Service
from coinfer.server.shared_memory import SharedMemory

__all__ = ["Calls"]

_Said = dict[str, Any]


class Calls:
    """Answers the methods that have one request and no tensors.

    Args:
        service: What answers.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._quick: dict[str, Callable[[Any], _Said]] = {
            "ServerLive": lambda _: {"live": service.is_live},
            "ServerReady": lambda _: {"ready": service.is_ready},
            "ServerMetadata": lambda _: service.metadata(),
            "ModelReady": lambda r: {"ready": service.is_model_ready(r.name, r.version)},
            "ModelMetadata": lambda r: service.model_metadata(r.name, r.version),
            "ModelConfig": lambda r: {"config": service.model_config(r.name, r.version)},
            "ModelStatistics": lambda r: service.model_statistics(r.name, r.version),
            "SystemSharedMemoryStatus": self._regions,
            "SystemSharedMemoryRegister": self._register,
            "SystemSharedMemoryUnregister": self._unregister,
        }
        self._waiting: dict[str, Callable[[Any], _Said]] = {
            "RepositoryIndex": self._index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }

    async def answer(self, method: str, request: Any) -> Any:
        """Return the message that answers another one.

        Raises:
            CoinferError: it is refused, or not offered.
        """
        quick = self._quick.get(method)
        if quick is not None:
            said = quick(request)
        elif method in self._waiting:
            said = await asyncio.to_thread(self._waiting[method], request)
        else:
            raise NotOfferedError(f"this server does not offer {method}; see its extensions")
        response = INFERENCE[METHODS[method].response]()
        return json_format.ParseDict(said, response, ignore_unknown_fields=True)

    def _index(self, request: Any) -> _Said:
        return {"models": self._service.repository_index(only_ready=request.ready)}

    def _load(self, request: Any) -> _Said:
        parameters = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "string_param")
            for name, value in request.parameters.items()
        }
        self._service.load_model(request.model_name, parameters)
        return {}

    def _unload(self, request: Any) -> _Said:
        self._service.unload_model(request.model_name)
        return {}

    def _memory(self) -> SharedMemory:
        memory = self._service.shared_memory
        if memory is None:
            raise NotOfferedError("this server does not offer shared memory; see its extensions")
        return memory

    def _regions(self, request: Any) -> _Said:
        found = self._memory().status(request.name)
        return {"regions": {region.name: region.to_json() for region in found}}

    def _register(self, request: Any) -> _Said:
        memory = self._memory()
        memory.register(request.name, request.key, request.offset, request.byte_size)
        return {}

    def _unregister(self, request: Any) -> _Said:
        self._memory().unregister(request.name)
        return {}
