"""The `google.rpc.Status` that travels in `grpc-status-details-bin`, from the plain values our errors
carry.
"""

from __future__ import annotations

from meshnode.errors import BadRequestDetail, ErrorInfoDetail, MeshError, ResourceInfoDetail
from meshnode.wire.google import protobuf, rpc

__all__ = ["encode_details"]

_PREFIX = "type.googleapis.com/google.rpc."


def encode_details(error: MeshError) -> bytes | None:
    """The encoded google.rpc.Status of an error, None when it has no details."""
    if not error.details:
        return None
    packed = [_pack(detail) for detail in error.details]
    return bytes(rpc.Status(code=error.code.value, message=error.message, details=packed))


def _pack(detail: ErrorInfoDetail | ResourceInfoDetail | BadRequestDetail) -> protobuf.Any:
    match detail:
        case ErrorInfoDetail(reason, metadata, domain):
            message: object = rpc.ErrorInfo(reason=reason, domain=domain, metadata=dict(metadata))
            name = "ErrorInfo"
        case ResourceInfoDetail(kind, resource, owner, description):
            message = rpc.ResourceInfo(
                resource_type=kind, resource_name=resource, owner=owner, description=description
            )
            name = "ResourceInfo"
        case BadRequestDetail(violations):
            listed = [rpc.BadRequestFieldViolation(field=at, description=what) for at, what in violations]
            message = rpc.BadRequest(field_violations=listed)
            name = "BadRequest"
    return protobuf.Any(type_url=_PREFIX + name, value=bytes(message))  # type: ignore[call-overload]
