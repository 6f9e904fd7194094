// The overview: totals, streams, and a page of series, as the events bring them.

import { api, listen, pathOf } from "./api.js";
import { $, age, change, count, element, formatter, parts, percent, setText, span } from "./format.js";

const LIMIT = 50;
const TYPING = 150;
const SPARK_POINTS = 80;
const MOST_ROWS = 600;
const RECENT = 3;
/** How long something has just happened. */
const NEWS = 120_000;
const NAMES = { flagged: "flagged", silent: "silent", worse: "behind naive" };

const view = { search: "", sort: "attention", offset: 0 };
const rows = new Map();
/** How to end what is listened to, and what to tell of it. */
let stop = null, told = null;

export function start(hear) {
  if (stop) return;
  const parameters = new URLSearchParams({ sort: view.sort, offset: view.offset, limit: LIMIT });
  if (view.search) parameters.set("search", view.search);
  const ending = listen(`api/v1/events?${parameters}`, { ...hear, overview: showAll, anomaly: showRecent });
  const ages = setInterval(showAges, 1000);
  stop = () => {
    ending();
    clearInterval(ages);
  };
  told = hear;
}

function halt() {
  stop?.();
  stop = null;
  waiting.splice(0).forEach((row) => { row.asked = false; });
}
export { halt as stop };

function look(what) {
  Object.assign(view, { offset: 0 }, what);
  if (!stop) return;
  halt();
  start(told);
}

// Streams and totals

function streamCard(stream) {
  const gain = 1 - stream.relative_error;
  const headline = element("p", "headline");
  if (!stream.heard && !stream.series) {
    headline.append(element("b", "worse", "Nothing heard on its topic"), " since the start");
  } else if (stream.model === "naive") {
    headline.append("Learning: no trained model yet");
  } else if (stream.relative_error === null || !Number.isFinite(gain)) {
    headline.append(`${stream.model} has just taken over`);
  } else if (Math.abs(gain) < 0.005) {
    headline.append(`${stream.model} is level with the naive forecast`);
  } else if (gain > 0) {
    headline.append(`${stream.model} beats the naive forecast by `, element("b", "", percent(gain)));
  } else {
    headline.append(`${stream.model} is behind the naive forecast by `, element("b", "worse", percent(-gain)));
  }
  const facts = [`${count(stream.series)} series`];
  for (const kind of ["flagged", "silent"]) if (stream[kind]) facts.push(`${count(stream[kind])} ${kind}`);
  if (stream.coverage !== null) facts.push(`90 % interval holds ${percent(stream.coverage)}`);
  const name = element("h2", "name", stream.stream);
  return element("article", "card", name, headline, element("p", "facts", facts.join(" · ")));
}

function showStreams(streams) {
  const text = JSON.stringify(streams);
  if ($("streams").dataset.shown !== text) {
    $("streams").dataset.shown = text;
    $("streams").replaceChildren(...streams.map(streamCard));
  }
  for (const kind of ["series", "flagged", "silent", "worse"]) {
    const sum = streams.reduce((all, stream) => all + stream[kind], 0);
    setText($(`total-${kind}`), count(sum));
    $(`total-${kind}`).parentElement.classList.toggle("some", sum > 0);
  }
}

// What has just happened

function showRecent(anomaly) {
  const link = element("a", "", seriesName(anomaly.series));
  link.href = `#${encodeURIComponent(anomaly.series)}`;
  const began = anomaly.state === "began";
  const what = anomaly.kind === "silence" ? (began ? "fell silent" : "reports again")
    : began ? "is flagged" : "is back to normal";
  const item = element("li", began ? "began" : "ended", link, ` ${what}`);
  item.dataset.at = Date.now();
  item.append(element("span", "muted", ""));
  $("recent").prepend(item);
  while ($("recent").children.length > RECENT) $("recent").lastElementChild.remove();
  $("recent-panel").hidden = false;
}

function seriesName(key) {
  const { where, field } = parts(key);
  return where ? `${where} / ${field}` : field;
}

// Rows

function makeRow(key) {
  const tr = element("tr");
  const cell = (className, label, ...children) => {
    const td = element("td", className, ...children);
    if (label) td.dataset.label = label;
    tr.append(td);
    return td;
  };
  const { stream, where, field } = parts(key);
  const link = element("a");
  link.href = `#${encodeURIComponent(key)}`;
  link.title = key;
  if (where) link.append(element("bdi", "where", where), " ");
  link.append(element("bdi", where ? "field" : "where", field));
  const flag = element("span", "flag");
  flag.hidden = true;
  cell("key", "", link, flag, element("bdi", "stream", stream));
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", "0 0 100 28");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.append(path);
  cell("trend", "", svg);
  const last = cell("num last", "Last");
  const median = element("span"), interval = element("span", "interval");
  cell("num", "Next", median, interval);
  const fill = element("i"), scoreText = element("span");
  cell("score", "Score", element("span", "meter", fill), scoreText);
  const error = cell("num error", "To naive");
  const reading = cell("num muted reading");
  const cells = { link, flag, path, last, median, interval, fill, scoreText, error, reading };
  const row = { key, tr, ...cells, points: [], asked: false };
  rows.set(key, row);
  return row;
}

