"""The metadata fields of `bindings.postgresql`, with Dapr's names and defaults."""

from __future__ import annotations

from datetime import timedelta
from typing import final

from attrs import frozen

from meshnode.interfaces import option
from meshnode_postgresql._options import ConnectionOptions

__all__ = ["Options"]


@final
@frozen
class Options(ConnectionOptions):
    """Metadata of `bindings.postgresql`."""

    # Statements are the application's own, and may take their time.
    timeout: timedelta = option(
        "timeout",
        "How long the first connection may take, and later ones unless the connection string says otherwise.",
        default=timedelta(seconds=20),
        aliases=("timeoutInSeconds",),
    )
