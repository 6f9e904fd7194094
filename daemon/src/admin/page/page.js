// The live page: polls the API, keeps a row for each series and draws the chosen one.
// Whatever comes from the API is written as text, never as markup.

import { config, figure, library } from "./chart.js";

const POLL = 1000;
const MOST_ROWS = 400;
const SPARK_POINTS = 80;
const $ = (id) => document.getElementById(id);

let all = [];
let chosen = "";
let detail = null;
let detailWanted = 0;
let broken = "";
const rows = new Map();

// Small helpers

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

async function api(path) {
  const headers = { accept: "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const response = await fetch(path, { signal: AbortSignal.timeout(20000), headers });
  const body = await response.json().catch(() => null);
  if (!response.ok) throw Object.assign(new Error(body?.error ?? `HTTP ${response.status}`), { status: response.status, body });
  return body;
}

// The token stays in this tab: no other page can read it or have it sent.

const TOKEN = "vidente-token";
let token = "";
try { token = sessionStorage.getItem(TOKEN) ?? ""; } catch { /* then it is asked for again */ }

function keep(text) {
  token = text;
  try { sessionStorage.setItem(TOKEN, token); } catch { /* likewise */ }
}

function askForToken() {
  $("login-note").hidden = !token;
  keep("");
  $("login").hidden = false;
  setText($("empty"), "The series show once the token is given.");
  $("token").focus();
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  const given = $("token").value.trim();
  // Others cannot be sent.
  if (!/^[!-~]+$/.test(given)) {
    $("login-note").hidden = false;
    return;
  }
  keep(given);
  $("token").value = "";
  $("login").hidden = true;
  tick();
});

// A path that reads well in a proxy's log, unless a browser would take a level for "up".
function pathOf(key) {
  const levels = key.split("/");
  return levels.some((l) => l === "." || l === "..") ? encodeURIComponent(key) : levels.map(encodeURIComponent).join("/");
}

// Numbers with as many decimals as the width of the interval makes meaningful.
function formatter(width) {
  if (width > 0 && Number.isFinite(width)) {
    const digits = Math.min(6, Math.max(0, Math.ceil(1 - Math.log10(width))));
    const format = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    return (v) => (Number.isFinite(v) ? format.format(v) : "–");
  }
  const format = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
  return (v) => (Number.isFinite(v) ? format.format(v) : "–");
}

function numberOf(series) {
  const step = series.forecast?.steps[0];
  return formatter(step ? step.q95 - step.q05 : 0);
}

const percent = (share) => `${Math.round(100 * share)} %`;
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

