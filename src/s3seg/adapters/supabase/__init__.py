"""Tasks, accounts and projects in a Supabase project, through PostgREST.

The schema lies in ``supabase/migrations``. Users' calls carry the user's own token, so that row-level security
applies; workers' and operators' calls carry the service key.
"""

from s3seg.adapters.supabase.rest import Rest
from s3seg.adapters.supabase.tasks import SupabaseTaskStore
from s3seg.adapters.supabase.work import SupabaseAccounts, SupabaseTaskQueue

__all__ = ["Rest", "SupabaseAccounts", "SupabaseTaskQueue", "SupabaseTaskStore"]
