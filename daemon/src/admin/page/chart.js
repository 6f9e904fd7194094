// One series as a Plotly figure: readings, what was forecast for them, and what is forecast next.
// Names of series never get in here, so nothing from outside is ever taken for markup.

const millis = (time) => Date.parse(time);
// Plotly draws dates as if everything were UTC: this makes it show the viewer's own time.
const local = (ms) => ms - new Date(ms).getTimezoneOffset() * 60000;
const byTime = (a, b) => a.at - b.at;

let loading;
export function library() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "assets/plotly.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = undefined;
      script.remove();
      reject(new Error("the chart library could not be loaded"));
    };
    document.head.append(script);
  });
  return loading;
}

function colours() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return Object.fromEntries(
    ["surface", "ink", "muted", "line", "reading", "band", "fan", "alarm"].map((n) => [n, colour(n)]),
  );
}

const translucent = (hex, share) => hex + Math.round(share * 255).toString(16).padStart(2, "0");

// Longest step between neighbours that is no gap.
function reach(points) {
  const steps = points.slice(1).map((p, i) => p.at - points[i].at).sort((a, b) => a - b);
  return steps.length ? 2.5 * steps[steps.length >> 1] : Infinity;
}

function runs(points, most) {
  const all = [];
  for (const point of points) {
    const run = all.at(-1);
    if (run && point.at - run.at(-1).at <= most) run.push(point);
    else all.push([point]);
  }
  return all;
}

// A line that breaks at gaps.
function line(points, most, y) {
  const x = [], ys = [], rows = [];
  for (const run of runs(points, most)) {
    if (x.length) { x.push(null); ys.push(null); rows.push(null); }
    for (const p of run) { x.push(local(p.at)); ys.push(y(p)); rows.push(p); }
  }
  return { x, y: ys, rows };
}

// The area between two quantiles, closed, one patch for each run without gaps.
function area(points, most, low, high, fillcolor, extra) {
  const x = [], y = [];
  for (const run of runs(points, most)) {
    if (x.length) { x.push(null); y.push(null); }
    for (const p of run) { x.push(local(p.at)); y.push(p[high]); }
    for (const p of run.toReversed()) { x.push(local(p.at)); y.push(p[low]); }
  }
  return { x, y, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor, hoverinfo: "skip", ...extra };
}

const between = (p, number) => `${number(p.q05)} to ${number(p.q95)}`;

