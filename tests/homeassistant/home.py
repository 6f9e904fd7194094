"""A Home Assistant, a broker and a daemon, each a real process, and what is asked of them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

WAIT = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, ask):
    """Asks until the answer is true, and returns it; an exception of the last try says why it never was."""
    deadline, last = time.monotonic() + WAIT, None
    while time.monotonic() < deadline:
        try:
            if answer := ask():
                return answer
        except (AssertionError, OSError, LookupError) as error:
            last = error
        time.sleep(0.2)
    raise AssertionError(f"never: {what}") from last


class Process:
    """A process that is started anew with the same arguments; its output goes to a file."""

    def __init__(self, log, *arguments, **more):
        self.log, self.arguments, self.more, self.child = log, arguments, more, None

    def start(self):
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(
                self.arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.more
            )

    def send(self, number):
        self.child.send_signal(number)

    def stop(self, number=signal.SIGTERM):
        """Its exit status; None if it does not run."""
        if self.child is None:
            return None
        child, self.child = self.child, None
        child.send_signal(number)
        try:
            return child.wait(WAIT)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            raise


class Broker(Process):
    """mosquitto."""

    def __init__(self, folder):
        self.port = free_port()
        config = folder / "mosquitto.conf"
        config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        super().__init__(folder / "mosquitto.log", "mosquitto", "-c", str(config))

    def publish(self, topic, payloads, retain=False):
        """Publishes messages one after the other."""
        lines = "".join(payload + "\n" for payload in payloads)
        host = ["-h", "127.0.0.1", "-p", str(self.port), "-q", "1", "-t", topic]
        command = ["mosquitto_pub", *host, *(["-r"] if retain else []), *(["-l"] if lines else ["-n"])]
        subprocess.run(command, input=lines, text=True, check=True, timeout=WAIT)

    def kept(self, pattern):
        """What it keeps, by topic."""
        host = ["-h", "127.0.0.1", "-p", str(self.port), "-W", "1", "-F", "%j", "-t", pattern]
        lines = subprocess.run(["mosquitto_sub", *host, "--retained-only"], capture_output=True, text=True)
        messages = map(json.loads, lines.stdout.splitlines())
        return {message["topic"]: message["payload"] for message in messages}


class Vidente(Process):
    """The daemon."""

    def __init__(self, folder, binary, broker):
        self.folder, self.broker, self.port = folder, broker, free_port()
        self.config = folder / "vidente.toml"
        super().__init__(folder / "vidente.log", binary, "run", "--config", str(self.config))

    def configure(self, rest):
        self.config.write_text(
            f'[mqtt]\nurl = "mqtt://127.0.0.1:{self.broker.port}"\n'
            f'[store]\nurl = "sqlite://{self.folder}/vidente.db"\n'
            f'[http]\nlisten = "127.0.0.1:{self.port}"\n[spool]\ndir = "{self.folder}/spool"\n'
            f"[training]\nevery = \"off\"\n{rest}"
        )

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=WAIT) as answer:
            return answer.read().decode()

    def start(self):
        super().start()
        wait_until("the daemon is ready", lambda: self.get("/ready"))

    def series(self):
        """Its newest readings, by key."""
        return {series["key"]: series for series in json.loads(self.get("/api/v1/series"))}


class Home(Process):
    """Home Assistant, in a Debian of its own."""

    def __init__(self, root, folder, name):
        self.port, self.token = free_port(), None
        self.config = folder / name
        self.config.mkdir()
        (self.config / "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\nlogger:\n  default: warning\n"
        )
        inside = "/" + str(self.config.relative_to(root))
        hass = ["chroot", str(root), "/opt/hass/bin/hass", "--skip-pip", "--config", inside]
        environment = {"PATH": "/opt/hass/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "LANG": "C.UTF-8"}
        super().__init__(folder / f"{name}.log", *hass, env=environment)

    def call(self, path, body=None, form=None):
        """Asks its HTTP API, which answers in JSON or text."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}")
        if form is not None:
            request.data = urllib.parse.urlencode(form).encode()
        elif body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            with urllib.request.urlopen(request, timeout=WAIT) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.code} {error.read().decode()}") from error
        try:
            return json.loads(text)
        except ValueError:
            return text

    def start(self):
        super().start()
        if self.token:
            wait_until("Home Assistant runs", lambda: self.call("/api/config")["state"] == "RUNNING")

    def begin(self, broker):
        """Its first start, as its owner would do it: makes a user and adds the MQTT integration."""
        self.start()
        client = f"http://127.0.0.1:{self.port}/"
        owner = {"name": "o", "username": "o", "password": "o", "language": "en", "client_id": client}
        code = wait_until("onboarding", lambda: self.call("/api/onboarding/users", owner))["auth_code"]
        form = {"grant_type": "authorization_code", "code": code, "client_id": client}
        self.token = self.call("/auth/token", form=form)["access_token"]
        flow = self.call("/api/config/config_entries/flow", {"handler": "mqtt"})
        entered = {"broker": "127.0.0.1", "port": broker.port}
        flow = self.call(f"/api/config/config_entries/flow/{flow['flow_id']}", entered)
        assert flow["type"] == "create_entry", flow

    def entities(self):
        """The entities of MQTT by device and name, each with its state, attributes and what is known of its device."""
        device = lambda name: f"device_attr(device_id(e), '{name}')"
        known = (
            f"'device': {device('name')}, 'model': {device('model')}, 'id': device_id(e), "
            f"'via': {device('via_device_id')}, 'name': state_attr(e, 'friendly_name')"
        )
        template = (
            "{% set ns = namespace(all={}) %}{% for e in integration_entities('mqtt') %}"
            "{% set ns.all = dict(ns.all, **{e: {" + known + "}}) %}{% endfor %}{{ ns.all | to_json }}"
        )
        known = self.call("/api/template", {"template": template})
        states = {state["entity_id"]: state for state in self.call("/api/states")}
        entities = {}
        for entity, about in known.items():
            if entity in states:
                name = (about["name"] or "").removeprefix(about["device"]).strip()
                entities[about["device"], name] = {**about, **states[entity]}
        return entities

    def complaints(self):
        """Lines of its log about MQTT or what is announced."""
        lines = Path(self.log).read_text(errors="replace").splitlines()
        return [line for line in lines if "mqtt" in line.lower() or "vidente" in line.lower()]


class Rig:
    """A broker, a daemon and a Home Assistant, all of which end with it."""

    def __init__(self, root, binary):
        self.root = root
        # Below the root, so that Home Assistant sees its own folder.
        (root / "work").mkdir(exist_ok=True)
        self.folder = Path(tempfile.mkdtemp(dir=root / "work"))
        os.chmod(self.folder, 0o755)
        self.broker = Broker(self.folder)
        self.vidente = Vidente(self.folder, binary, self.broker)
        self.homes = []

    def home(self):
        self.homes.append(Home(self.root, self.folder, f"home{len(self.homes)}"))
        return self.homes[-1]

    def __enter__(self):
        self.broker.start()
        connect = lambda: socket.create_connection(("127.0.0.1", self.broker.port))
        wait_until("the broker listens", lambda: connect().close() is None)
        return self

    def __exit__(self, kind, _error, _trace):
        for process in [*self.homes, self.vidente, self.broker]:
            if kind and Path(process.log).exists():
                lines = Path(process.log).read_text(errors="replace").splitlines()
                print(f"--- {process.log}", *lines[-25:], sep="\n")
            process.stop()
        shutil.rmtree(self.folder)
