"""The gRPC surfaces: `dapr` (applications call it), `internal` (nodes call it), `admin`, `health`,
`reflection`.

Only here do wire messages meet the transport's streams; the blocks below see neither streams nor each other.
May import everything below `node`.
"""