function fillRow(row, series) {
  const { last, next } = series;
  const number = formatter(next ? next.q95 - next.q05 : 0);
  row.time = last?.time;
  row.since = series.since;
  row.attention = series.attention;
  setText(row.last, last ? number(last.value) : "–");
  setText(row.median, next ? number(next.q50) : "–");
  setText(row.interval, next ? `${number(next.q05)} to ${number(next.q95)}` : "");
  setText(row.scoreText, last ? last.score.toFixed(2) : "–");
  row.fill.style.transform = `scaleX(${last ? Math.min(1, Math.max(0, last.score)) : 0})`;
  row.tr.dataset.attention = series.attention ?? "";
  row.flag.hidden = !series.attention;
  const error = change(series.relative_error);
  setText(row.error, error.text);
  row.error.classList.toggle("better", error.sign < 0);
  row.error.classList.toggle("worse", error.sign > 0);
  if (last) addPoint(row, Date.parse(last.time), last.value);
  showAge(row);
}

function showAge(row) {
  setText(row.reading, row.time ? age(row.time) : "none yet");
  row.reading.title = row.time ?? "";
  if (!row.attention) return;
  const since = row.since ? ` ${span(Date.now() - Date.parse(row.since))}` : "";
  setText(row.flag, NAMES[row.attention] + since);
}

function showAges() {
  for (const tr of $("rows").children) showAge(tr.row);
  for (const item of $("recent").children) {
    const since = Date.now() - Number(item.dataset.at);
    setText(item.lastElementChild, since < 5000 ? "" : `${span(since)} ago`);
    if (since > NEWS) item.remove();
  }
  $("recent-panel").hidden = !$("recent").children.length;
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
  const x = (p) => ((100 * (p.at - from)) / width).toFixed(1);
  const y = (p) => (26 - (24 * (p.value - low)) / height).toFixed(1);
  row.path.setAttribute("d", `M${points.map((p) => `${x(p)} ${y(p)}`).join("L")}`);
}

// The trend before this page was opened comes from the store, for rows as they come into view.
const waiting = [];
let fetching = 0;
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting && !target.row.asked) {
      target.row.asked = true;
      waiting.push(target.row);
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
      .catch(() => { row.asked = false; })
      .finally(() => { fetching -= 1; fetchTrends(); });
  }
}

function showAll(overview) {
  showStreams(overview.streams);
  // Fewer match than before: the page before is the last.
  if (!overview.series.length && view.offset > 0 && overview.matching > 0) {
    look({ offset: LIMIT * Math.floor((overview.matching - 1) / LIMIT) });
    return;
  }
  const order = overview.series.map((series) => {
    const row = rows.get(series.key) ?? makeRow(series.key);
    row.tr.row = row;
    fillRow(row, series);
    return row.tr;
  });
  // Rows move only if the order changed, and the focus stays where it was.
  const body = $("rows");
  if (order.length !== body.children.length || order.some((tr, i) => body.children[i] !== tr)) {
    const focused = document.activeElement;
    body.replaceChildren(...order);
    if (focused instanceof HTMLElement && body.contains(focused)) focused.focus({ preventScroll: true });
    forgetRows();
  }
  if (order.some((tr) => !tr.row.asked)) {
    seen.disconnect();
    order.filter((tr) => !tr.row.asked).forEach((tr) => seen.observe(tr));
  }
  const { total, matching, offset } = overview;
  setText($("count"), matching === total ? count(total) : `${count(matching)} of ${count(total)}`);
  $("table").hidden = !order.length;
  $("empty").hidden = Boolean(order.length);
  setText($("empty"), total ? `No series matches “${view.search}”.` : "Waiting for the first readings.");
  $("pager").hidden = matching <= LIMIT;
  setText($("place"), `${count(offset + 1)} to ${count(offset + order.length)} of ${count(matching)}`);
  $("before").disabled = offset === 0;
  $("after").disabled = offset + order.length >= matching;
}

function forgetRows() {
  for (const [key, row] of rows) {
    if (rows.size <= MOST_ROWS) return;
    if (!row.tr.isConnected) rows.delete(key);
  }
}

// Moving about

const links = () => [...$("rows").querySelectorAll("a")];

/** Moves the focus by so many rows; whether there was one. */
export function move(by) {
  const all = links();
  const at = all.indexOf(document.activeElement);
  const next = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
  next?.focus();
  next?.closest("tr").scrollIntoView({ block: "nearest" });
  return Boolean(next);
}

export function press(name) {
  if (name === "/") {
    $("search").focus();
    $("search").select();
  } else if (name === "j" || name === "ArrowDown") {
    return move(1);
  } else if (name === "k" || name === "ArrowUp") {
    return move(-1);
  } else if (name === "n" || name === "p") {
    turn(name === "n" ? 1 : -1);
  } else {
    return false;
  }
  return true;
}

function turn(by) {
  if ($("pager").hidden || (by < 0 ? $("before") : $("after")).disabled) return;
  look({ offset: Math.max(0, view.offset + by * LIMIT) });
  $("list-title").scrollIntoView({ block: "start" });
}

export function leaveSearch() {
  if (!$("search").value) {
    $("search").blur();
    return;
  }
  $("search").value = "";
  look({ search: "" });
}

/** Back from a series. */
export function focus(key) {
  rows.get(key)?.link.focus();
}

let typing;
$("search").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const search = $("search").value.trim();
    if (search !== view.search) look({ search });
  }, TYPING);
});
$("sort").addEventListener("change", () => look({ sort: $("sort").value }));
$("before").addEventListener("click", () => turn(-1));
$("after").addEventListener("click", () => turn(1));