// page: what /api/v1/series/{key} answers; now: the series in /api/v1/series. The chart shows the
// moment of the latter: the store may lag behind it, or have gone on since.
export function figure(page, now, number, revision) {
  const c = colours();
  const moment = now.last ? millis(now.last.time) : Infinity;
  const stored = page.readings.map((r) => ({ ...r, at: millis(r.time) })).filter((r) => r.at <= moment).sort(byTime);
  const readings = stored.filter((r) => !r.late);
  if (now.last && readings.at(-1)?.at !== moment) readings.push({ ...now.last, at: moment });
  const newest = readings.at(-1);
  const most = reach(readings);
  const data = [];
  const narrow = window.matchMedia("(max-width: 760px)").matches;

  const ahead = page.forecasts
    .filter((f) => f.step === 1)
    .map((f) => ({ ...f, at: millis(f.time) }))
    .filter((f) => newest && f.at <= newest.at + most / 5)
    .sort(byTime);
  const band = { legendgroup: "band", name: narrow ? "90 %, 50 %" : "90 % and 50 % interval", showlegend: false };
  data.push(area(ahead, most, "q05", "q95", translucent(c.band, 0.22), { ...band, showlegend: true }));
  data.push(area(ahead, most, "q25", "q75", translucent(c.band, 0.34), band));
  const median = line(ahead, most, (f) => f.q50);
  data.push({
    x: median.x, y: median.y, mode: "lines", name: narrow ? "Forecast" : "Forecast one step before",
    line: { color: c.band, width: 1.2 },
    customdata: median.rows.map((f) => f && [number(f.q50), between(f, number)]),
    hovertemplate: "forecast %{customdata[0]}, 90 %: %{customdata[1]}<extra></extra>",
  });

  if (newest) {
    const future = (now.forecast?.steps ?? []).map((f) => ({ ...f, at: millis(f.time) })).sort(byTime);
    if (future.length) {
      const v = newest.value;
      const fan = [{ at: newest.at, q05: v, q25: v, q50: v, q75: v, q95: v }, ...future];
      const group = { legendgroup: "fan", showlegend: false };
      data.push(area(fan, Infinity, "q05", "q95", translucent(c.fan, 0.18), group));
      data.push(area(fan, Infinity, "q25", "q75", translucent(c.fan, 0.3), group));
      data.push({
        x: fan.map((f) => local(f.at)), y: fan.map((f) => f.q50), mode: "lines", name: narrow ? "Ahead" : "Forecast ahead",
        legendgroup: "fan", line: { color: c.fan, width: 2 },
        customdata: fan.map((f) => [number(f.q50), between(f, number)]),
        hoverinfo: "skip",
      });
      data.push({
        x: future.map((f) => local(f.at)), y: future.map((f) => f.q50), mode: "markers", showlegend: false,
        legendgroup: "fan", marker: { color: c.fan, size: 4 },
        customdata: future.map((f) => [number(f.q50), between(f, number)]),
        hovertemplate: "ahead %{customdata[0]}, 90 %: %{customdata[1]}<extra></extra>",
      });
    }
  }

  const values = line(readings, most, (r) => r.value);
  data.push({
    x: values.x, y: values.y, mode: readings.length > 150 ? "lines" : "lines+markers", name: "Readings",
    line: { color: c.reading, width: 1.7 }, marker: { color: c.reading, size: 4 },
    customdata: values.rows.map((r) => r && number(r.value)),
    hovertemplate: "reading %{customdata}<extra></extra>",
  });

  const late = stored.filter((r) => r.late);
  if (late.length) {
    data.push({
      x: late.map((r) => local(r.at)), y: late.map((r) => r.value), mode: "markers", name: "Came late",
      marker: { symbol: "circle-open", color: c.muted, size: 6 },
      hovertemplate: "late %{y}<extra></extra>",
    });
  }

  const spans = page.anomalies.map((a) => ({ ...a, at: millis(a.time), end: a.ended_at ? millis(a.ended_at) : Infinity }));
  const flagged = readings.flatMap((r) => {
    const a = spans.find((a) => a.kind === "value" && r.at >= a.at && (r.at < a.end || r.at === a.at));
    return a || (r === newest && now.last?.anomaly) ? [{ ...r, a }] : [];
  });
  if (flagged.length) {
    data.push({
      x: flagged.map((r) => local(r.at)), y: flagged.map((r) => r.value), mode: "markers", name: "Flagged",
      marker: { color: c.alarm, size: 8, line: { color: c.surface, width: 1.5 } },
      customdata: flagged.map((r) => r.a && r.a.at === r.at
        ? `, score ${r.a.score.toFixed(2)}, expected ${between(r.a, number)}` : ""),
      hovertemplate: "flagged%{customdata}<extra></extra>",
    });
  }
  const edge = newest?.at ?? 0;
  const shapes = spans.filter((a) => readings.length && a.end > readings[0].at).map((a) => ({
    type: "rect", yref: "paper", y0: 0, y1: 1, layer: "below", line: { width: 0 },
    x0: local(Math.max(a.at, readings[0].at)), x1: local(Math.min(a.end, Math.max(edge, a.at))),
    fillcolor: translucent(c.alarm, a.kind === "silence" ? 0.12 : 0.07),
  }));

  const axis = {
    gridcolor: c.line, zeroline: false, linecolor: c.line, tickcolor: c.line, tickfont: { color: c.muted, size: 12 },
    automargin: true,
  };
  const layout = {
    uirevision: revision, shapes, paper_bgcolor: c.surface, plot_bgcolor: c.surface,
    font: { color: c.ink, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 48, r: 16, t: 8, b: 36 }, hovermode: "x unified",
    hoverlabel: { bgcolor: c.surface, bordercolor: c.line, font: { color: c.ink, size: 13 } },
    // Touching the chart scrolls the page; a mouse zooms.
    dragmode: window.matchMedia("(pointer: coarse)").matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: c.muted, activecolor: c.ink },
    legend: { bgcolor: "rgba(0,0,0,0)", orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { color: c.muted, size: narrow ? 11 : 12 }, itemsizing: "constant" },
    xaxis: { ...axis, type: "date", hoverformat: "%a %e %b %Y %H:%M:%S", nticks: narrow ? 4 : undefined, spikethickness: 1, spikecolor: c.muted },
    yaxis: { ...axis, nticks: 6 },
  };
  return { data, layout };
}

export const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: window.matchMedia("(pointer: coarse)").matches ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
