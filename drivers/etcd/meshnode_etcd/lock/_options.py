"""The metadata fields of `lock.etcd`."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode_etcd._options import ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `lock.etcd`: where etcd is."""
