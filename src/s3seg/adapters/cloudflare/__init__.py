"""Adapters on what the runtime of Cloudflare Workers offers: fetch, WebCrypto, and R2 as a binding.

They run inside a Python Worker only, where the modules ``js`` and ``pyodide`` are: JavaScript's objects as Python's.
"""
