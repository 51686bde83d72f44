-- Tables of s3seg, and who may see what.
--
-- A client holds its own token and the publishable key, so it can talk to PostgREST without our edge. Row-level
-- security, grants, constraints and functions are therefore the boundary; the edge's checks are a courtesy.
-- Users read their own rows. All they write directly is the name of a project; everything else goes through the
-- functions of the later migrations. Not even the service key writes to tables.

create schema if not exists private;  -- PostgREST does not expose it
revoke all on schema private from public;

create type public.task_status as enum ('pending', 'processing', 'done', 'error');
create type public.user_tier as enum ('free', 'pro', 'enterprise');

-- what the operator configures; one row
create table private.config (
  singleton boolean primary key default true check (singleton),
  public_base_url text not null default 'https://unconfigured.invalid'
    check (public_base_url ~ '^https?://[^[:space:]?#]+[^/[:space:]?#]$'),
  welcome_credits integer not null default 10 check (welcome_credits >= 0),
  deadline interval not null default '900 seconds' check (deadline > interval '0'),
  max_attempts integer not null default 3 check (max_attempts between 1 and 100));
insert into private.config default values;

-- actions in any 60 seconds
create table private.rate_limits (
  tier public.user_tier not null,
  action text not null check (action in ('upload', 'segment', 'results')),
  per_minute integer not null check (per_minute >= 0),
  primary key (tier, action));
insert into private.rate_limits values
  ('free', 'upload', 10), ('free', 'segment', 5), ('free', 'results', 60),
  ('pro', 'upload', 30), ('pro', 'segment', 20), ('pro', 'results', 120),
  ('enterprise', 'upload', 100), ('enterprise', 'segment', 60), ('enterprise', 'results', 300);

-- the one clock
create function private.now() returns timestamptz language sql volatile set search_path = '' as
$$ select clock_timestamp() $$;

-- who calls, or null: signed in with an account, not anonymously
create function private.caller() returns uuid language sql stable set search_path = '' as $$
  select auth.uid() where auth.role() = 'authenticated'
    and coalesce(auth.jwt() -> 'is_anonymous', 'false'::jsonb) = 'false'::jsonb
$$;

-- a line that people can read as it is: no controls, no breaks, nothing that only turns the direction, not all blank
create function private.is_text(p text, p_longest integer) returns boolean language sql immutable set search_path = '' as $$
  select p is not null and char_length(p) between 1 and p_longest
    and p !~ '[\u0001-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]'
    and p ~ '[^ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]'
$$;

create function private.are_prompts(p text[]) returns boolean language sql immutable set search_path = '' as $$
  select array_ndims(p) = 1 and cardinality(p) between 1 and 16
    and (select bool_and(private.is_text(prompt, 500)) from unnest(p) as prompt)
$$;

-- credits: always the sum of the ledger, through which alone they change
create table public.profiles (
  user_id uuid primary key references auth.users (id) on delete cascade,
  tier public.user_tier not null default 'free',
  credits integer not null default 0 check (credits >= 0),
  created_at timestamptz not null default private.now());

create table public.credit_ledger (
  id bigint generated always as identity primary key,
  user_id uuid not null references auth.users (id) on delete cascade,
  delta integer not null check (delta <> 0),
  reason text not null check (reason in ('grant', 'purchase', 'segment', 'refund', 'adjust')),
  task_id uuid,  -- kept when the task is deleted
  created_at timestamptz not null default private.now());
create index credit_ledger_user on public.credit_ledger (user_id, id);
create index credit_ledger_debits on public.credit_ledger (user_id, created_at desc) where reason = 'segment';
create unique index credit_ledger_once on public.credit_ledger (task_id, reason) where reason in ('segment', 'refund');

create table public.projects (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid() references auth.users (id) on delete cascade,
  name text not null check (private.is_text(name, 120)),
  created_at timestamptz not null default private.now(),
  updated_at timestamptz not null default private.now(),
  unique (id, user_id));  -- what the foreign keys below point at: one's own projects only
create index projects_user on public.projects (user_id, created_at desc, id desc);

create table public.images (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,
  project_id uuid,
  object_key text not null unique check (char_length(object_key) <= 200 and object_key ~
    ('^users/' || user_id::text || '/images/[A-Za-z0-9_-][A-Za-z0-9._-]*\.' ||
     case content_type when 'image/png' then 'png' when 'image/jpeg' then 'jpg' else 'webp' end || '$')),
  image_url text not null unique,  -- derived from the key: a free one would send our workers anywhere
  content_type text not null check (content_type in ('image/png', 'image/jpeg', 'image/webp')),
  size_bytes bigint not null check (size_bytes between 1 and 10485760),
  width integer not null check (width > 0),
  height integer not null check (height > 0),
  check (width::bigint * height <= 178000000),  -- the most that an edge can be set to take
  created_at timestamptz not null default private.now(),
  foreign key (project_id, user_id) references public.projects (id, user_id) on delete set null (project_id));
