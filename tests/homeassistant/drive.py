"""What a real Home Assistant makes of Vidente's announcements: the entities, their states, and what becomes of them.

Usage: drive.py ROOT VIDENTE    ROOT is the Debian that Home Assistant is installed in
"""

import json
import signal
import sys
import time
from pathlib import Path

from home import Rig, wait_until

LEVELS = ["mean", "q05", "q10", "q25", "q50", "q75", "q90", "q95"]
# Names as they occur, and some that a template, a topic or an id might stumble on.
ROOMS = ["Küche", "hall 1", "a_b", "a b", "a-b", "50%", ".", "🌡", '"quoted\\', "{{ 7 * 7 }}", "{% raw %}", "x" * 300]
HOUSE = """
[[stream]]
name = "house"
topic = "house/{room}/{unit}"
time = "ts"
horizon = 3
"""
SHED = """
[[stream]]
name = "shed"
topic = "shed/{device}"
time = "ts"
"""
REST = """
[homeassistant]
discovery = true
[anomaly]
warm_up = 50
alarms_per_week = 1000.0
silence_after = "off"
"""
SILENCE = REST.replace('"off"', "3")
# Long enough for all the readings that follow, a second apart.
BEGIN = int(time.time()) - 2000


def readings(begin, count, wild=None):
    """Messages with two fields, whose names are no simple ones."""
    for second in range(begin, begin + count):
        value = 20 + second % 3 / 10 if wild is None else wild
        yield json.dumps({"temp/Ø": value, "load %": 50 + second % 5, "ts": second})


def key(room, field="temp%2FØ"):
    return f"house/{room.replace('%', '%25')}/°C/{field}"


def agree(rig, home, without=()):
    """Waits until Home Assistant shows of every series what was published last; returns its entities."""

    def ask():
        entities, series = home.entities(), rig.vidente.series()
        devices = {device for device, _ in entities}
        expected = {"Vidente", *(key for key in series if not key.startswith(tuple(without)))}
        assert devices == expected, (devices - expected, expected - devices)
        kept, hub = rig.broker.kept("vidente/forecast/#"), entities["Vidente", "Status"]["id"]
        for name in expected - {"Vidente"}:
            forecast, anomaly = entities[name, "Forecast"], entities[name, "Anomaly"]
            assert forecast["via"] == anomaly["via"] == hub, forecast
            assert forecast["id"] == anomaly["id"] != hub, forecast
            said, shown = json.loads(kept[f"vidente/forecast/{name}"]), forecast["attributes"]
            assert (shown["series"], shown["origin"]) == (name, said["origin"]), (shown, said)
            assert anomaly["attributes"]["device_class"] == "problem", anomaly
            if not said["steps"]:
                assert (forecast["state"], shown["steps"]) == ("unknown", []), forecast
                continue
            step = said["steps"][0]
            assert float(forecast["state"]) == step["q50"], (forecast, step)
            assert {name: shown[name] for name in ["time", *LEVELS]} == step, (shown, step)
            assert shown["steps"] == said["steps"] and shown["model"] == said["model"], (shown, said)
            assert (shown["reading"], shown["score"]) == (said["reading"]["value"], said["reading"]["score"]), shown
        assert entities["Vidente", "Status"]["state"] == "on", entities
        assert entities["Vidente", "Status"]["attributes"]["device_class"] == "connectivity", entities
        return entities

    return wait_until("Home Assistant shows what was published", ask)


def shows(home, what, ask):
    """Waits until something is true of the entities."""
    return wait_until(f"Home Assistant shows {what}", lambda: ask(home.entities()))


def anomaly(home, state, **attributes):
    """Waits for the state of the kitchen's anomaly, and which of its times are set."""

    def ask(entities):
        shown = entities[key("Küche"), "Anomaly"]
        times = {name: shown["attributes"][name] is not None for name in attributes}
        return shown["state"] == state and times == attributes and shown

    return shows(home, f"an anomaly {state} {attributes}", ask)


def what_is_kept_is_found(rig, home):
    """Series that were announced before Home Assistant was there, and one of which nothing is forecast yet."""
    for room in ROOMS:
        rig.broker.publish(f"house/{room}/°C", readings(BEGIN, 3))
    rig.broker.publish("house/new/°C", readings(BEGIN, 1))
    rig.broker.publish("house/attic/°C", readings(BEGIN - 1_000_000, 3))
    rig.broker.publish("shed/mower", readings(BEGIN, 3))
    announced = lambda: len(rig.broker.kept("homeassistant/device/+/config")) == 2 * (len(ROOMS) + 3) + 1
    wait_until("all is announced", announced)
    # The order is the broker's: the daemon's own device, to which the others belong, may come last.
    topics = rig.broker.kept("homeassistant/device/+/config")
    [hub] = [topic for topic, payload in topics.items() if json.loads(payload)["device"]["name"] == "Vidente"]
    rig.broker.publish(hub, [], retain=True)
    home.begin(rig.broker)
    shows(home, "all others", lambda entities: len(entities) == 2 * (len(topics) - 1))
    rig.broker.publish(hub, [topics[hub]], retain=True)
    entities = agree(rig, home)
    shown = entities[key("Küche"), "Forecast"]
    assert shown["attributes"]["unit_of_measurement"] == "°C", shown
    assert shown["attributes"]["state_class"] == "measurement", shown
    assert len(shown["attributes"]["steps"]) == 3, shown
    assert shown["model"] == "Series of house", shown
    assert all(entities[key(room), "Anomaly"]["state"] == "off" for room in ROOMS), entities
    assert entities[key("new"), "Forecast"]["state"] == "unknown", entities
    assert "unit_of_measurement" not in entities["shed/mower/load %25", "Forecast"]["attributes"], entities
    return f"{len(entities)} entities"


