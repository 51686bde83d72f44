-- A worker that has as many tasks with tiles as it takes at a time claims others only: tiles take much longer, and those of
-- one user must not keep the tasks of all others waiting.

drop function public.worker_claim_batch(text, integer, double precision);

create function public.worker_claim_batch(
    p_worker text, p_limit integer, p_lease_s double precision, p_with_tiles boolean default true) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases; claimed jsonb := '[]';
begin
  for l in select * from private.leases k
      where k.expires_at <= private.now() and k.deadline > private.now()
        and k.attempt - k.released < (select max_attempts from private.config)
        and (p_with_tiles or not exists (
          select from public.segmentation_results r where r.id = k.task_id and r.visual ? 'tile'))
      order by k.created_at, k.task_id limit p_limit for update skip locked loop
    claimed := claimed || private.take(l, p_worker, p_lease_s);
  end loop;
  return claimed;
end $$;

revoke all on function public.worker_claim_batch from public, anon, authenticated;
grant execute on function public.worker_claim_batch to service_role;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 7, 'public_base_url', public_base_url) from private.config $$;

notify pgrst, 'reload schema';
