// The way to the API: the token, requests, and events that keep coming.

const TOKEN = "vidente-token";
/** Nothing for so long means that the connection is gone: there is a comment every 15 s. */
const SILENCE = 40_000;
const RETRY = [500, 1000, 2000, 4000, 8000];

// The token stays in this tab: no other page can read it or have it sent.
let token = "";
try { token = sessionStorage.getItem(TOKEN) ?? ""; } catch { /* then it is asked for again */ }

export const hasToken = () => token !== "";

export function keepToken(text) {
  token = text;
  try { sessionStorage.setItem(TOKEN, token); } catch { /* likewise */ }
}

function headersFor(accept) {
  const headers = { accept };
  if (token) headers.authorization = `Bearer ${token}`;
  return headers;
}

async function failure(response) {
  const body = await response.json().catch(() => null);
  return Object.assign(new Error(body?.error ?? `HTTP ${response.status}`), { status: response.status, body });
}

export async function api(path, signal) {
  const limit = AbortSignal.timeout(20_000);
  const response = await fetch(path, {
    signal: signal ? AbortSignal.any([signal, limit]) : limit, headers: headersFor("application/json"),
  });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// A path that reads well in a proxy's log, unless a browser would take a level for "up".
export function pathOf(key) {
  const levels = key.split("/");
  const up = levels.some((l) => l === "." || l === "..");
  return up ? encodeURIComponent(key) : levels.map(encodeURIComponent).join("/");
}

/** Splits what comes into events; the bytes may be cut anywhere. */
export function parser(each) {
  let rest = "", name = "message", data = [];
  return (text) => {
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (data.length) each(name, data.join("\n"));
        [name, data] = ["message", []];
      } else if (line.startsWith("event:")) {
        name = line.slice(6).trimStart();
      } else if (line.startsWith("data:")) {
        data.push(line.slice(5).replace(/^ /, ""));
      }
    }
  };
}

async function read(path, signal, hear) {
  const response = await fetch(path, { signal, headers: headersFor("text/event-stream") });
  if (!response.ok) throw await failure(response);
  hear.open?.();
  const parse = parser((name, data) => hear[name]?.(JSON.parse(data)));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error("nothing was heard")), SILENCE);
    });
    try {
      const { done, value } = await Promise.race([reader.read(), late]);
      if (done) return;
      parse(value);
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Listens until stopped, and connects anew when the connection is lost. `hear` has a function for each
 * kind of event, and `open` and `lost`. Returns how to stop.
 */
export function listen(path, hear) {
  let stopped = false, tries = 0, timer, connection = new AbortController();
  const connect = async () => {
    let error = new Error("the connection has ended");
    connection = new AbortController();
    try {
      await read(path, connection.signal, { ...hear, open() { tries = 0; hear.open?.(); } });
    } catch (e) {
      error = e;
    }
    connection.abort();
    if (stopped) return;
    hear.lost?.(error);
    // Those who may not hear it are not let in by asking again.
    if (error.status === 401) return;
    timer = setTimeout(connect, RETRY[Math.min(tries, RETRY.length - 1)]);
    tries += 1;
  };
  connect();
  return () => {
    stopped = true;
    clearTimeout(timer);
    connection.abort();
  };
}
