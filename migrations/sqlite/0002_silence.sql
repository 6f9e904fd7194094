-- A silence is a row of its own, beside an abnormal value of the same time, and has neither score nor
-- interval. SQLite changes neither keys nor constraints in place.
create table anomalies_2 (
    series_id integer not null references series (id),
    time integer not null,
    ended_at integer,
    kind text not null,
    value real not null,
    score real,
    q05 real,
    q95 real,
    primary key (series_id, time, kind)
) strict, without rowid;
insert into anomalies_2 (series_id, time, ended_at, kind, value, score, q05, q95)
    select series_id, time, ended_at, kind, value, score, q05, q95 from anomalies;
drop table anomalies;
alter table anomalies_2 rename to anomalies;
create index anomalies_open on anomalies (kind, series_id) where ended_at is null;
