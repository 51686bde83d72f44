"""Signing in to a service once, and staying signed in: what `s3seg login` and `Client.signed_in` do.

discovery.py   asks a service how its users sign in
supabase.py    signs in, renews and signs out, with Supabase's own client
browser.py     receives the answer of a sign-in in the browser
sessions.py    what is kept on this machine, in a file and the system's keyring
signed_in.py   access tokens of a sign-in that is kept, renewed before they expire
"""

from s3seg.client.signin.sessions import SessionStore, StoredSession
from s3seg.client.signin.signed_in import SignedIn

__all__ = ["SessionStore", "SignedIn", "StoredSession"]
