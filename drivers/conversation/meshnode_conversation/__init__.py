"""Language models: `conversation.openai`, `conversation.anthropic`, `conversation.ollama`, and
`conversation.echo` for tests.

Imports meshnode.interfaces and meshnode.errors only. httpx's transport is used without its client, which
would keep cookies, follow redirects and read proxies from the environment.

    _options.py    metadata fields that several types have
    _http.py       one request, its JSON answer, and what failures mean
    _cache.py      answers kept for a while
    _json.py       reading answers that may be anything
    anthropic.py, echo.py, ollama.py, openai.py
                   a type each: what its API is asked and what it answers

Each type has a `driver` of its own and imports none of the others.
"""

__all__: list[str] = []
