-- The same tables and columns as in ../sqlite. Times are UTC.
--
-- `readings` and `forecasts` are partitioned by month; the daemon makes a partition before it
-- writes the first row of that month (everything before 1970 goes into one), and retention drops
-- whole partitions. They carry no foreign keys: the ids come from rows made in the same or an
-- earlier transaction, and a check per row would cost the hot path.

create table series (
    id bigint generated always as identity primary key,
    key text not null unique,
    stream text not null,
    labels jsonb not null,
    field text not null,
    created_at timestamptz not null default now()
);
create index series_by_stream on series (stream, id);

create table models (
    id bigint generated always as identity primary key,
    name text not null unique,
    stream text not null,
    version integer not null,
    cell text not null,
    created_at timestamptz not null,
    status text not null check (status in ('candidate', 'champion', 'retired')),
    metrics jsonb not null,
    weights bytea not null,
    unique (stream, version)
);
create unique index models_one_champion on models (stream) where status = 'champion';

create table readings (
    series_id bigint not null,
    time timestamptz not null,
    value double precision not null,
    late boolean not null default false,
    primary key (series_id, time)
) partition by range (time);

create table forecasts (
    series_id bigint not null,
    time timestamptz not null,
    step smallint not null,
    origin timestamptz not null,
    mean double precision not null,
    q05 double precision not null,
    q10 double precision not null,
    q25 double precision not null,
    q50 double precision not null,
    q75 double precision not null,
    q90 double precision not null,
    q95 double precision not null,
    model_id bigint,
    primary key (series_id, origin, step)
) partition by range (origin);

create table anomalies (
    series_id bigint not null references series (id),
    time timestamptz not null,
    ended_at timestamptz,
    kind text not null,
    value double precision not null,
    score double precision not null,
    q05 double precision not null,
    q95 double precision not null,
    primary key (series_id, time)
);

create table training_runs (
    id bigint generated always as identity primary key,
    stream text not null,
    started_at timestamptz not null,
    finished_at timestamptz,
    status text not null,
    error text,
    metrics jsonb,
    model_id bigint references models (id)
);

create table series_state (
    series_id bigint primary key,
    time timestamptz not null,
    model_id bigint,
    state bytea not null
);
-- States are floats, which do not compress, and are overwritten often.
alter table series_state alter column state set storage external;

-- Each forecast beside what came: the first reading within half an interval of the time forecast
-- for. `error` is actual minus mean; `inside` is whether it fell into the 90 % interval.
create view forecast_errors as
select f.series_id, s.key, f.time, f.step, f.origin, f.model_id, f.mean, f.q05, f.q50, f.q95,
       r.value as actual, r.value - f.mean as error, r.value between f.q05 and f.q95 as inside
from forecasts f
join series s on s.id = f.series_id
join readings r on r.series_id = f.series_id and r.time = (
    select min(n.time) from readings n
    where n.series_id = f.series_id
      and n.time >= f.time - (f.time - f.origin) / (2 * f.step)
      and n.time < f.time + (f.time - f.origin) / (2 * f.step)
);
