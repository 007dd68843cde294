"""The generator of everything under meshnode/wire that is not written by hand.

`python -m meshnode.wire._generate` reads proto/ with grpcio-tools' protoc, lets betterproto2's compiler model
classes, stubs and service bases (rendered by the template beside this file, so that they stand on
`meshnode.wire._message` and `meshnode.wire._stub`), and writes them. `--check` writes nothing and fails when
a file differs.

Development only: nothing here is imported by the node.
"""

from __future__ import annotations
