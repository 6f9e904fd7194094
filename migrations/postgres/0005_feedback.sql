-- What users said of anomalies. `evidence` is how strong the evidence was that it is about; `newest` is the time of
-- the series' newest reading when it was said: a replay says it again after that.
create table feedback (
    series_id bigint not null references series (id),
    given_at timestamptz not null,
    time timestamptz not null,
    newest timestamptz not null,
    anomaly boolean not null,
    evidence double precision not null,
    primary key (series_id, given_at)
);
