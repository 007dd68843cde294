"""Suites that every driver of a kind must pass; a driver's author runs the one of its kind.

One module per kind (`state`, `pubsub`, `bindings`, `configuration`, `conversation`, `crypto`, `lock`,
`secretstores`, `nameresolution`). Imports meshnode.interfaces and meshnode.errors, and no test framework.
"""
