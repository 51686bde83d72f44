"""The HTTP faces of both services, on Starlette: routes, errors, logs, metrics, OpenAPI, and the server."""
