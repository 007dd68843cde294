"""`meshnode node --help`. Running a node never comes here (see `meshnode.cli`)."""

from __future__ import annotations

from meshnode.cli._flags import Parsed
from meshnode.cli._nodeflags import NODE_TABLE
from meshnode.cli._verb import FlagVerb

__all__ = ["command"]


def _node(parsed: Parsed) -> int:
    from meshnode.cli.node import run_parsed

    return run_parsed(parsed)


command = FlagVerb(
    NODE_TABLE,
    "node",
    _node,
    """Run one node beside one application: what `daprd` is to Dapr, with its flags.

    Every flag can also be set as MESHNODE_<FLAG>, in the project's .meshnode/config.toml or in the user's
    config.toml. From the environment: DAPR_API_TOKEN, APP_API_TOKEN, NAMESPACE, DAPR_HOST_IP. The node ends
    on SIGTERM and SIGINT after the calls in flight. Flags of daprd that mean HTTP are refused.""",
)
