-- Rate limits that survive crashes and clocks that are set, jobs that one process at a time begins, and fewer ways for
-- users to learn how much others do.

-- Counts must survive a crash of the database, after which unlogged tables are empty.
alter table private.recent_actions set logged;

-- Count one more action of a caller whose account is locked, if fewer than p_limit happened in the last 60 seconds.
-- A time in the future means that the clock was set back: such an action is taken to have happened just now, so that
-- the limit holds, and nobody waits longer than the window.
create function private.count_in_window(p_user_id uuid, p_bucket text, p_limit integer) returns jsonb
language plpgsql set search_path = '' as $$
declare moment timestamptz := private.now(); recent timestamptz[]; used integer;
begin
  select array(select least(t, moment) from unnest(happened_at) t where t > moment - interval '60 seconds'
               order by 1 desc limit p_limit)
    into recent from private.recent_actions where user_id = p_user_id and action = p_bucket;
  recent := coalesce(recent, '{}');
  used := cardinality(recent);
  insert into private.recent_actions values (p_user_id, p_bucket, case when used < p_limit then recent || moment else recent end)
    on conflict (user_id, action) do update set happened_at = excluded.happened_at;
  return jsonb_build_object('allowed', used < p_limit, 'limit', p_limit, 'count', used,
                            'oldest_age', extract(epoch from moment - recent[used]));
end $$;

-- The same for a function that refuses with an error, which undoes its changes.
drop function private.count_action(public.profiles, text);
drop function private.refuse_rate(text, integer, timestamptz, timestamptz);
create function private.count_action(p_account public.profiles, p_action text) returns jsonb
language plpgsql set search_path = '' as $$
declare counted jsonb := private.count_in_window(p_account.user_id, p_action, (
    select per_minute from private.rate_limits where tier = p_account.tier and action = p_action));
begin
  if not (counted ->> 'allowed')::boolean then
    raise exception using errcode = 'PT429', message = 'RATE_LIMITED',
      detail = (counted || jsonb_build_object('action', p_action))::text;
  end if;
  return counted;
end $$;

-- Correct times in the future. Functions that refuse with an error cannot keep what they corrected, so others do it.
create function private.correct_counts(p_user_id uuid) returns void language sql volatile set search_path = '' as $$
  update private.recent_actions r set happened_at = array(select least(t, n.moment) from unnest(r.happened_at) t)
    from (select private.now() as moment) n
    where (p_user_id is null or r.user_id = p_user_id) and n.moment < any (r.happened_at)
$$;

create or replace function public.my_account() returns jsonb language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
begin
  perform private.correct_counts(account.user_id);
  return to_jsonb(account);
end $$;

-- The rate limiter of the edge: requests, which it counts before it reads their bodies. Uploads, submits and projects
-- are counted once more, in buckets of their own, by the functions that make them.
create function public.count_request(p_action text) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account(); most integer;
begin
  select per_minute into most from private.rate_limits
    where tier = account.tier and action = case p_action when 'tasks' then 'results' else p_action end;
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_ACTION'; end if;
  perform private.correct_counts(account.user_id);
  return private.count_in_window(account.user_id, 'request:' || p_action, most);
end $$;

create function private.fingerprint(p_image_url text, p_text_prompts text[], p_project_id uuid) returns text
language sql stable set search_path = '' as $$
  select encode(sha256(convert_to(jsonb_build_array(p_image_url, p_text_prompts, p_project_id)::text, 'UTF8')), 'hex')
$$;

-- The task that an equal request with the same key made; null if there is none.
create function private.repeat_of(p_user_id uuid, p_fingerprint text, p_idempotency_key text)
returns public.segmentation_results language plpgsql set search_path = '' as $$
declare t public.segmentation_results;
begin
  select * into t from public.segmentation_results
    where user_id = p_user_id and idempotency_key = p_idempotency_key;
  if t.fingerprint <> p_fingerprint then raise exception using errcode = 'PT400', message = 'KEY_REUSED'; end if;
  return t;
end $$;

