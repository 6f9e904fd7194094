// The world of the page's tests: a real broker, a real daemon with SQLite, sensors, and a real browser.

import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import mqtt from "mqtt";
import { chromium } from "playwright-core";

const WAIT = 60_000;

export async function until(what, ask, wait = WAIT) {
  const end = Date.now() + wait;
  for (;;) {
    const found = await ask();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited in vain for ${what}`);
    await sleep(50);
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  return port;
}

/** A folder, a broker, and whatever is started in them; `close` ends it all. */
export class Rig {
  dir = mkdtempSync(join(tmpdir(), "vidente-browser-"));
  #ends = [];

  static async start() {
    const rig = new Rig();
    rig.brokerPort = await freePort();
    const config = join(rig.dir, "mosquitto.conf");
    writeFileSync(config, `listener ${rig.brokerPort} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n`);
    rig.run("mosquitto", process.env.MOSQUITTO ?? "mosquitto", ["-c", config]);
    rig.sensors = await mqtt.connectAsync(`mqtt://127.0.0.1:${rig.brokerPort}`);
    rig.#ends.push(() => rig.sensors.endAsync(true));
    return rig;
  }

  run(name, program, args) {
    const log = openSync(join(this.dir, `${name}.log`), "a");
    const child = spawn(program, args, { stdio: ["ignore", log, log] });
    const ended = new Promise((done) => child.on("exit", done));
    child.on("error", (error) => { throw error; });
    this.#ends.push(async () => {
      child.kill("SIGTERM");
      await Promise.race([ended, sleep(10_000).then(() => child.kill("SIGKILL"))]);
    });
    return { child, ended, log: () => readFileSync(join(this.dir, `${name}.log`), "utf8") };
  }

  /** A daemon of its own on the broker; gives its URL once it is ready. */
  async daemon(name, extra = "") {
    const port = await freePort();
    const dir = join(this.dir, name);
    mkdirSync(dir);
    const config = join(dir, "vidente.toml");
    writeFileSync(config, `
[mqtt]
url = "mqtt://127.0.0.1:${this.brokerPort}"
client_id = "${name}"
[store]
url = "sqlite://${dir}/vidente.db"
[spool]
dir = "${dir}/spool"
[training]
every = "off"
max_readings = 5000
[model]
hidden = 8
[anomaly]
alarms_per_week = 60
warm_up = 30
min_deviation = 50.0
[[stream]]
name = "climate"
topic = "sensors/{site}/{device}/climate"
fields = ["temperature"]
time = "ts"
interval = "60s"
horizon = 12
anomaly = { silence_after = "off" }
[[stream]]
name = "pulse"
topic = "pulse/{device...}"
payload = "number"
interval = "1s"
[http]
listen = "127.0.0.1:${port}"
${extra}`);
    const process = this.run(name, vidente(), ["run", "--config", config]);
    const url = `http://127.0.0.1:${port}/`;
    await until(`${name} to be ready`, async () => {
      if (process.child.exitCode !== null) throw new Error(process.log());
      return (await fetch(`${url}ready`).catch(() => null))?.status === 200;
    });
    return { url, config, process };
  }

  /** A command that must succeed. */
  async vidente(...args) {
    const { ended, log } = this.run(`vidente-${args[0]}`, vidente(), args);
    const code = await ended;
    if (code !== 0) throw new Error(`vidente ${args.join(" ")}: ${code}\n${log()}`);
  }

  async browser() {
    const browser = await chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
      ],
    });
    this.#ends.push(() => browser.close());
    return browser;
  }

  async close() {
    for (const end of this.#ends.reverse()) await end();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function vidente() {
  const program = process.env.VIDENTE;
  if (!program) throw new Error("VIDENTE must name the program; run tests/browser/run");
  return program;
}

/** A page, and everything it complains about. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1280, height: 900 }, locale: "en-GB", timezoneId: "Etc/GMT-1", ...options,
  });
  const page = await context.newPage();
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(`error: ${error}`));
  page.on("console", (message) => {
    if (!["error", "warning"].includes(message.type())) return;
    complaints.push(`${message.type()}: ${message.text()} ${message.location().url}`);
  });
  page.on("dialog", (dialog) => {
    complaints.push(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("request", (request) => {
    const asked = request.url();
    if (!asked.startsWith(url) && !/^(data|blob):/.test(asked)) complaints.push(`asks elsewhere: ${asked}`);
  });
  await page.addInitScript(() => {
    globalThis.violations = [];
    document.addEventListener("securitypolicyviolation", (e) => {
      globalThis.violations.push(`${e.violatedDirective} ${e.blockedURI}`);
    });
  });
  if (process.env.PAGE) await serveFrom(process.env.PAGE, context, url);
  await page.goto(url);
  return { page, context, complaints };
}

/** While the page is worked on: its files from a folder, in the place of those in the program. */
async function serveFrom(folder, context, url) {
  await context.route((asked) => asked.href === url || asked.href.startsWith(`${url}assets/`), async (route) => {
    const name = new URL(route.request().url()).pathname.replace(/^\/(assets\/)?/, "") || "index.html";
    const path = join(folder, name);
    if (!existsSync(path)) return route.continue();
    const { "content-security-policy": policy } = (await route.fetch({ url })).headers();
    const headers = { "content-security-policy": policy, "content-type": KINDS[extname(name)] };
    return route.fulfill({ path, headers });
  });
}

const KINDS = {
  ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml",
};
