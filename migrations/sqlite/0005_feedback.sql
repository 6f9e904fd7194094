-- What users said of anomalies. `evidence` is how strong the evidence was that it is about; `newest` is the time of
-- the series' newest reading when it was said: a replay says it again after that.
create table feedback (
    series_id integer not null references series (id),
    given_at integer not null,
    time integer not null,
    newest integer not null,
    anomaly integer not null check (anomaly in (0, 1)),
    evidence real not null,
    primary key (series_id, given_at)
) strict, without rowid;
