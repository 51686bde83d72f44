"""Wire models: pydantic models of every request and response, and the error codes.

These models are the single source of truth; the OpenAPI documents are generated from them.
"""
