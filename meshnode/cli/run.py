"""`meshnode run`: an application and its node together, or all applications of a run file."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from meshnode.cli._errors import UsageProblem
from meshnode.cli._exit import ExitCode
from meshnode.cli._flags import Parsed
from meshnode.cli._runflags import RUN_TABLE
from meshnode.cli._verb import FlagVerb, settings_of

if TYPE_CHECKING:
    from meshnode.cli._mesh import Mesh

__all__ = ["command"]


def _run(parsed: Parsed) -> int:
    import trio

    from meshnode.cli._client import node_health
    from meshnode.cli._color import paint, use_color
    from meshnode.cli._lines import Console
    from meshnode.cli._mesh import Mesh
    from meshnode.cli._plan import check_program, plan_from_flags
    from meshnode.cli._runfile import plans_from_file

    settings = settings_of(RUN_TABLE, parsed)
    color = settings.get("color", "auto")

    def say(text: str) -> None:
        print(
            paint(f"-- {text}", "dim", use_color(color, os.environ, sys.stderr)), file=sys.stderr, flush=True
        )

    if (run_file := settings.get("run-file")) is not None:
        if parsed.rest:
            raise UsageProblem("a run file names its commands itself: leave out the command or --run-file")
        plans = plans_from_file(run_file, settings, parsed, say)
    else:
        plans = [plan_from_flags(settings, parsed)]
    until = settings.get("until", "")
    if until and until not in {plan.app_id for plan in plans}:
        raise UsageProblem(f"--until: {until} is none of the applications of this run")
    width = max(len(f"NODE - {plan.app_id}") for plan in plans) if len(plans) > 1 else len("NODE")
    console = Console(sys.stdout.buffer, use_color(color, os.environ, sys.stdout), width)
    for plan in plans:
        check_program(plan)
    return trio.run(_until_signal, Mesh(plans, console, say, node_health, until))


async def _until_signal(mesh: Mesh) -> int:
    """Run the mesh; the first signal asks it to end, the second insists."""
    import trio

    from meshnode.cli._mesh import run_mesh
    from meshnode.cli._supervise import Stop

    stop = Stop()
    code: int = ExitCode.INTERRUPTED
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def obey() -> None:
                async for number in signals:
                    if stop.wanted:
                        nursery.cancel_scope.cancel()
                    stop.set(number)

            nursery.start_soon(obey)
            code = await run_mesh(mesh, stop)
            nursery.cancel_scope.cancel()
    return code


command = FlagVerb(
    RUN_TABLE,
    "run",
    _run,
    """Start a node and an application together, and end both when one ends.

    meshnode run --app-id order-processor --app-port 50051 --resources-path ./resources -- python3 app.py

    The application finds its node through the environment (DAPR_GRPC_PORT, DAPR_GRPC_ENDPOINT, …) and is
    started when the node's API answers. Flags of `meshnode node` are passed on to it. The exit code is the
    application's. With -f FILE all applications of a multi-app run file run together.""",
)
