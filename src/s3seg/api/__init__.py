"""The wire: pydantic models of every request and response, error codes and rate limits.

These models are the single source of truth; the OpenAPI documents are generated from them.
"""
