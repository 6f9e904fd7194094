#!/bin/sh
# Prints what is forecast, and anomalies as they begin and end, a line each: time, series, what.
#   subscribe.sh [HOST [PORT]]    needs mosquitto_sub (package mosquitto-clients) and jq
# A login goes into ~/.config/mosquitto_sub, as mosquitto_sub(1) says.
set -eu

mosquitto_sub -h "${1:-127.0.0.1}" -p "${2:-1883}" -t 'vidente/forecast/#' -t 'vidente/anomaly/#' |
    jq --unbuffered -r '
        if .kind then
            [.reading.time, .series, "\(.kind) \(.state)", "since \(.since)"]
        elif .steps == [] then
            [.origin, .series, "nothing is forecast yet"]
        else
            .steps[0] as $next | [.origin, .series, "\($next.q50) at \($next.time)", "90 %: \($next.q05) to \($next.q95)"]
        end | join("\t")'
