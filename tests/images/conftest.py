from tests.images.noise import path  # noqa: F401
