"""What a content type says about how data stands in a CloudEvent. Names as Dapr compares them: without
regard to case, parameters behind a `;` left out.
"""

from __future__ import annotations

__all__ = ["CLOUDEVENTS", "is_binary", "is_cloud_event", "is_json", "is_plain_json"]

CLOUDEVENTS = "application/cloudevents+json"
_JSON = "application/json"
_BINARY = "application/octet-stream"


def is_cloud_event(content_type: str) -> bool:
    return _bare(content_type) == CLOUDEVENTS


def is_plain_json(content_type: str) -> bool:
    return _bare(content_type) == _JSON


def is_json(content_type: str) -> bool:
    """`application/json`, and what says that it is JSON underneath (`application/vnd.order+json`)."""
    bare = _bare(content_type)
    return bare == _JSON or bare.endswith("+json")


def is_binary(content_type: str) -> bool:
    return _bare(content_type) == _BINARY


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