create function public.find_repeat(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
  t public.segmentation_results := private.repeat_of(account.user_id,
    private.fingerprint(p_image_url, p_text_prompts, p_project_id), p_idempotency_key);
begin
  return case when t.id is not null then to_jsonb(t) end;
end $$;

-- As before, but submits are counted like every other action, not by the time of their debits.
create or replace function public.submit_segmentation(p_image_url text, p_text_prompts text[],
    p_project_id uuid default null, p_idempotency_key text default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- holding the account's lock, this user's submits run one after another: no double spend, no race of two keys
  account public.profiles := private.require_account();
  asked text := private.fingerprint(p_image_url, p_text_prompts, p_project_id);
  moment timestamptz := private.now();
  t public.segmentation_results; image uuid; cost integer; rate jsonb;
begin
  if not coalesce(private.are_prompts(p_text_prompts), false) then
    raise exception using errcode = 'PT400', message = 'BAD_PROMPTS';
  end if;
  t := private.repeat_of(account.user_id, asked, p_idempotency_key);
  if t.id is not null then
    return jsonb_build_object('task', to_jsonb(t), 'created', false, 'rate', null);
  end if;
  rate := private.count_action(account, 'segment');

  select id into image from public.images where image_url = p_image_url and user_id = account.user_id;
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_IMAGE'; end if;
  perform private.require_project(account.user_id, p_project_id);
  cost := cardinality(p_text_prompts);
  if account.credits < cost then
    raise exception using errcode = 'PT402', message = 'INSUFFICIENT_CREDITS', detail = jsonb_build_object(
      'cost', cost, 'credits', account.credits)::text;
  end if;

  insert into public.segmentation_results (user_id, project_id, image_id, source_image_url, text_prompts, text_prompt,
      idempotency_key, fingerprint, created_at, updated_at, deadline)
    select account.user_id, p_project_id, image, p_image_url, p_text_prompts, array_to_string(p_text_prompts, ', '),
           p_idempotency_key, asked, moment, moment, moment + deadline from private.config
    returning * into t;
  insert into private.leases (task_id, user_id, created_at, deadline, expires_at)
    values (t.id, t.user_id, t.created_at, t.deadline, t.created_at);
  insert into public.credit_ledger (user_id, delta, reason, task_id, created_at)
    values (t.user_id, -cost, 'segment', t.id, moment);
  return jsonb_build_object('task', to_jsonb(t), 'created', true, 'rate', rate);
end $$;

-- submits of the last minute before this migration
insert into private.recent_actions (user_id, action, happened_at)
  select user_id, 'segment', array_agg(created_at order by created_at desc) from public.credit_ledger
    where reason = 'segment' and created_at > private.now() - interval '60 seconds' group by user_id
  on conflict do nothing;

-- Workers read images whose keys look like those that the edge makes, and garbage collection sees no others.
alter table public.images add constraint images_object_key_form
  check (object_key ~ ('^users/' || user_id::text || '/images/[0-9a-f]{32}\.(png|jpg|webp)$')) not valid;

-- Jobs that any service may do: whoever begins one first does it, the others wait until it is due again.
create table private.jobs (name text primary key, began_at timestamptz not null);
alter table private.jobs enable row level security;

-- Deleted users, whose objects still have to be collected.
create table private.former_users (user_id uuid primary key, deleted_at timestamptz not null default private.now());
alter table private.former_users enable row level security;
create function private.remember_user() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into private.former_users (user_id) values (old.user_id) on conflict do nothing;
  return null;
end $$;
create trigger remember_user after delete on public.profiles for each row execute function private.remember_user();

create function public.operator_begin_job(p_name text, p_every_s double precision) returns boolean
language plpgsql security definer set search_path = '' as $$
begin
  perform private.correct_counts(null);
  delete from private.former_users where deleted_at < private.now() - interval '30 days';
  insert into private.jobs as j values (p_name, private.now())
    on conflict (name) do update set began_at = excluded.began_at
      where j.began_at <= excluded.began_at - make_interval(secs => p_every_s)
         or j.began_at > excluded.began_at;  -- the clock was set back
  return found;
end $$;

create function public.operator_known_users(p_user_ids uuid[]) returns uuid[] language sql stable security definer
set search_path = '' as $$
  select coalesce(array_agg(asked), '{}') from unnest(p_user_ids) as asked
    where exists (select 1 from public.profiles where user_id = asked)
       or exists (select 1 from private.former_users where user_id = asked)
$$;

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 2, 'public_base_url', public_base_url) from private.config $$;

-- Users read columns, not tables: the system columns (xmin, ctid) and the numbers of ledger entries grow with what all
-- users do together.
revoke select on public.profiles, public.credit_ledger, public.projects, public.images, public.segmentation_results
  from authenticated;
grant select (user_id, tier, credits, created_at) on public.profiles to authenticated;
grant select (user_id, delta, reason, task_id, created_at) on public.credit_ledger to authenticated;
grant select (id, user_id, name, created_at, updated_at) on public.projects to authenticated;
grant select (id, user_id, project_id, object_key, image_url, content_type, size_bytes, width, height, created_at)
  on public.images to authenticated;
grant select (id, user_id, project_id, image_id, source_image_url, text_prompts, text_prompt, status, mask_image_url,
  labels, metadata, object_keys, error_code, error_message, idempotency_key, fingerprint, created_at, updated_at, deadline)
  on public.segmentation_results to authenticated;

revoke all on all functions in schema private from public, anon, authenticated, service_role;
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;
revoke all on function public.count_request, public.find_repeat, public.operator_begin_job, public.operator_known_users
  from public, anon, authenticated, service_role;
grant execute on function public.count_request, public.find_repeat to authenticated;
grant execute on function public.operator_begin_job, public.operator_known_users to service_role;

notify pgrst, 'reload schema';
