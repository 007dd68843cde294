"""The application of the SDK tests, written with the unmodified Python SDK: it echoes what `echo` is invoked
with.

Takes its port. Prints `listening` once it is there.
"""

from __future__ import annotations

import sys

from dapr.ext.grpc import App, InvokeMethodRequest, InvokeMethodResponse

app = App()


@app.method(name="echo")
def echo(request: InvokeMethodRequest) -> InvokeMethodResponse:
    def seen(key: str) -> str:
        return ",".join(request.metadata.get(key, ()))

    answer = InvokeMethodResponse(request.data, "application/json")
    answer.headers = (("seen-caller", seen("dapr-caller-app-id")), ("seen-note", seen("note")))
    return answer


@app.method(name="fail")
def fail(request: InvokeMethodRequest) -> InvokeMethodResponse:
    raise ValueError("the application refuses")


if __name__ == "__main__":
    print("listening", flush=True)
    app.run(int(sys.argv[1]))
