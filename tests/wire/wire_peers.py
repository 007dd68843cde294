"""Peer programs (other gRPC implementations) driven from tests; `peers/jsonlines.py` is how they talk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, final

import trio
from peers.jsonlines import pack, unpack

PEERS = Path(__file__).parent / "peers"


@final
class Peer:
    """One peer process. Commands go one at a time, from any thread."""

    def __init__(self, program: str) -> None:
        self._lock = threading.Lock()
        environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0", "GRPC_VERBOSITY": "NONE"}
        self._process = subprocess.Popen(
            [sys.executable, str(PEERS / program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def close(self) -> None:
        """End the process, by its stdin and, if that is not enough, by its id."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def ask_now(self, do: str, **arguments: Any) -> Any:
        """Send a command and block for its answer."""
        with self._lock:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(pack({"do": do, **arguments})) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the peer ended with {self._process.wait()}")
        answer = unpack(json.loads(line))
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["ok"]

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Send a command and wait for its answer while trio goes on."""
        return await trio.to_thread.run_sync(lambda: self.ask_now(do, **arguments))
