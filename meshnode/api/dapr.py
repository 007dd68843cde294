"""`dapr.proto.runtime.v1.Dapr`: the API that applications call. One delegating method per call; the work is
in `blocks/`.
"""

from __future__ import annotations

from typing import Any, final

from meshnode.api.service import Gate, Implementation, Stream, bind
from meshnode.blocks.bindings import OutputBindings
from meshnode.blocks.call import Call
from meshnode.blocks.configuration import ConfigurationBlock
from meshnode.blocks.conversation import Conversing
from meshnode.blocks.crypto import CryptoStreams, SubtleCrypto
from meshnode.blocks.customheaders import metadata_headers
from meshnode.blocks.invocation import AppFailed, Invocation
from meshnode.blocks.lock import FENCING_TOKEN, LockBlock
from meshnode.blocks.metadata import NodeMetadata
from meshnode.blocks.pubsub import Publishing, Subscriptions
from meshnode.blocks.secrets import SecretsBlock
from meshnode.blocks.state import StateBlock
from meshnode.blocks.statequery import StateQuery
from meshnode.transport import rules
from meshnode.wire.dapr.proto.common import v1 as common
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.google.protobuf import Empty

__all__ = ["DaprApi"]


@final
class DaprApi:
    """Built once per node; `handlers` is what the API server serves."""

    def __init__(
        self,
        *,
        invocation: Invocation,
        state: StateBlock,
        query: StateQuery,
        publishing: Publishing,
        subscriptions: Subscriptions,
        bindings: OutputBindings,
        secrets: SecretsBlock,
        configuration: ConfigurationBlock,
        conversing: Conversing,
        locks: LockBlock,
        crypto: CryptoStreams,
        subtle: SubtleCrypto,
        metadata: NodeMetadata,
        gate: Gate,
    ) -> None:
        self._invocation = invocation
        self._state = state
        self._query = query
        self._publishing = publishing
        self._subscriptions = subscriptions
        self._bindings = bindings
        self._secrets = secrets
        self._configuration = configuration
        self._conversing = conversing
        self._locks = locks
        self._crypto = crypto
        self._subtle = subtle
        self._metadata = metadata
        self._gate = gate

    def handlers(self) -> Any:
        implementations: dict[str, Implementation] = {
            "InvokeService": self._invoke_service,
            "GetState": lambda request, stream, call: self._state.get(request, call),
            "GetBulkState": lambda request, stream, call: self._state.bulk_get(request, call),
            "SaveState": lambda request, stream, call: self._state.save(request, call),
            "DeleteState": lambda request, stream, call: self._state.delete(request, call),
            "DeleteBulkState": lambda request, stream, call: self._state.bulk_delete(request, call),
            "ExecuteStateTransaction": lambda request, stream, call: self._state.transact(
                request, call, stream.headers
            ),
            "QueryStateAlpha1": lambda request, stream, call: self._query.query(request, call),
            "PublishEvent": lambda request, stream, call: self._publishing.publish(
                request, stream.headers, call
            ),
            "BulkPublishEvent": self._bulk_publish,
            "BulkPublishEventAlpha1": self._bulk_publish,
            "SubscribeTopicEventsAlpha1": lambda _, stream, call: self._subscriptions.stream(stream, call),
            "InvokeBinding": self._invoke_binding,
            "GetSecret": lambda request, stream, call: self._secrets.get(request, call),
            "GetBulkSecret": lambda request, stream, call: self._secrets.bulk_get(request, call),
            **_both("GetConfiguration", self._get_configuration),
            **_both("SubscribeConfiguration", self._subscribe_configuration),
            **_both("UnsubscribeConfiguration", self._unsubscribe_configuration),
            "TryLockAlpha1": self._try_lock,
            "UnlockAlpha1": lambda request, stream, call: self._locks.unlock(request, call),
            "ConverseAlpha1": lambda request, stream, call: self._conversing.alpha1(request, call),
            "ConverseAlpha2": lambda request, stream, call: self._conversing.alpha2(request, call),
            "EncryptAlpha1": lambda _, stream, call: self._crypto.encrypt(stream, call),
            "DecryptAlpha1": lambda _, stream, call: self._crypto.decrypt(stream, call),
            "SubtleGetKeyAlpha1": lambda request, stream, call: self._subtle.get_key(request, call),
            "SubtleEncryptAlpha1": lambda request, stream, call: self._subtle.encrypt(request, call),
            "SubtleDecryptAlpha1": lambda request, stream, call: self._subtle.decrypt(request, call),
            "SubtleWrapKeyAlpha1": lambda request, stream, call: self._subtle.wrap_key(request, call),
            "SubtleUnwrapKeyAlpha1": lambda request, stream, call: self._subtle.unwrap_key(request, call),
            "SubtleSignAlpha1": lambda request, stream, call: self._subtle.sign(request, call),
            "SubtleVerifyAlpha1": lambda request, stream, call: self._subtle.verify(request, call),
            "GetMetadata": self._get_metadata,
            "SetMetadata": self._set_metadata,
            "Shutdown": self._shutdown,
        }
        return bind(runtime.DaprBase(), implementations, self._gate)

    async def _invoke_service(
        self, request: runtime.InvokeServiceRequest, stream: Stream, call: Call
    ) -> common.InvokeResponse | None:
        try:
            answer = await self._invocation.invoke(request, stream.headers, call)
        except AppFailed as failed:
            if failed.headers:
                await stream.send_initial_metadata(metadata=rules.metadata_of(failed.headers))
            await stream.send_trailing_metadata(
                status=failed.status,
                status_message=failed.message,
                status_details=failed.details,
                metadata=rules.metadata_of(failed.trailers),
            )
            return None
        if answer.headers:
            await stream.send_initial_metadata(metadata=rules.metadata_of(answer.headers))
        if not answer.trailers:
            return answer.message
        await stream.send_message(answer.message)
        await stream.send_trailing_metadata(metadata=rules.metadata_of(answer.trailers))
        return None

    async def _bulk_publish(
        self, request: runtime.BulkPublishRequest, stream: Stream, call: Call
    ) -> runtime.BulkPublishResponse:
        return await self._publishing.bulk_publish(request, stream.headers, call)

    async def _invoke_binding(
        self, request: runtime.InvokeBindingRequest, stream: Stream, call: Call
    ) -> runtime.InvokeBindingResponse:
        answer = await self._bindings.invoke(request, stream.headers, call)
        if answer.metadata:
            named = {f"metadata.{name}": value for name, value in answer.metadata.items()}
            pairs = list(metadata_headers(named))
            await stream.send_initial_metadata(metadata=rules.metadata_of(pairs))
        return answer

    async def _try_lock(
        self, request: runtime.TryLockRequest, stream: Stream, call: Call
    ) -> runtime.TryLockResponse:
        token = await self._locks.try_lock(request, call)
        if token is not None:
            await stream.send_initial_metadata(metadata={FENCING_TOKEN: str(token)})
        return runtime.TryLockResponse(success=token is not None)

    async def _get_configuration(
        self, request: runtime.GetConfigurationRequest, stream: Stream, call: Call
    ) -> runtime.GetConfigurationResponse:
        return await self._configuration.get(request, call)

    async def _subscribe_configuration(
        self, request: runtime.SubscribeConfigurationRequest, stream: Stream, call: Call
    ) -> None:
        await self._configuration.subscribe(request, stream, call)

    async def _unsubscribe_configuration(
        self, request: runtime.UnsubscribeConfigurationRequest, stream: Stream, call: Call
    ) -> runtime.UnsubscribeConfigurationResponse:
        return await self._configuration.unsubscribe(request, call)

    async def _get_metadata(
        self, request: runtime.GetMetadataRequest, stream: Stream, call: Call
    ) -> runtime.GetMetadataResponse:
        return self._metadata.describe()

    async def _set_metadata(self, request: runtime.SetMetadataRequest, stream: Stream, call: Call) -> Empty:
        self._metadata.set(request.key, request.value)
        return Empty()

    async def _shutdown(self, request: runtime.ShutdownRequest, stream: Stream, call: Call) -> Empty:
        self._metadata.request_shutdown()
        return Empty()


def _both(method: str, implementation: Implementation) -> dict[str, Implementation]:
    """Under its name, and under the one it had before it was stable."""
    return {method: implementation, f"{method}Alpha1": implementation}
