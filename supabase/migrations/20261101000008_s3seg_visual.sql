-- What a task asks for beside words: clicks, as JSON that only the worker reads. Its price is that of its prompts, which
-- describe it, one for each object.

create function private.is_visual(p_visual jsonb, p_objects integer) returns boolean
language sql immutable set search_path = '' as $$
  select octet_length(p_visual::text) <= 65536 and jsonb_typeof(p_visual) = 'object'
     and (not p_visual ? 'clicks'
          or case when jsonb_typeof(p_visual -> 'clicks') = 'array'
                  then jsonb_array_length(p_visual -> 'clicks') = p_objects else false end)
$$;

alter table public.segmentation_results add column visual jsonb
  check (private.is_visual(visual, cardinality(text_prompts)));

create or replace function private.guard_task() returns trigger language plpgsql set search_path = '' as $$
begin
  if (new.id, new.user_id, new.source_image_url, new.text_prompts, new.text_prompt, new.created_at, new.deadline,
      new.visual)
       is distinct from
     (old.id, old.user_id, old.source_image_url, old.text_prompts, old.text_prompt, old.created_at, old.deadline,
      old.visual)
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

-- The functions that take a request have one argument more; fingerprints of requests of words stay as they were.
drop function public.find_repeat(text, text[], uuid, text);
drop function public.submit_segmentation(text, text[], uuid, text);
drop function private.fingerprint(text, text[], uuid);

create function private.fingerprint(p_image_url text, p_text_prompts text[], p_project_id uuid, p_visual jsonb)
returns text language sql stable set search_path = '' as $$
  select encode(sha256(convert_to((jsonb_build_array(p_image_url, p_text_prompts, p_project_id)
    || case when p_visual is null then '[]'::jsonb else jsonb_build_array(p_visual) end)::text, 'UTF8')), 'hex')
$$;

create function public.find_repeat(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null, p_visual jsonb default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare account public.profiles := private.require_account();
  t public.segmentation_results := private.repeat_of(account.user_id,
    private.fingerprint(p_image_url, p_text_prompts, p_project_id, p_visual), p_idempotency_key);
begin
  return case when t.id is not null then to_jsonb(t) end;
end $$;

create function public.submit_segmentation(p_image_url text, p_text_prompts text[], p_project_id uuid default null,
    p_idempotency_key text default null, p_visual jsonb default null) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  -- holding the account's lock, this user's submits run one after another: no double spend, no race of two keys
  account public.profiles := private.require_account();
  asked text := private.fingerprint(p_image_url, p_text_prompts, p_project_id, p_visual);
  moment timestamptz := private.now();
  t public.segmentation_results; image uuid; cost integer; rate jsonb;
begin
  if not coalesce(private.are_prompts(p_text_prompts), false) then
    raise exception using errcode = 'PT400', message = 'BAD_PROMPTS';
  end if;
  if p_visual is not null and not coalesce(private.is_visual(p_visual, cardinality(p_text_prompts)), false) then
    raise exception using errcode = 'PT400', message = 'BAD_VISUAL';
  end if;
  t := private.repeat_of(account.user_id, asked, p_idempotency_key);
  if t.id is not null then
    return jsonb_build_object('task', to_jsonb(t), 'created', false, 'rate', null);
  end if;
  rate := private.count_action(account, 'segment');

  -- an image is also found by the URL that it would have today: the public base URL may have changed since it was stored
  select i.id into image from public.images i, private.config c
    where i.user_id = account.user_id and (i.image_url = p_image_url or (
      starts_with(p_image_url, c.public_base_url || '/')
      and i.object_key = substr(p_image_url, length(c.public_base_url) + 2)));
  if not found then raise exception using errcode = 'PT400', message = 'UNKNOWN_IMAGE'; end if;
  perform private.require_project(account.user_id, p_project_id);
  cost := cardinality(p_text_prompts);
  if account.credits < cost then
    raise exception using errcode = 'PT402', message = 'INSUFFICIENT_CREDITS', detail = jsonb_build_object(
      'cost', cost, 'credits', account.credits)::text;
  end if;

  insert into public.segmentation_results (user_id, project_id, image_id, source_image_url, text_prompts, text_prompt,
      idempotency_key, fingerprint, created_at, updated_at, deadline, visual)
    select account.user_id, p_project_id, image, p_image_url, p_text_prompts, array_to_string(p_text_prompts, ', '),
           p_idempotency_key, asked, moment, moment, moment + deadline, p_visual from private.config
    returning * into t;
  insert into private.leases (task_id, user_id, created_at, deadline, expires_at)
    values (t.id, t.user_id, t.created_at, t.deadline, t.created_at);
  insert into public.credit_ledger (user_id, delta, reason, task_id, created_at)
    values (t.user_id, -cost, 'segment', t.id, moment);
  return jsonb_build_object('task', to_jsonb(t), 'created', true, 'rate', rate);
end $$;

-- Concepts: examples on images of the user's own, read by the worker when they are used.
create table public.concepts (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
  name text not null check (private.is_text(name, 120)),
  definition jsonb not null check (jsonb_typeof(definition) = 'object' and octet_length(definition::text) <= 32768),
  created_at timestamptz not null default private.now());
create index concepts_user on public.concepts (user_id, created_at desc, id desc);
alter table public.concepts enable row level security;
revoke all on public.concepts from public, anon, authenticated, service_role;
grant select on public.concepts to service_role;
grant select (id, user_id, name, definition, created_at), insert (name, definition), delete on public.concepts
  to authenticated;
create policy own_rows on public.concepts for all to authenticated
  using ((select private.caller()) = user_id) with check ((select private.caller()) = user_id);

-- Counted like a request of the edge's, and at most 100 a user, whose account is locked meanwhile.
create function private.count_concept() returns trigger language plpgsql security definer set search_path = '' as $$
declare account public.profiles;
begin
  if private.caller() is not null then  -- the owner of the schema may put in what it likes
    account := private.require_account();
    perform private.count_action(account, 'results');
    if (select count(*) from public.concepts where user_id = account.user_id) >= 100 then
      raise exception using errcode = 'PT400', message = 'TOO_MANY_CONCEPTS';
    end if;
  end if;
  return new;
end $$;
create trigger count before insert on public.concepts for each row execute function private.count_concept();

create or replace function public.s3seg_info() returns jsonb language sql stable security definer set search_path = '' as
$$ select jsonb_build_object('version', 5, 'public_base_url', public_base_url) from private.config $$;

grant select (visual) on public.segmentation_results to authenticated;
revoke all on all functions in schema private from public, anon, authenticated, service_role;
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;
revoke all on function public.find_repeat, public.submit_segmentation from public, anon, authenticated, service_role;
grant execute on function public.find_repeat, public.submit_segmentation to authenticated;

notify pgrst, 'reload schema';