function age(time) {
  const at = Date.parse(time);
  const seconds = Math.max(0, (Date.now() - at) / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h ago`;
  return day.format(at);
}

// Streams

function streamCard(stream) {
  const card = element("article", "card");
  card.append(element("p", "name", stream.stream));
  const headline = element("p", "headline");
  const facts = [`${stream.series.toLocaleString()} series`];
  const gain = 1 - stream.relative_error;
  if (stream.model === "naive") {
    headline.append("naive: learning, no trained model yet");
  } else if (stream.relative_error === null || !Number.isFinite(gain)) {
    headline.append(`LSTM ${stream.model} has just taken over`);
  } else if (Math.abs(gain) < 0.005) {
    headline.append(`LSTM ${stream.model} is level with the naive forecast`);
  } else if (gain > 0) {
    headline.append(`LSTM ${stream.model} beats the naive forecast by `, element("b", "", percent(gain)));
  } else {
    headline.append(`LSTM ${stream.model} is behind the naive forecast by `, element("b", "worse", percent(-gain)));
  }
  if (stream.coverage !== null) facts.push(`90 % interval holds ${percent(stream.coverage)} of readings`);
  card.append(headline, element("p", "facts", facts.join(" · ")));
  return card;
}

function showStreams(streams) {
  const text = JSON.stringify(streams);
  if ($("streams").dataset.shown === text) return;
  $("streams").dataset.shown = text;
  $("streams").replaceChildren(...streams.map(streamCard));
}

// Rows

function makeRow(key) {
  const tr = element("tr");
  const cell = (className, label) => {
    const td = element("td", className);
    if (label) td.dataset.label = label;
    tr.append(td);
    return td;
  };
  const name = cell("key");
  const link = element("a");
  link.href = `#${encodeURIComponent(key)}`;
  link.title = key;
  const levels = key.split("/");
  const where = levels.slice(1, -1).join(" / ");
  if (where) link.append(element("span", "where", where), " ");
  link.append(element("span", where ? "field" : "where", levels.at(-1)));
  const flag = element("span", "flag", "flagged");
  flag.hidden = true;
  name.append(link, flag, element("span", "stream", levels[0]));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.append(path);
  cell("trend").append(svg);
  const last = cell("num last", "Last");
  const next = cell("num", "Next");
  const median = element("span");
  const interval = element("span", "interval");
  next.append(median, interval);
  const score = cell("score", "Score");
  const meter = element("span", "meter");
  const fill = element("i");
  meter.append(fill);
  const scoreText = element("span");
  score.append(meter, scoreText);
  const error = cell("num error", "Error to naive");
  const reading = cell("num muted reading");
  const row = { key, tr, link, flag, path, last, median, interval, fill, scoreText, error, reading, points: [], asked: false };
  rows.set(key, row);
  seen.observe(tr);
  return row;
}

function fillRow(row, series) {
  const number = numberOf(series);
  const step = series.forecast?.steps[0];
  const last = series.last;
  setText(row.last, last ? number(last.value) : "–");
  setText(row.median, step ? number(step.q50) : "–");
  setText(row.interval, step ? `${number(step.q05)} to ${number(step.q95)}` : "");
  setText(row.scoreText, last ? last.score.toFixed(2) : "–");
  row.fill.style.transform = `scaleX(${last ? Math.min(1, Math.max(0, last.score)) : 0})`;
  const flagged = Boolean(last?.anomaly);
  row.flag.hidden = !flagged;
  row.tr.classList.toggle("flagged", flagged);
  row.tr.classList.toggle("chosen", series.key === chosen);
  const change = series.relative_error === null ? NaN : series.relative_error - 1;
  const shown = Math.round(100 * change);
  setText(row.error, Number.isFinite(change) && series.forecast?.model !== "naive" ? `${shown > 0 ? "+" : shown < 0 ? "−" : "±"}${Math.abs(shown)} %` : "–");
  row.error.classList.toggle("better", shown < 0);
  row.error.classList.toggle("worse", shown > 0);
  setText(row.reading, last ? age(last.time) : "none yet");
  row.reading.title = last?.time ?? "";
  if (last) addPoint(row, Date.parse(last.time), last.value);
}

function addPoint(row, at, value) {
  if (row.points.length && row.points.at(-1).at >= at) return;
  row.points.push({ at, value });
  if (row.points.length > SPARK_POINTS) row.points.shift();
  drawSpark(row);
}

function drawSpark(row) {
  const points = row.points;
  if (points.length < 2) return;
  const values = points.map((p) => p.value);
  const low = Math.min(...values), height = Math.max(...values) - low || 1;
  const from = points[0].at, width = points.at(-1).at - from || 1;
  const at = (p) => `${((100 * (p.at - from)) / width).toFixed(1)} ${(26 - (24 * (p.value - low)) / height).toFixed(1)}`;
  row.path.setAttribute("d", `M${points.map(at).join("L")}`);
}

// The trend before this page was opened comes from the store, for rows as they come into view.
const waiting = [];
let fetching = 0;
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const row = entry.isIntersecting && [...rows.values()].find((r) => r.tr === entry.target);
    if (row && !row.asked) {
      row.asked = true;
      seen.unobserve(row.tr);
      waiting.push(row);
    }
  }
  fetchTrends();
});

async function fetchTrends() {
  while (fetching < 2 && waiting.length) {
    const row = waiting.shift();
    fetching += 1;
    api(`api/v1/series/${pathOf(row.key)}?history=${SPARK_POINTS - 20}`)
      .then((page) => {
        const first = row.points[0]?.at ?? Infinity;
        const before = page.readings.filter((r) => !r.late).map((r) => ({ at: Date.parse(r.time), value: r.value }));
        row.points = [...before.filter((p) => p.at < first), ...row.points].slice(-SPARK_POINTS);
        drawSpark(row);
      })
      .catch(() => {})
      .finally(() => { fetching -= 1; fetchTrends(); });
  }
}

function showRows() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const matching = all.filter((s) => words.every((w) => s.key.toLowerCase().includes(w)));
  const flagged = matching.filter((s) => s.last?.anomaly);
  const shown = [...flagged, ...matching.filter((s) => !s.last?.anomaly)].slice(0, MOST_ROWS);
  for (const series of shown) fillRow(rows.get(series.key) ?? makeRow(series.key), series);

  // Rows move only if the order changed, and the focus stays where it was.
  const body = $("rows");
  const order = shown.map((s) => rows.get(s.key).tr);
  if (order.length !== body.children.length || order.some((tr, i) => body.children[i] !== tr)) {
    const focused = document.activeElement;
    body.replaceChildren(...order);
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true });
  }

  const parts = [matching.length === all.length ? all.length.toLocaleString() : `${matching.length.toLocaleString()} of ${all.length.toLocaleString()}`];
  if (flagged.length) parts.push(`${flagged.length.toLocaleString()} flagged`);
  if (shown.length < matching.length) parts.push(`the first ${shown.length} shown`);
  setText($("count"), parts.join(" · "));
  $("table").hidden = !shown.length;
  $("empty").hidden = Boolean(shown.length);
  setText($("empty"), all.length ? "No series matches the filter." : "Waiting for the first readings.");
}

