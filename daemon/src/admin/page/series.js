// One series: its past from the store, and from then on each forecast and anomaly as it is published.

import { api, listen, pathOf } from "./api.js";
import { config, history, horizon, library } from "./chart.js";
import { $, age, change, clock, date, element, formatter, moment, parts, percent, setText, span } from "./format.js";

/** Least time between two drawings, and between two looks into the store. */
const DRAW_EVERY = 300;
const LOOK_EVERY = 15_000;
const FIGURES = 100;

let key = "", stop = null;
/** What is shown; none before the store has answered. */
let past = null;
let looks = 0, lookedAt = 0, cursor = null, drawing = 0;
let latest = null;
/** Whether the chart tells of the pointer; one that was cleared does no more. */
let hovered = false;

const chosen = () => Number($("history").value);

export function start(wanted, hear) {
  if (stop && wanted === key) return;
  halt();
  if (wanted !== key) clear(wanted);
  const ending = listen(`api/v1/events?${new URLSearchParams({ series: key })}`, {
    ...hear,
    open() {
      hear.open();
      note("");
      look();
    },
    forecast: onForecast,
    anomaly: onAnomaly,
    lost(error) {
      if (error.status === 404) note("There is no such series at present.");
      hear.lost(error);
    },
  });
  const every = setInterval(() => {
    showFacts();
    if (Date.now() - lookedAt > LOOK_EVERY) look();
  }, 1000);
  stop = () => {
    ending();
    clearInterval(every);
  };
}

function halt() {
  stop?.();
  stop = null;
  looks += 1;
}
export { halt as stop };

function clear(wanted) {
  key = wanted;
  [past, latest, cursor, lookedAt, hovered] = [null, null, null, 0, false];
  window.Plotly?.purge($("chart"));
  window.Plotly?.purge($("fan"));
  const { stream, where, field } = parts(key);
  setText($("name"), where ? `${where} / ${field}` : field);
  setText($("labels"), stream);
  const facts = ["last", "age", "next", "interval", "score", "model", "error", "inside"];
  for (const id of facts) setText($(`fact-${id}`), "–");
  for (const id of ["steps", "experts", "anomalies", "models", "figures-rows"]) $(id).replaceChildren();
  $("state").hidden = true;
  note("");
  say();
}

function note(text) {
  setText($("series-note"), text);
  $("series-note").hidden = !text;
}

// What comes

async function look() {
  const look = ++looks;
  lookedAt = Date.now();
  try {
    const page = await api(`api/v1/series/${pathOf(key)}?history=${chosen()}`);
    if (look !== looks) return;
    note("");
    take(page);
  } catch (error) {
    if (look === looks && error.status !== 401 && !(error.status === 404 && !past)) {
      note(`The history is not to be had: ${error.message}.`);
    }
  }
}

const endOf = (anomaly) => (anomaly.ended_at ? Date.parse(anomaly.ended_at) : Infinity);
const timed = (f) => ({ ...f, at: Date.parse(f.time), from: Date.parse(f.origin) });

function take(page) {
  const before = past;
  const readings = page.readings.map((r) => ({ ...r, at: Date.parse(r.time) })).sort((a, b) => a.at - b.at);
  const newest = readings.at(-1)?.at ?? -Infinity;
  past = {
    readings,
    ahead: page.forecasts.filter((f) => f.step === 1).map(timed).sort((a, b) => a.at - b.at),
    steps: before?.steps ?? [],
    episodes: page.anomalies.map((a) => ({ ...a, at: Date.parse(a.time), end: endOf(a) })),
  };
  // The store may lag behind what was heard.
  if (before) {
    past.readings.push(...before.readings.filter((r) => r.at > newest));
    const known = new Set(past.ahead.map((f) => f.from));
    past.ahead.push(...before.ahead.filter((f) => f.at >= newest && !known.has(f.from)));
    past.ahead.sort((a, b) => a.at - b.at);
  }
  if (latest) follow(latest);
  const labels = Object.entries(page.labels).map(([name, value]) => `${name} ${value}`);
  setText($("labels"), [page.stream, ...labels].join(" · "));
  showExperts(page.experts ?? []);
  showModels(page.models);
  showAnomalies();
  refresh();
}

function onForecast(message) {
  const before = latest;
  latest = message;
  if (past) {
    follow(message);
    // Readings have come in between that were not told of.
    const step = message.steps[0] && Date.parse(message.steps[0].time) - Date.parse(message.origin);
    const since = before ? Date.parse(message.origin) - Date.parse(before.origin) : 0;
    if (step > 0 && since > 1.9 * step && Date.now() - lookedAt > 2000) look();
  }
  refresh();
}

