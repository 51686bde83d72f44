from tests.checkpoints.mirrored import lite_text, mirror, online_hub  # noqa: F401
