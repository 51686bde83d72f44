"""Train a small SAM 3 on scenes that are drawn by code: a worked example."""