// The chart

function note(text) {
  setText($("detail-note"), text);
  $("detail-note").hidden = !text;
}

function choose() {
  let key = "";
  try { key = decodeURIComponent(location.hash.slice(1)); } catch { /* no key of ours */ }
  if (key === chosen) return;
  const before = chosen;
  chosen = key;
  detail = null;
  detailWanted += 1;
  $("detail").hidden = !key;
  document.title = key ? `${key} · Vidente` : "Vidente";
  window.Plotly?.purge($("chart"));
  note("");
  showRows();
  if (key) {
    setText($("detail-name"), key.split("/").join(" / "));
    setText($("detail-facts"), "");
    $("detail-name").focus({ preventScroll: true });
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("detail").scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
    showDetail();
  } else {
    rows.get(before)?.link.focus({ preventScroll: true });
  }
}

async function showDetail() {
  const key = chosen;
  const now = all.find((s) => s.key === key);
  if (!key || !now) {
    if (key && all.length) note("There is no such series at present.");
    return;
  }
  const number = numberOf(now);
  const step = now.forecast?.steps[0];
  const facts = [];
  if (now.last) facts.push(`${number(now.last.value)}, ${age(now.last.time)}`);
  if (step) facts.push(`next ${number(step.q50)} (90 %: ${number(step.q05)} to ${number(step.q95)})`);
  if (now.forecast) facts.push(`by ${now.forecast.model}`);
  if (now.last?.anomaly) facts.push("flagged");
  setText($("detail-facts"), facts.join(" · "));

  const history = Number($("history").value);
  const newest = detail?.page.readings.at(-1)?.time;
  if (detail?.history === history && now.last && Date.parse(newest) >= Date.parse(now.last.time)) {
    if (detail.drawnAt !== now.last.time) await draw(window.Plotly);
    return;
  }
  const wanted = ++detailWanted;
  try {
    const [Plotly, page] = await Promise.all([library(), api(`api/v1/series/${pathOf(key)}?history=${history}`)]);
    if (wanted !== detailWanted) return;
    page.readings.sort((a, b) => Date.parse(a.time) - Date.parse(b.time));
    detail = { page, history };
    note("");
    await draw(Plotly);
  } catch (error) {
    if (wanted === detailWanted) note(`The history is not to be had: ${error.message}.`);
  }
}

async function draw(Plotly) {
  const now = all.find((s) => s.key === chosen);
  if (!detail || !now) return;
  detail.drawnAt = now.last?.time;
  const { data, layout } = figure(detail.page, now, numberOf(now), `${chosen} ${detail.history}`);
  await Plotly.react($("chart"), data, layout, config);
}

// The loop

function showStatus(ready) {
  const [state, text] = broken ? ["lost", broken]
    : ready?.ready === false ? ["wait", `Waiting: ${ready.missing.join(", ")}`]
    : ready?.store_up === false ? ["wait", "The store is away, forecasting goes on"]
    : ready?.mqtt_connected === false ? ["wait", "The broker is away"]
    : ["live", "Live"];
  $("status").dataset.state = state;
  setText($("status"), text);
}

let timer = 0;
let running = false;
async function tick() {
  clearTimeout(timer);
  if (running || document.hidden || !$("login").hidden) return;
  running = true;
  const began = performance.now();
  let ready;
  try {
    const [series, streams, readiness] = await Promise.all([
      api("api/v1/series"),
      api("api/v1/streams"),
      api("ready").catch((error) => error.body),
    ]);
    broken = "";
    ready = readiness;
    all = series;
    showStreams(streams);
    showRows();
    await showDetail();
  } catch (error) {
    if (error.status === 401) askForToken();
    broken = error.status === 401 ? "Waiting for the token" : error.status ? error.message : "Connection lost, trying again";
  }
  showStatus(ready);
  running = false;
  // With very many series an answer takes a while: then ask less often.
  timer = setTimeout(tick, Math.max(POLL, 4 * (performance.now() - began)));
}

document.addEventListener("visibilitychange", tick);
addEventListener("hashchange", choose);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chosen && document.activeElement !== $("filter")) location.hash = "";
});
$("filter").addEventListener("input", showRows);
$("history").addEventListener("change", showDetail);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => window.Plotly && draw(window.Plotly));

choose();
tick();