def what_comes_is_shown(rig, home):
    """A series that is new, and what is forecast anew."""
    rig.broker.publish("house/garage/°C", readings(BEGIN, 2))
    rig.broker.publish("house/Küche/°C", readings(BEGIN + 3, 100))
    agree(rig, home)
    return "a new series, and forecasts as they come"


def an_anomaly_is_a_problem_while_it_lasts(rig, home):
    anomaly(home, "off", value_since=False, silence_since=False)
    rig.broker.publish("house/Küche/°C", readings(BEGIN + 103, 1, wild=900))
    shown = anomaly(home, "on", value_since=True, silence_since=False)
    rig.broker.publish("house/Küche/°C", readings(BEGIN + 104, 20))
    anomaly(home, "off", value_since=False, silence_since=False)
    rig.vidente.configure(HOUSE + SHED + SILENCE)
    rig.vidente.send(signal.SIGHUP)
    anomaly(home, "on", value_since=False, silence_since=True)
    rig.vidente.configure(HOUSE + SHED + REST)
    rig.vidente.send(signal.SIGHUP)
    rig.broker.publish("house/Küche/°C", readings(BEGIN + 124, 2))
    anomaly(home, "off", value_since=False, silence_since=False)
    return f"an anomaly since {shown['attributes']['value_since']}, and a silence"


def all_is_unavailable_without_the_daemon(rig, home):
    for number, status in [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)]:
        assert rig.vidente.stop(number) == status
        states = lambda entities: {(name, entity["state"]) for (_, name), entity in entities.items()}
        gone = {("Status", "off"), ("Forecast", "unavailable"), ("Anomaly", "unavailable")}
        shows(home, "that the daemon is gone", lambda entities: states(entities) == gone)
        rig.vidente.start()
        agree(rig, home)
    return "a daemon killed and one stopped make all unavailable until it is back"


def a_start_of_home_assistant_finds_everything(rig, home):
    """What happened meanwhile is right, and what the broker lost is announced again upon its birth."""
    mower = rig.vidente.series().keys() - {"shed/mower/load %25"}
    [topic] = [t for t, p in rig.broker.kept("homeassistant/device/+/config").items() if '"shed/mower/load %25"' in p]
    rig.broker.publish(topic, [], retain=True)
    shows(home, "one device less", lambda entities: {device for device, _ in entities} == {"Vidente", *mower})
    assert home.stop() == 0
    rig.broker.publish("house/hall 1/°C", readings(BEGIN + 3, 5))
    home.start()
    agree(rig, home)
    assert topic in rig.broker.kept("homeassistant/device/+/config")
    return "after its restart Home Assistant shows what came meanwhile, and what was lost"


def what_is_no_more_vanishes(rig, home):
    rig.vidente.configure(HOUSE + REST)
    rig.vidente.send(signal.SIGHUP)
    agree(rig, home, without=["shed/"])
    rig.vidente.stop()
    rig.vidente.configure(HOUSE + REST.replace("true", 'true\nexpire_after = "1d"'))
    rig.vidente.start()
    agree(rig, home, without=["shed/", "house/attic/"])
    rig.broker.publish("house/attic/°C", readings(BEGIN, 2))
    agree(rig, home, without=["shed/"])
    rig.vidente.configure(HOUSE + REST.replace("true", "false"))
    rig.vidente.send(signal.SIGHUP)
    shows(home, "nothing", lambda entities: not entities)
    return "a stream taken out and a series that has expired vanish, and so does all once discovery is switched off"


def main():
    with Rig(Path(sys.argv[1]).resolve(), sys.argv[2]) as rig:
        rig.vidente.configure(HOUSE + SHED + REST)
        rig.vidente.start()
        home = rig.home()
        parts = [
            what_is_kept_is_found,
            what_comes_is_shown,
            an_anomaly_is_a_problem_while_it_lasts,
            all_is_unavailable_without_the_daemon,
            a_start_of_home_assistant_finds_everything,
            what_is_no_more_vanishes,
        ]
        for part in parts:
            print(f"tests/homeassistant/run: {part(rig, home)}", flush=True)
        version = home.call("/api/config")["version"]
        assert not home.complaints(), "\n".join(home.complaints())
        # It would have said so.
        rig.broker.publish("homeassistant/device/wrong/config", ['{"device":{"name":"wrong"}}'])
        wait_until("Home Assistant complains", home.complaints)
    print(f"tests/homeassistant/run: {len(parts)} passed, 0 failed, with Home Assistant {version}")


if __name__ == "__main__":
    main()
