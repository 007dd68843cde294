"""ConverseAlpha1 and ConverseAlpha2: a language model is asked, under its component's outbound policy.

A context id only comes back: as in Dapr the application sends a conversation's whole history each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import final

from meshnode.blocks.call import Call
from meshnode.blocks.conversation.components import Model
from meshnode.blocks.conversation.requests import InvalidParams, MissingInputs, request_alpha1, request_alpha2
from meshnode.blocks.conversation.results import response_alpha1, response_alpha2
from meshnode.blocks.scoped import scoped
from meshnode.errors import (
    CircuitOpen,
    ErrorInfoDetail,
    InvalidArgument,
    MeshError,
    ResourceInfoDetail,
    Status,
)
from meshnode.interfaces import ConverseOutput, ConverseRequest
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["Conversing"]

_NOT_FOUND = "ERR_CONVERSATION_NOT_FOUND"


@final
class Conversing:
    """Raises `InvalidArgument` for a component that is not there and for a request that cannot be right,
    FAILED_PRECONDITION where the node has no model; other failures keep the status that the driver gave them.
    """

    def __init__(self, app_id: str, models: Mapping[str, Model]) -> None:
        self._app_id = app_id
        self._models = models

    async def alpha1(self, request: runtime.ConversationRequest, call: Call) -> runtime.ConversationResponse:
        model = self._model(request.name)
        try:
            asked = request_alpha1(request)
        except (MissingInputs, InvalidParams) as error:
            raise _refused(request.name, error) from error
        return response_alpha1(request, await self._ask(model, asked, call))

    async def alpha2(
        self, request: runtime.ConversationRequestAlpha2, call: Call
    ) -> runtime.ConversationResponseAlpha2:
        model = self._model(request.name)
        try:
            asked = request_alpha2(request)
        except (MissingInputs, InvalidParams) as error:
            raise _refused(request.name, error) from error
        return response_alpha2(request, await self._ask(model, asked, call))

    async def _ask(self, model: Model, request: ConverseRequest, call: Call) -> Sequence[ConverseOutput]:
        try:
            return await scoped(model.policy, partial(model.driver.converse, request), call)
        except CircuitOpen:
            raise
        except MeshError as error:
            raise _failed(model.name, error) from error

    def _model(self, name: str) -> Model:
        model = self._models.get(name)
        if model is not None:
            return model
        info = ErrorInfoDetail(_NOT_FOUND, {"appID": self._app_id})
        if not self._models:
            message = f"conversation component {name} is not configured"
            raise MeshError(message, info, _resource(name, message), status=Status.FAILED_PRECONDITION)
        message = f"failed finding conversation component {name}"
        raise InvalidArgument(message, info, _resource(name, message))


def _refused(name: str, error: MissingInputs | InvalidParams) -> MeshError:
    missing = isinstance(error, MissingInputs)
    reason = "ERR_CONVERSATION_MISSING_INPUTS" if missing else "ERR_CONVERSATION_INVALID_PARMS"
    message = f"failed conversing with component {name}: {error}"
    return InvalidArgument(message, ErrorInfoDetail(reason), _resource(name, message))


def _failed(name: str, error: MeshError) -> MeshError:
    message = f"failed conversing with component {name}: {error}"
    info = ErrorInfoDetail("ERR_CONVERSATION_INVOKE")
    return MeshError(message, info, _resource(name, message), status=error.code)


def _resource(name: str, message: str) -> ResourceInfoDetail:
    return ResourceInfoDetail("conversation", name, description=message)
