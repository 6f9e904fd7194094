-- The role that Grafana reads with. Run as the owner of Vidente's database, or a superuser, once the
-- daemon has made its tables; give it a password with: \password vidente_grafana
create role vidente_grafana login;
alter role vidente_grafana set default_transaction_read_only = on;
alter role vidente_grafana set statement_timeout = '30s';
grant usage on schema public to vidente_grafana;
-- Partitions are read through their parents. States and weights are not for Grafana.
grant select on series, readings, forecasts, anomalies, feedback, training_runs, promotions, forecast_errors
    to vidente_grafana;
grant select (id, name, stream, version, cell, created_at, status, reason, origin, window_start, window_end, metrics)
    on models to vidente_grafana;
