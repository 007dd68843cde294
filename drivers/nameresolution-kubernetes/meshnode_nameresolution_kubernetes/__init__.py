"""`nameresolution.kubernetes`: where an app id is by the DNS of a Kubernetes cluster, as Dapr's resolver of
that name has it. Imports meshnode.interfaces and meshnode.errors only.

    _template.py   which name an app id has; no I/O
    _options.py    the settings
    _resolver.py   the resolver
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from meshnode.interfaces import Driver, DriverContext
from meshnode_nameresolution_kubernetes._options import KubernetesOptions
from meshnode_nameresolution_kubernetes._resolver import KubernetesResolver, make_dns

__all__ = ["KubernetesOptions", "KubernetesResolver", "driver"]


@asynccontextmanager
async def _open(options: KubernetesOptions, context: DriverContext) -> AsyncIterator[KubernetesResolver]:
    yield KubernetesResolver(options, await trio.to_thread.run_sync(make_dns, options))


driver: Driver[KubernetesResolver] = Driver(
    type="nameresolution.kubernetes",
    metadata=KubernetesOptions,
    open=_open,
    summary="The DNS of a Kubernetes cluster, by the services that Dapr's operator makes.",
)
