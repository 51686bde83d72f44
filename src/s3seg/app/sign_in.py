"""What the edge tells clients about signing in."""

from __future__ import annotations

from s3seg.api.additions import SignInResponse
from s3seg.app.settings import Settings


def sign_in_of(settings: Settings) -> SignInResponse:
    """Return how users get their tokens with these settings: everything in it may be public."""
    if settings.authenticator != "supabase":
        return SignInResponse(kind="token", supabase_url=None, supabase_key=None)
    key = settings.supabase_publishable_key
    return SignInResponse(
        kind="supabase",
        supabase_url=settings.supabase_url,
        supabase_key=None if key is None else key.get_secret_value(),
        realtime=settings.supabase_realtime and settings.task_store == "supabase",
    )
