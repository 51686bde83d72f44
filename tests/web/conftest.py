from tests.web.limited_server import impatient_server, server  # noqa: F401
