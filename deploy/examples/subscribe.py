#!/usr/bin/env python3
"""Prints what is forecast, and anomalies as they begin and end, a line each: time, series, what. Values are rounded to
what the width of their 90 % interval tells apart.

Usage: subscribe.py [HOST [PORT]]    needs paho-mqtt 2 (pip install paho-mqtt; Debian: python3-paho-mqtt)
Name and password, if the broker asks for them, are read from VIDENTE_MQTT_USERNAME and VIDENTE_MQTT_PASSWORD.
"""

import json
import math
import os
import sys

import paho.mqtt.client as mqtt


def digits(interval):
    """Decimals that matter: so many that the interval's width has two figures."""
    width = interval["q95"] - interval["q05"]
    return min(max(1 - math.floor(math.log10(width)), 0), 15) if width > 0 else 6


def plain(value):
    return str(value).removesuffix(".0")


def rounded(value, decimals):
    unit = 10.0**decimals
    return plain(math.floor(value * unit + 0.5) / unit)


def band(interval):
    decimals = digits(interval)
    return f"90 %: {rounded(interval['q05'], decimals)} to {rounded(interval['q95'], decimals)}"


def describe(message):
    """The line of a message of vidente/forecast/# or vidente/anomaly/#."""
    if "kind" in message:
        what = [f"{message['kind']} {message['state']}", f"since {message['since']}"]
        if message["kind"] == "value":
            interval, value = message["interval"], plain(message["reading"]["value"])
            what.append(f"{value}, expected {rounded(message['expected'], digits(interval))}")
            what += [band(interval), f"score {rounded(message['score'], 2)}"]
        elif message["every"]:
            what.append(f"usually every {rounded(message['every'], 1)} s")
        return [message["reading"]["time"], message["series"], *what]
    if not message["steps"]:
        return [message["origin"], message["series"], "nothing is forecast yet"]
    step = message["steps"][0]
    what = [f"{rounded(step['q50'], digits(step))} at {step['time']}", band(step)]
    return [message["origin"], message["series"], *what]


def on_connect(client, _userdata, _flags, reason, _properties):
    # Here, so that it is done again whenever the connection comes back.
    if reason.is_failure:
        print(f"the broker refused: {reason}", file=sys.stderr)
    else:
        client.subscribe([("vidente/forecast/#", 0), ("vidente/anomaly/#", 0)])


def on_message(_client, _userdata, message):
    print(*describe(json.loads(message.payload)), sep="\t", flush=True)


def main():
    host = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1"
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 1883
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    if "VIDENTE_MQTT_USERNAME" in os.environ:
        client.username_pw_set(os.environ["VIDENTE_MQTT_USERNAME"], os.environ.get("VIDENTE_MQTT_PASSWORD"))
    client.on_connect = on_connect
    client.on_message = on_message
    client.connect(host, port)
    try:
        client.loop_forever()
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
