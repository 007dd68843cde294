"""The metadata fields of `state.etcd`, with Dapr's names and defaults."""

from __future__ import annotations

from typing import final

from attrs import frozen

from meshnode.errors import Problem
from meshnode.interfaces import option
from meshnode_etcd._options import ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `state.etcd`, of both versions."""

    max_txn_ops: int = option(
        "maxTxnOps",
        "Most operations of one transaction: what the servers' flag --max-txn-ops allows.",
        default=128,
    )

    def problems(self) -> list[Problem]:
        found = super().problems()
        if self.max_txn_ops < 1:
            found.append(Problem(f"{self.max_txn_ops} is no number of operations", field="maxTxnOps"))
        return found
