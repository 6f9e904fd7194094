#!/usr/bin/env python3
"""Prints what is forecast, and anomalies as they begin and end, a line each: time, series, what.

Usage: subscribe.py [HOST [PORT]]    needs paho-mqtt 2 (pip install paho-mqtt; Debian: python3-paho-mqtt)
Name and password, if the broker asks for them, are read from VIDENTE_MQTT_USERNAME and VIDENTE_MQTT_PASSWORD.
"""

import json
import os
import sys

import paho.mqtt.client as mqtt


def describe(message):
    """The line of a message of vidente/forecast/# or vidente/anomaly/#."""
    if "kind" in message:
        what = [f"{message['kind']} {message['state']}", f"since {message['since']}"]
        return [message["reading"]["time"], message["series"], *what]
    if not message["steps"]:
        return [message["origin"], message["series"], "nothing is forecast yet"]
    step = message["steps"][0]
    what = [f"{step['q50']} at {step['time']}", f"90 %: {step['q05']} to {step['q95']}"]
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
