"""Spans, metrics and logs: what a node says about itself. May import errors, interfaces and config."""
