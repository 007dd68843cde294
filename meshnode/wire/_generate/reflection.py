"""The descriptors that the node keeps at run time, as one file: what server reflection hands out."""

from __future__ import annotations

from google.protobuf.descriptor_pb2 import FileDescriptorSet  # type: ignore[attr-defined]

__all__ = ["render_descriptors"]


def render_descriptors(descriptor_set: bytes) -> dict[str, bytes]:
    """`descriptors.binpb`, a google.protobuf.FileDescriptorSet without comments, sorted by file."""
    files = sorted(FileDescriptorSet.FromString(descriptor_set).file, key=lambda file: file.name)
    for file in files:
        file.ClearField("source_code_info")
    return {"descriptors.binpb": FileDescriptorSet(file=files).SerializeToString(deterministic=True)}
