// What the sensors of the page's tests publish.

export const SITES = 24, DEVICES = 10, HISTORY = 150;

/** Names that must never be taken for markup, for a path, or for something else than they are. */
export const HOSTILE = [
  "<img src=x onerror=\"globalThis.hacked=1\">",
  "\"><script>globalThis.hacked=1</script>",
  "javascript:globalThis.hacked=1",
  "a&b=c?d;e",
  "50% of it %3Cb%3E",
  "..",
  "наружный датчик 温度 🌡",
  "\u202Egnirts desrever",
  "{{constructor.constructor('globalThis.hacked=1')()}}",
  "x".repeat(240),
  "__proto__",
];

const MINUTE = 60_000;

/** A day with some noise, the same at each run. */
function temperature(series, minute) {
  const noise = Math.sin(12.9898 * (series + 1) * (minute + 1)) * 43758.5453;
  return 20 + (series % 7) + 3 * Math.sin((2 * Math.PI * minute) / 90 + series) + 0.4 * (noise - Math.floor(noise));
}

const reading = (at, value) =>
  JSON.stringify({ ts: new Date(at).toISOString(), temperature: Number(value.toFixed(3)) });
export const topic = (site, device) => `sensors/site${site}/dev${device}/climate`;
export const key = (site, device) => `climate/site${site}/dev${device}/temperature`;

export class Sensors {
  constructor(client) {
    this.client = client;
    this.minute = HISTORY;
    this.begin = Math.floor(Date.now() / MINUTE) * MINUTE - HISTORY * MINUTE;
  }

  send(topic, payload) {
    return this.client.publishAsync(topic, payload, { qos: 1 });
  }

  /** The past of all; names in `hostile` are devices of a site of their own. Gives the number of readings. */
  async past() {
    let sent = [];
    for (let minute = 0; minute < HISTORY; minute += 1) {
      for (let series = 0; series < SITES * DEVICES; series += 1) {
        const at = topic(series % SITES, Math.floor(series / SITES));
        sent.push(this.send(at, reading(this.begin + minute * MINUTE, temperature(series, minute))));
      }
      if (minute < 40) {
        for (const name of HOSTILE) {
          const to = `sensors/hostile/${name.replaceAll("/", "∕")}/climate`;
          sent.push(this.send(to, reading(this.begin + minute * MINUTE, minute % 5)));
        }
      }
      await Promise.all(sent);
      sent = [];
    }
    return HISTORY * SITES * DEVICES + 40 * HOSTILE.length;
  }

  /** The next reading of one. */
  next(site, device, value) {
    const at = this.begin + this.minute * MINUTE;
    this.minute += 1;
    return this.send(topic(site, device), reading(at, value));
  }
}
