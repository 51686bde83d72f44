-- The task machine: what may happen to a task, whoever asks. See s3seg.tasks.state_machine, which says the same in Python.
--
-- Locks are always taken in this order, so that nobody waits in a circle: account, lease, task.

-- The last line of defence: a task moves forward only, and what has ended stays as it is.
create function private.guard_task() returns trigger language plpgsql set search_path = '' as $$
begin
  if (new.id, new.user_id, new.source_image_url, new.text_prompts, new.text_prompt, new.created_at, new.deadline)
       is distinct from
     (old.id, old.user_id, old.source_image_url, old.text_prompts, old.text_prompt, old.created_at, old.deadline)
     or (new.image_id is distinct from old.image_id and new.image_id is not null) then  -- unless it was deleted
    raise exception using errcode = 'PT409', message = 'IMMUTABLE';
  end if;
  if new.status <> old.status and not (
       (old.status = 'pending' and new.status in ('processing', 'error')) or
       (old.status = 'processing' and new.status in ('done', 'error'))) then
    raise exception using errcode = 'PT409', message = 'ILLEGAL_TRANSITION';
  end if;
  if old.status in ('done', 'error') and
     (new.mask_image_url, new.labels, new.metadata, new.object_keys, new.error_code, new.error_message)
       is distinct from
     (old.mask_image_url, old.labels, old.metadata, old.object_keys, old.error_code, old.error_message) then
    raise exception using errcode = 'PT409', message = 'TASK_ENDED';
  end if;
  -- a clock that was set back must not make a task younger than it was
  new.updated_at := case when new.status = old.status then old.updated_at
                         else greatest(private.now(), old.updated_at) end;
  return new;
end $$;
create trigger guard before update on public.segmentation_results
  for each row execute function private.guard_task();

create function private.touch() returns trigger language plpgsql set search_path = '' as
$$ begin new.updated_at := private.now(); return new; end $$;
create trigger touch before update on public.projects for each row execute function private.touch();

-- A ledger row moves the balance; the balance's constraint then refuses what would overdraw it.
create function private.move_credits() returns trigger language plpgsql set search_path = '' as $$
begin
  update public.profiles set credits = credits + new.delta where user_id = new.user_id;
  return null;
end $$;
create trigger move_credits after insert on public.credit_ledger
  for each row execute function private.move_credits();

create function private.keep() returns trigger language plpgsql set search_path = '' as
$$ begin raise exception using errcode = 'PT409', message = 'LEDGER_ROWS_STAY'; end $$;
create trigger keep before update on public.credit_ledger for each row execute function private.keep();

-- Falling into error gives the credits back, in the same transaction; the unique index allows it once.
create function private.refund() returns trigger language plpgsql set search_path = '' as $$
begin
  insert into public.credit_ledger (user_id, delta, reason, task_id)
    values (new.user_id, cardinality(new.text_prompts), 'refund', new.id);
  return null;
end $$;
create trigger refund after update of status on public.segmentation_results for each row
  when (new.status = 'error' and old.status <> 'error') execute function private.refund();

create function private.lock_account(p_user_id uuid) returns public.profiles
language sql volatile set search_path = '' as
$$ select * from public.profiles where user_id = p_user_id for no key update $$;

-- A task as JSON, with the lease beside it if there is one.
create function private.task_json(p_task_id uuid) returns jsonb language sql volatile set search_path = '' as $$
  select to_jsonb(t) || coalesce(
      (select jsonb_build_object('attempt', l.attempt, 'released', l.released, 'worker', l.worker,
                                 'expires_at', l.expires_at)
         from private.leases l where l.task_id = t.id), '{}')
    from public.segmentation_results t where t.id = p_task_id
$$;

-- End a live task in error; one that has ended stays as it is. The caller holds the account's lock.
create function private.end_in_error(p_task_id uuid, p_code text, p_message text) returns void
language plpgsql set search_path = '' as $$
begin
  delete from private.leases where task_id = p_task_id;
  if found then
    update public.segmentation_results set status = 'error', error_code = p_code, error_message = left(p_message, 500)
      where id = p_task_id;
  end if;
end $$;

-- The lease of the current attempt, locked; anybody else's is lost.
create function private.current_lease(p_task_id uuid, p_worker text, p_attempt integer) returns private.leases
language plpgsql set search_path = '' as $$
declare l private.leases;
begin
  select * into l from private.leases where task_id = p_task_id for update;
  if not found or l.worker is distinct from p_worker or l.attempt <> p_attempt then
    raise exception using errcode = 'PT409', message = 'LEASE_LOST';
  end if;
  return l;
end $$;

create function private.take(l private.leases, p_worker text, p_lease_s double precision) returns jsonb
language plpgsql set search_path = '' as $$
begin
  update private.leases set attempt = attempt + 1, worker = p_worker,
      expires_at = least(private.now() + make_interval(secs => p_lease_s), deadline)
    where task_id = l.task_id;
  update public.segmentation_results set status = 'processing' where id = l.task_id and status = 'pending';
  return private.task_json(l.task_id);
end $$;

-- What workers may do; each is one transaction.

create function public.worker_get(p_task_id uuid) returns jsonb language sql volatile security definer
set search_path = '' as $$ select private.task_json(p_task_id) $$;

