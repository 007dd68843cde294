"""What importing the wire contract costs: nothing that is not needed, and a codec only at first use."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from meshnode.wire.dapr.proto.runtime import v1 as runtime
from meshnode.wire.dapr.proto.internals import v1 as internals
from meshnode.wire.meshnode.admin import v1 as admin

loaded = [name for name in sys.modules if "._codec_" in name]
assert not loaded, loaded
unwanted = {"asyncio", "pydantic", "grpclib.client", "grpclib.server", "google.protobuf", "jinja2"}
unwanted &= set(sys.modules)
assert not unwanted, unwanted


# `parse` is looked up before `bytes` has loaded the codec.
message = runtime.TryLockRequest(store_name="s")
assert runtime.TryLockRequest.parse(bytes(message)).store_name == "s"
loaded = [name.rpartition("._codec_")[2] for name in sys.modules if "._codec_" in name]
assert loaded == ["lock"], loaded

reading = admin.NodeStatus.parse(b"")
merged = internals.Actor().load(__import__("io").BytesIO(b""))
assert message.to_dict() == {"storeName": "s"}
assert "pydantic" not in sys.modules

# For others it is there.
import betterproto2, pydantic
assert betterproto2.pydantic.BaseModel is pydantic.BaseModel
"""


def test_import_is_lean_and_codecs_load_at_first_use() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
