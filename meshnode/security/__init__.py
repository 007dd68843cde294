"""Identity, API tokens and access policy. May import errors, interfaces and config."""
