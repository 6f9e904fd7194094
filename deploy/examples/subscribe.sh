#!/bin/sh
# Prints what is forecast, and anomalies as they begin and end, a line each: time, series, what. Values are rounded to
# what the width of their 90 % interval tells apart.
#   subscribe.sh [HOST [PORT]]    needs mosquitto_sub (package mosquitto-clients) and jq
# A login goes into ~/.config/mosquitto_sub, as mosquitto_sub(1) says.
set -eu

mosquitto_sub -h "${1:-127.0.0.1}" -p "${2:-1883}" -t 'vidente/forecast/#' -t 'vidente/anomaly/#' |
    jq --unbuffered -r '
        def digits: (.q95 - .q05) as $width
            | if $width > 0 then [[1 - ($width | log10 | floor), 0] | max, 15] | min else 6 end;
        def rounded($digits): pow(10; $digits) as $unit | . * $unit + 0.5 | floor / $unit;
        def band: digits as $digits | "90 %: \(.q05 | rounded($digits)) to \(.q95 | rounded($digits))";
        if .kind == "value" then
            (.interval | digits) as $digits
                | [.reading.time, .series, "value \(.state)", "since \(.since)",
                    "\(.reading.value), expected \(.expected | rounded($digits))", (.interval | band),
                    "score \(.score | rounded(2))"]
        elif .kind then
            [.reading.time, .series, "\(.kind) \(.state)", "since \(.since)"]
                + if .every then ["usually every \(.every | rounded(1)) s"] else [] end
        elif .steps == [] then
            [.origin, .series, "nothing is forecast yet"]
        else
            .steps[0] as $next | ($next | digits) as $digits
                | [.origin, .series, "\($next.q50 | rounded($digits)) at \($next.time)", ($next | band)]
        end | join("\t")'