create function public.worker_claim(p_worker text, p_task_id uuid, p_lease_s double precision) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases;
begin
  select * into l from private.leases where task_id = p_task_id for update;
  if not found or l.expires_at > private.now() or l.deadline <= private.now()
     or l.attempt - l.released >= (select max_attempts from private.config) then
    return null;
  end if;
  return private.take(l, p_worker, p_lease_s);
end $$;

create function public.worker_claim_batch(p_worker text, p_limit integer, p_lease_s double precision) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases; claimed jsonb := '[]';
begin
  for l in select * from private.leases
      where expires_at <= private.now() and deadline > private.now()
        and attempt - released < (select max_attempts from private.config)
      order by created_at, task_id limit p_limit for update skip locked loop
    claimed := claimed || private.take(l, p_worker, p_lease_s);
  end loop;
  return claimed;
end $$;

create function public.worker_renew(p_task_id uuid, p_worker text, p_attempt integer, p_lease_s double precision)
returns timestamptz language plpgsql security definer set search_path = '' as $$
declare l private.leases := private.current_lease(p_task_id, p_worker, p_attempt); ends timestamptz;
begin
  if l.deadline <= private.now() then raise exception using errcode = 'PT409', message = 'LEASE_LOST'; end if;
  update private.leases set expires_at = least(private.now() + make_interval(secs => p_lease_s), deadline)
    where task_id = p_task_id returning expires_at into ends;
  return ends;
end $$;

create function public.worker_release(p_task_id uuid, p_worker text, p_attempt integer) returns void
language plpgsql security definer set search_path = '' as $$
begin
  update private.leases set released = released + 1, worker = null, expires_at = private.now()
    where task_id = p_task_id and worker = p_worker and attempt = p_attempt;
end $$;

create function public.worker_finish(p_task_id uuid, p_worker text, p_attempt integer, p_mask_image_url text,
    p_labels text[], p_metadata jsonb, p_object_keys text[]) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  -- the same result once more: its first answer was lost on the way, and must not be taken for a lost lease
  if exists (select 1 from public.segmentation_results
      where id = p_task_id and status = 'done' and mask_image_url = p_mask_image_url) then
    return private.task_json(p_task_id);
  end if;
  perform private.current_lease(p_task_id, p_worker, p_attempt);
  update public.segmentation_results set status = 'done', mask_image_url = p_mask_image_url, labels = p_labels,
      metadata = p_metadata, object_keys = array(select unnest(p_object_keys) order by 1)
    where id = p_task_id;
  delete from private.leases where task_id = p_task_id;
  return private.task_json(p_task_id);
end $$;

create function public.worker_fail(p_task_id uuid, p_worker text, p_attempt integer, p_code text, p_message text,
    p_retry_after_s double precision default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases;
begin
  perform private.lock_account((select user_id from private.leases where task_id = p_task_id));
  l := private.current_lease(p_task_id, p_worker, p_attempt);
  if p_retry_after_s is not null and l.attempt - l.released < (select max_attempts from private.config) then
    update private.leases set worker = null,
        expires_at = least(private.now() + make_interval(secs => p_retry_after_s), deadline)
      where task_id = p_task_id;
  else
    perform private.end_in_error(p_task_id, p_code, p_message);
  end if;
  return private.task_json(p_task_id);
end $$;

create function public.worker_reap(p_limit integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare l private.leases; c private.config; ended jsonb := '[]'; why text;
begin
  perform pg_advisory_xact_lock(hashtextextended('s3seg.reap', 0));  -- one reaper after another
  select * into c from private.config;
  for l in select * from private.leases
      where deadline <= private.now() or (attempt - released >= c.max_attempts and expires_at <= private.now())
      order by user_id, task_id limit p_limit loop  -- by user: two accounts are never locked in opposite orders
    perform private.lock_account(l.user_id);
    select * into l from private.leases where task_id = l.task_id for update;
    if not found then continue; end if;  -- it ended meanwhile
    if l.deadline <= private.now() then
      why := format('not finished within %s seconds', round(extract(epoch from l.deadline - l.created_at)));
    elsif l.attempt - l.released >= c.max_attempts and l.expires_at <= private.now() then
      why := format('given up after %s attempts', l.attempt - l.released);
    else
      continue;  -- it was renewed meanwhile
    end if;
    perform private.end_in_error(l.task_id, 'INFERENCE_FAILED', why);
    ended := ended || private.task_json(l.task_id);
  end loop;
  return ended;
end $$;
-- Workers reap as they go. Where pg_cron exists, tasks end in time even while no worker runs:
-- select cron.schedule('s3seg-reap', '* * * * *', 'select public.worker_reap(1000)');

revoke all on all functions in schema private from public, anon, authenticated, service_role;
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;
revoke all on function public.worker_get, public.worker_claim, public.worker_claim_batch, public.worker_renew,
  public.worker_release, public.worker_finish, public.worker_fail, public.worker_reap from public, anon, authenticated;
grant execute on function public.worker_get, public.worker_claim, public.worker_claim_batch, public.worker_renew,
  public.worker_release, public.worker_finish, public.worker_fail, public.worker_reap to service_role;