/** Takes a published forecast into what is shown. */
function follow({ reading, origin, steps }) {
  const at = Date.parse(origin);
  const newest = past.readings.at(-1)?.at ?? -Infinity;
  if (at > newest) {
    const first = past.steps[0];
    if (first && first.from === newest && !past.ahead.some((f) => f.from === newest)) past.ahead.push(first);
    past.readings.push({ time: origin, at, ...reading });
    const excess = past.readings.length - chosen();
    if (excess > 0) {
      past.readings.splice(0, excess);
      past.ahead = past.ahead.filter((f) => f.at >= past.readings[0].at);
    }
  } else {
    const same = past.readings.findLast((r) => r.at === at);
    if (same) Object.assign(same, reading);
  }
  if (at >= newest) past.steps = steps.map((s) => timed({ ...s, origin }));
}

function onAnomaly(anomaly) {
  if (!past) return;
  const at = Date.parse(anomaly.since);
  let episode = past.episodes.find((e) => e.kind === anomaly.kind && e.at === at);
  if (!episode) {
    const { kind, since: time, reading: { value }, score, interval } = anomaly;
    episode = { kind, time, at, value, score, ...interval };
    past.episodes.push(episode);
  }
  episode.ended_at = anomaly.ended_at;
  episode.end = endOf(anomaly);
  showAnomalies();
  refresh();
}

// What is shown

function number() {
  const step = past?.steps[0] ?? latest?.steps[0] ?? past?.ahead.at(-1);
  return formatter(step ? step.q95 - step.q05 : 0);
}

function flag() {
  const open = (past?.episodes ?? []).filter((e) => e.end === Infinity);
  return open.find((e) => e.kind === "value") ?? open[0];
}

/** Gives each reading the forecast made for it, and whether it is flagged. */
function judge() {
  const made = new Map(past.ahead.map((f) => [f.from, f]));
  const onTime = past.readings.filter((r) => !r.late);
  onTime.forEach((r, i) => {
    r.forecast = i ? made.get(onTime[i - 1].at) : undefined;
    const episode = past.episodes.find((e) => e.kind === "value" && r.at >= e.at && (r.at < e.end || r.at === e.at));
    r.flagged = Boolean(episode) || r.anomaly === true;
  });
}

function refresh() {
  if (past) judge();
  showFacts();
  if (!drawing && past) drawing = setTimeout(draw, DRAW_EVERY);
}

function showFacts() {
  const format = number();
  const step = past?.steps[0] ?? latest?.steps[0];
  if (latest) {
    setText($("fact-last"), format(latest.reading.value));
    setText($("fact-age"), age(latest.origin));
    setText($("fact-score"), latest.reading.score.toFixed(2));
    setText($("fact-model"), `by ${latest.model}`);
  }
  if (step) {
    setText($("fact-next"), format(step.q50));
    setText($("fact-interval"), `${format(step.q05)} to ${format(step.q95)}`);
  }
  const open = flag();
  $("state").hidden = !open;
  if (open) {
    setText($("state"), `${open.kind === "silence" ? "silent" : "flagged"} ${span(Date.now() - open.at)}`);
    $("state").dataset.attention = open.kind === "silence" ? "silent" : "flagged";
  }
}

/** How the forecasts did over the readings shown. */
function showQuality() {
  const onTime = past.readings.filter((r) => !r.late);
  let [error, naive, inside, judged] = [0, 0, 0, 0];
  onTime.forEach((r, i) => {
    if (!r.forecast) return;
    judged += 1;
    error += Math.abs(r.value - r.forecast.q50);
    naive += Math.abs(r.value - onTime[i - 1].value);
    inside += r.value >= r.forecast.q05 && r.value <= r.forecast.q95 ? 1 : 0;
  });
  const enough = judged >= 20;
  const shown = change(enough && naive > 0 ? error / naive : NaN);
  setText($("fact-error"), shown.text);
  $("fact-error").className = shown.sign < 0 ? "better" : shown.sign > 0 ? "worse" : "";
  setText($("fact-inside"), enough ? `${percent(inside / judged)} inside 90 %` : "too few yet");
}

async function draw() {
  try {
    const Plotly = await library();
    drawing = 0;
    if (!past || $("series").hidden) return;
    const at = `${key} ${chosen()}`;
    const figures = [[$("chart"), history(past, cursor, at)], [$("fan"), horizon(past, at)]];
    for (const [place, { data, layout }] of figures) await Plotly.react(place, data, layout, config);
    hover();
  } catch (error) {
    drawing = 0;
    note(`The chart cannot be drawn: ${error.message}.`);
    return;
  }
  showQuality();
  showSteps();
  showFigures();
  if (cursor) say(cursor);
}

export function redraw() {
  if (past && window.Plotly) draw();
}

function cells(...texts) {
  return element("tr", "", ...texts.map((text, i) => element("td", i ? "num" : "", text)));
}

function showSteps() {
  const format = number();
  $("steps").replaceChildren(...past.steps.map((s) =>
    cells(clock(s.at), ...["q05", "q25", "q50", "q75", "q95"].map((q) => format(s[q])))));
}

