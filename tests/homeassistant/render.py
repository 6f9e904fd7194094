"""Renders templates as Home Assistant does: a list of [template, payload] on stdin, the texts on stdout, both JSON."""

import json
import sys

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
render = lambda template, payload: environment.from_string(template).render(value=payload, value_json=json.loads(payload))
json.dump([render(template, payload) for template, payload in json.load(sys.stdin)], sys.stdout)
