-- Webhooks: addresses that are told when a task of their owner ends. A delivery is written in the transaction that ends
-- the task; senders, who have the secret key, claim what is due.

create table private.webhooks (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,
  url text not null check (char_length(url) between 1 and 2000),
  secret text not null,
  created_at timestamptz not null default private.now());
create index webhooks_user on private.webhooks (user_id, created_at);
alter table private.webhooks enable row level security;

create table private.deliveries (
  id text primary key default 'msg_' || replace(gen_random_uuid()::text, '-', ''),
  webhook_id uuid not null references private.webhooks (id) on delete cascade,
  task_id uuid not null,                 -- kept when the task is deleted
  payload text not null,
  status text not null default 'pending' check (status in ('pending', 'delivered', 'failed')),
  attempts integer not null default 0,
  next_attempt_at timestamptz,           -- null once it has ended
  last_error text,
  created_at timestamptz not null,
  check ((status = 'pending') = (next_attempt_at is not null)));
create index deliveries_due on private.deliveries (next_attempt_at) where next_attempt_at is not null;
create index deliveries_webhook on private.deliveries (webhook_id, created_at);
create index deliveries_ended on private.deliveries (created_at) where next_attempt_at is null;
alter table private.deliveries enable row level security;

create function private.tell_of_end() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into private.deliveries (webhook_id, task_id, payload, next_attempt_at, created_at)
    select w.id, new.id, jsonb_build_object(
        'type', 'task.' || new.status,
        'timestamp', to_char(new.updated_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'data', jsonb_strip_nulls(jsonb_build_object(
          'task_id', new.id, 'status', new.status,
          'result_id', case when new.status = 'done' then new.id end,
          'error_message', new.error_message)))::text,
      new.updated_at, new.updated_at
    from private.webhooks w where w.user_id = new.user_id;
  return null;
end $$;
create trigger tell_of_end after update of status on public.segmentation_results for each row
  when (new.status in ('done', 'error') and old.status not in ('done', 'error')) execute function private.tell_of_end();

-- What their owners may do.

create function public.create_webhook(p_url text, p_secret text, p_most integer) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); made private.webhooks;
begin
  if (select count(*) from private.webhooks where user_id = account.user_id) >= least(p_most, 5) then
    raise exception using errcode = 'PT400', message = 'TOO_MANY_WEBHOOKS';
  end if;
  if p_url !~ '^https?://' or p_secret !~ '^whsec_[A-Za-z0-9+/=]{32,100}$' then
    raise exception using errcode = 'PT400', message = 'BAD_WEBHOOK';
  end if;
  insert into private.webhooks (user_id, url, secret) values (account.user_id, p_url, p_secret) returning * into made;
  return to_jsonb(made) - 'secret' - 'user_id';
end $$;

create function public.my_webhooks() returns jsonb language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(w) - 'secret' - 'user_id' order by w.created_at, w.id), '[]')
    from private.webhooks w where w.user_id = private.caller()
$$;

create function public.delete_webhook(p_webhook_id uuid) returns boolean language plpgsql security definer
set search_path = '' as $$
begin
  delete from private.webhooks where id = p_webhook_id and user_id = private.caller();
  return found;
end $$;

create function public.my_deliveries(p_limit integer) returns jsonb language sql stable security definer
set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(found) order by found.created_at desc, found.id desc), '[]') from (
    select d.* from private.deliveries d join private.webhooks w on w.id = d.webhook_id
      where w.user_id = private.caller() order by d.created_at desc, d.id desc limit least(p_limit, 100)) found
$$;

create function public.replay_delivery(p_delivery_id text) returns jsonb language plpgsql security definer
set search_path = '' as $$
declare again private.deliveries;
begin
  update private.deliveries d set status = 'pending', attempts = 0, last_error = null, next_attempt_at = private.now()
    from private.webhooks w
    where d.id = p_delivery_id and w.id = d.webhook_id and w.user_id = private.caller()
    returning d.* into again;
  return case when again.id is not null then to_jsonb(again) end;
end $$;

-- What senders may do.

create function public.worker_claim_deliveries(p_limit integer, p_lease_s double precision, p_kept_days integer)
returns jsonb language plpgsql security definer set search_path = '' as $$
declare claimed jsonb;
begin
  delete from private.deliveries
    where next_attempt_at is null and created_at < private.now() - make_interval(days => p_kept_days);
  with due as (
    select id from private.deliveries where next_attempt_at <= private.now()
      order by created_at, id limit p_limit for update skip locked),
  taken as (
    update private.deliveries d
      set attempts = attempts + 1, next_attempt_at = private.now() + make_interval(secs => p_lease_s)
      from due where d.id = due.id returning d.*)
  select jsonb_agg(jsonb_build_object('delivery_id', t.id, 'url', w.url, 'secret', w.secret, 'payload', t.payload,
                                      'attempts', t.attempts) order by t.created_at, t.id)
    into claimed from taken t join private.webhooks w on w.id = t.webhook_id;
  return coalesce(claimed, '[]');
end $$;

create function public.worker_settle_delivery(p_delivery_id text, p_error text, p_retry_after_s double precision)
returns void language sql security definer set search_path = '' as $$
  update private.deliveries set
      status = case when p_error is null then 'delivered' when p_retry_after_s is null then 'failed' else 'pending' end,
      next_attempt_at = case when p_error is not null then private.now() + make_interval(secs => p_retry_after_s) end,
      last_error = left(p_error, 500)
    where id = p_delivery_id and status = 'pending'
$$;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 4, 'public_base_url', public_base_url) from private.config $$;

revoke all on function private.tell_of_end from public, anon, authenticated, service_role;
revoke all on function public.create_webhook, public.my_webhooks, public.delete_webhook, public.my_deliveries,
  public.replay_delivery, public.worker_claim_deliveries, public.worker_settle_delivery
  from public, anon, authenticated, service_role;
grant execute on function public.create_webhook, public.my_webhooks, public.delete_webhook, public.my_deliveries,
  public.replay_delivery to authenticated;
grant execute on function public.worker_claim_deliveries, public.worker_settle_delivery to service_role;

notify pgrst, 'reload schema';
