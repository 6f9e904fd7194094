-- The same tables and columns as in ../postgres. Times are INTEGER microseconds since
-- 1970-01-01T00:00:00Z (datetime(time / 1000000, 'unixepoch') shows one), labels and metrics are
-- JSON text, booleans are 0 and 1.
--
-- `readings` and `forecasts` are WITHOUT ROWID: one b-tree each, clustered by series, so that a
-- series' history is read in order without a sort. They carry no foreign keys: the ids come from
-- rows made in the same or an earlier transaction.

create table series (
    id integer primary key,
    key text not null unique,
    stream text not null,
    labels text not null,
    field text not null,
    created_at integer not null default (cast(unixepoch('subsec') * 1000000 as integer))
) strict;
create index series_by_stream on series (stream, id);

create table models (
    id integer primary key,
    name text not null unique,
    stream text not null,
    version integer not null,
    cell text not null,
    created_at integer not null,
    status text not null check (status in ('candidate', 'champion', 'retired')),
    metrics text not null,
    weights blob not null,
    unique (stream, version)
) strict;
create unique index models_one_champion on models (stream) where status = 'champion';

create table readings (
    series_id integer not null,
    time integer not null,
    value real not null,
    late integer not null default 0 check (late in (0, 1)),
    primary key (series_id, time)
) strict, without rowid;

create table forecasts (
    series_id integer not null,
    time integer not null,
    step integer not null,
    origin integer not null,
    mean real not null,
    q05 real not null,
    q10 real not null,
    q25 real not null,
    q50 real not null,
    q75 real not null,
    q90 real not null,
    q95 real not null,
    model_id integer,
    primary key (series_id, origin, step)
) strict, without rowid;

create table anomalies (
    series_id integer not null references series (id),
    time integer not null,
    ended_at integer,
    kind text not null,
    value real not null,
    score real not null,
    q05 real not null,
    q95 real not null,
    primary key (series_id, time)
) strict, without rowid;

create table training_runs (
    id integer primary key,
    stream text not null,
    started_at integer not null,
    finished_at integer,
    status text not null,
    error text,
    metrics text,
    model_id integer references models (id)
) strict;

create table series_state (
    series_id integer primary key,
    time integer not null,
    model_id integer,
    state blob not null
) strict;

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
