from tests.adapters.sqlite_helpers import database  # noqa: F401
