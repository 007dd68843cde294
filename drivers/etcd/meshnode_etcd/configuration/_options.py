"""The metadata fields of `configuration.etcd`."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode_etcd._options import ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `configuration.etcd`: where etcd is, and below which path the items are."""