function showFigures() {
  if (!$("figures").open) return;
  const format = number();
  $("figures-rows").replaceChildren(...past.readings.slice(-FIGURES).reverse().map((r) => cells(
    clock(r.at), format(r.value), r.forecast ? format(r.forecast.q50) : "–",
    r.forecast ? `${format(r.forecast.q05)} to ${format(r.forecast.q95)}` : "–",
    r.forecast ? format(r.value - r.forecast.q50) : "–", r.late ? "late" : r.flagged ? "flagged" : "")));
}

function showExperts(experts) {
  const shown = [...experts].sort((a, b) => b.weight - a.weight);
  $("experts").replaceChildren(...shown.map(({ name, weight }) => {
    const bar = element("i");
    bar.style.transform = `scaleX(${weight})`;
    const share = element("b", "", percent(weight));
    return element("li", "", element("span", "", name), element("span", "meter", bar), share);
  }));
  if (!shown.length) $("experts").append(element("li", "none", "Nothing is forecast yet."));
}

function showModels(models) {
  const words = {
    probation: "on probation", confirmed: "proved itself", rolled_back: "rolled back",
    superseded: "followed by another",
  };
  $("models").replaceChildren(...models.map((m) => {
    const error = change(m.relative_error ?? NaN);
    const facts = [`since ${date(Date.parse(m.promoted_at))}`, words[m.status] ?? m.status];
    if (m.cause !== "training") facts.push(`by ${m.cause}`);
    if (m.coverage !== null) facts.push(`${percent(m.coverage)} inside 90 %`);
    const gain = element("b", error.sign < 0 ? "better" : error.sign > 0 ? "worse" : "", error.text);
    gain.title = "Error over the naive forecast's";
    return element("li", "", element("span", "what", m.name), gain, element("span", "muted", facts.join(" · ")));
  }));
  if (models.length) return;
  $("models").append(element("li", "none", "No model has been trained yet: the online experts forecast alone."));
}

function showAnomalies() {
  const format = number();
  const newest = [...past.episodes].sort((a, b) => b.at - a.at).slice(0, 12);
  $("anomalies").replaceChildren(...newest.map((e) => {
    const silence = e.kind === "silence";
    const lasted = e.end === Infinity ? "lasts" : e.end > e.at ? `for ${span(e.end - e.at)}` : "one reading";
    const facts = [date(e.at), lasted];
    if (!silence && Number.isFinite(e.q05)) facts.push(`expected ${format(e.q05)} to ${format(e.q95)}`);
    return element("li", e.end === Infinity ? "open" : "",
      element("span", "what", silence ? "Silence" : `Value ${format(e.value)}`),
      element("b", "", silence || !Number.isFinite(e.score) ? "" : e.score.toFixed(2)),
      element("span", "muted", facts.join(" · ")));
  }));
  if (!newest.length) $("anomalies").append(element("li", "none", "None among the readings shown."));
}

// The crosshair

function say(reading) {
  if (!reading) {
    setText($("readout"), "Point at the chart, or focus it and use the arrow keys.");
    return;
  }
  const format = number(), f = reading.forecast;
  const facts = [moment(reading.at), `reading ${format(reading.value)}`];
  if (f) {
    const residual = format(reading.value - f.q50);
    facts.push(`forecast ${format(f.q50)}`, `90 %: ${format(f.q05)} to ${format(f.q95)}`, `residual ${residual}`);
  }
  if (reading.late) facts.push("came late");
  if (reading.flagged) facts.push("flagged");
  setText($("readout"), facts.join(" · "));
}

function point(reading) {
  cursor = reading ?? null;
  say(cursor);
  if (past && window.Plotly && $("chart").layout) {
    const revision = `${key} ${chosen()}`;
    window.Plotly.relayout($("chart"), { shapes: history(past, cursor, revision).layout.shapes });
  }
}

function hover() {
  if (hovered) return;
  hovered = true;
  $("chart").on("plotly_hover", ({ points }) => {
    // The viewer's own time, as Plotly writes it.
    const x = points[0]?.x, ms = typeof x === "number" ? x : Date.parse(String(x).replace(" ", "T"));
    const near = past?.readings.reduce((best, r) =>
      !best || Math.abs(r.at - ms) < Math.abs(best.at - ms) ? r : best, null);
    if (near && near !== cursor) point(near);
  });
}

$("chart").addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
  const by = steps[event.key];
  if (!by || !past?.readings.length || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const last = past.readings.length - 1;
  const at = cursor ? past.readings.findIndex((r) => r.at >= cursor.at) : last + (by < 0 ? 1 : 0);
  point(past.readings[Math.max(0, Math.min(last, at + by))]);
});
$("history").addEventListener("change", () => {
  past = null;
  look();
});
$("figures").addEventListener("toggle", () => past && showFigures());
