"""meshnode: a gRPC-only service-mesh node on trio that speaks Dapr's wire contract."""

__all__ = ["__version__"]

__version__ = "0.1.0"
