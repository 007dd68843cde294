"""ConverseAlpha1 and ConverseAlpha2: a language model is asked, under its component's outbound policy.

A context id only comes back: as in Dapr the application sends a conversation's whole history each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar, final

import trio

from meshnode.blocks.call import Call
from meshnode.blocks.conversation.components import Model
from meshnode.blocks.conversation.requests import (
    InvalidParams,
    MissingInputs,
    length_of,
    request_alpha1,
    request_alpha2,
)
from meshnode.blocks.conversation.results import response_alpha1, response_alpha2
from meshnode.blocks.scoped import scoped
from meshnode.errors import (
    CircuitOpen,
    ErrorInfoDetail,
    InvalidArgument,
    MeshError,
    ResourceInfoDetail,
)
from meshnode.interfaces import ConverseOutput, ConverseRequest
from meshnode.wire.dapr.proto.runtime import v1 as runtime

__all__ = ["Conversing"]

T = TypeVar("T")

_LONG = 10_000
"""Characters; scrubbing them takes some milliseconds."""
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
        to_scrub = sum(len(one.content) for one in request.inputs if one.scrub_pii)
        try:
            asked = await _apart(to_scrub, partial(request_alpha1, request))
        except (MissingInputs, InvalidParams) as error:
            raise _refused(request.name, error) from error
        outputs = await self._ask(model, asked, call)
        return await _apart(_length(request, outputs), partial(response_alpha1, request, outputs))

    async def alpha2(
        self, request: runtime.ConversationRequestAlpha2, call: Call
    ) -> runtime.ConversationResponseAlpha2:
        model = self._model(request.name)
        said = (message for one in request.inputs if one.scrub_pii for message in one.messages)
        try:
            asked = await _apart(sum(map(length_of, said)), partial(request_alpha2, request))
        except (MissingInputs, InvalidParams) as error:
            raise _refused(request.name, error) from error
        outputs = await self._ask(model, asked, call)
        return await _apart(_length(request, outputs), partial(response_alpha2, request, outputs))

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
        message = f"failed finding conversation component {name}"
        raise InvalidArgument(message, info, _resource(name, message))


async def _apart(to_scrub: int, convert: Callable[[], T]) -> T:
    """Convert, in a thread where so many characters are to be scrubbed that it takes its time."""
    return convert() if to_scrub < _LONG else await trio.to_thread.run_sync(convert)


def _length(
    request: runtime.ConversationRequest | runtime.ConversationRequestAlpha2,
    outputs: Sequence[ConverseOutput],
) -> int:
    if not request.scrub_pii:
        return 0
    return sum(len(choice.text) for output in outputs for choice in output.choices)


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
