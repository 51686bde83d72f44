"""Both services over HTTP, on Starlette: routes, errors, logs, metrics, OpenAPI, and the server."""