create index images_user on public.images (user_id, created_at desc);
create index images_project on public.images (project_id) where project_id is not null;

-- a task and its result are one row
create table public.segmentation_results (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users (id) on delete cascade,
  project_id uuid,
  image_id uuid references public.images (id) on delete set null,
  source_image_url text not null,
  text_prompts text[] not null check (private.are_prompts(text_prompts)),
  text_prompt text not null,  -- text_prompts joined with ", "
  status public.task_status not null default 'pending',
  mask_image_url text not null default '',
  labels text[] not null default '{}',
  metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
  object_keys text[] not null default '{}',  -- every object that the result consists of
  error_code text,
  error_message text check (char_length(error_message) <= 500),
  idempotency_key text check (idempotency_key ~ '^[ -~]{1,200}$'),
  fingerprint text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,  -- when the status last changed
  deadline timestamptz not null,
  foreign key (project_id, user_id) references public.projects (id, user_id) on delete set null (project_id),
  check (status <> 'done' or mask_image_url <> ''),
  check ((status = 'error') = (error_message is not null)));
create unique index segmentation_results_idempotency on public.segmentation_results (user_id, idempotency_key)
  where idempotency_key is not null;
create index segmentation_results_user on public.segmentation_results (user_id, created_at desc, id desc);
create index segmentation_results_project on public.segmentation_results (project_id, created_at desc, id desc)
  where project_id is not null;
create index segmentation_results_image on public.segmentation_results (image_id) where image_id is not null;
create index segmentation_results_objects on public.segmentation_results using gin (object_keys);

-- one row per live task, gone when it ends; free to be claimed from expires_at on
create table private.leases (
  task_id uuid primary key references public.segmentation_results (id) on delete cascade,
  user_id uuid not null,
  created_at timestamptz not null,
  deadline timestamptz not null,
  attempt integer not null default 0,   -- grows with every claim, never repeats
  released integer not null default 0,  -- attempts given back unharmed, which do not count
  worker text,
  expires_at timestamptz not null);
create index leases_age on private.leases (created_at);

-- when a user did what, for limits that no other table tells
create unlogged table private.recent_actions (
  user_id uuid not null references auth.users (id) on delete cascade,
  action text not null,
  happened_at timestamptz[] not null,
  primary key (user_id, action));

alter table public.profiles enable row level security;
alter table public.credit_ledger enable row level security;
alter table public.projects enable row level security;
alter table public.images enable row level security;
alter table public.segmentation_results enable row level security;
alter table private.config enable row level security;
alter table private.rate_limits enable row level security;
alter table private.leases enable row level security;
alter table private.recent_actions enable row level security;

-- older projects grant everything in public to the API roles
revoke all on public.profiles, public.credit_ledger, public.projects, public.images, public.segmentation_results
  from public, anon, authenticated, service_role;
revoke all on sequence public.credit_ledger_id_seq from public, anon, authenticated, service_role;
grant select on public.profiles, public.credit_ledger, public.projects, public.images, public.segmentation_results
  to authenticated, service_role;
grant insert (name), update (name), delete on public.projects to authenticated;

create policy own_rows on public.profiles for select to authenticated using ((select private.caller()) = user_id);
create policy own_rows on public.credit_ledger for select to authenticated using ((select private.caller()) = user_id);
create policy own_rows on public.images for select to authenticated using ((select private.caller()) = user_id);
create policy own_rows on public.segmentation_results for select to authenticated
  using ((select private.caller()) = user_id);
create policy own_rows on public.projects for all to authenticated
  using ((select private.caller()) = user_id) with check ((select private.caller()) = user_id);

-- functions are executable by everybody unless told otherwise
revoke all on all functions in schema private from public;
grant usage on schema private to authenticated;
-- policies, defaults and checks call them
grant execute on function private.caller(), private.now(), private.is_text(text, integer) to authenticated;

-- Realtime, where there is such a thing, tells owners of their tasks
do $$ begin
  if exists (select from pg_publication where pubname = 'supabase_realtime' and not puballtables) then
    alter publication supabase_realtime add table public.segmentation_results;
  end if;
end $$;
