// One series as Plotly figures: readings, what was forecast for them, how far off that was, and what comes next.
// Names of series never get in here, so nothing from outside is ever taken for markup.

// Times are given as milliseconds: Plotly shows such in the viewer's own time.

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
  const x = [], ys = [];
  for (const run of runs(points, most)) {
    if (x.length) { x.push(null); ys.push(null); }
    for (const p of run) { x.push(p.at); ys.push(y(p)); }
  }
  return { x, y: ys, mode: "lines" };
}

const alone = (points, most) => runs(points, most).filter((run) => run.length === 1).flat();

// The area between two quantiles, closed, one patch for each run without gaps.
function area(points, most, low, high, fillcolor, extra) {
  const x = [], y = [];
  for (const run of runs(points, most)) {
    if (x.length) { x.push(null); y.push(null); }
    for (const p of run) { x.push(p.at); y.push(p[high]); }
    for (const p of run.toReversed()) { x.push(p.at); y.push(p[low]); }
  }
  return { x, y, mode: "lines", line: { width: 0 }, fill: "toself", fillcolor, hoverinfo: "skip", ...extra };
}

function fan(c, steps, newest) {
  const v = newest.value;
  const points = [{ at: newest.at, q05: v, q10: v, q25: v, q50: v, q75: v, q90: v, q95: v }, ...steps];
  const quiet = { legendgroup: "fan", showlegend: false };
  return [
    area(points, Infinity, "q05", "q95", translucent(c.fan, 0.16), quiet),
    area(points, Infinity, "q10", "q90", translucent(c.fan, 0.12), quiet),
    area(points, Infinity, "q25", "q75", translucent(c.fan, 0.26), quiet),
    {
      ...line(points, Infinity, (f) => f.q50), mode: steps.length > 24 ? "lines" : "lines+markers", name: "Ahead",
      legendgroup: "fan", line: { color: c.fan, width: 2 }, marker: { color: c.fan, size: 4 }, hoverinfo: "none",
    },
  ];
}

function axes(c) {
  return {
    gridcolor: c.line, zeroline: false, linecolor: c.line, tickcolor: c.line,
    tickfont: { color: c.muted, size: 11 }, automargin: true,
  };
}

function layout(c, revision) {
  return {
    uirevision: revision, paper_bgcolor: c.surface, plot_bgcolor: c.surface,
    font: { color: c.ink, family: getComputedStyle(document.body).fontFamily },
    margin: { l: 48, r: 14, t: 6, b: 30 }, showlegend: false,
    // Touching the chart scrolls the page; a mouse zooms.
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    modebar: { bgcolor: "rgba(0,0,0,0)", color: c.muted, activecolor: c.ink },
  };
}

/** Readings with band, and below them the residuals. `past` is what series.js keeps. */
export function history(past, cursor, revision) {
  const c = colours();
  const { readings, ahead, steps, episodes } = past;
  const newest = readings.at(-1);
  const most = reach(readings);
  const narrow = matchMedia("(max-width: 760px)").matches;
  const onTime = readings.filter((r) => !r.late);
  const flagged = onTime.filter((r) => r.flagged);
  const usual = reach(onTime) / 2.5;

  const data = [
    area(ahead, most, "q05", "q95", translucent(c.band, 0.2), {
      name: narrow ? "90, 50 %" : "90 % and 50 % interval", legendgroup: "band",
    }),
    area(ahead, most, "q25", "q75", translucent(c.band, 0.32), { showlegend: false, legendgroup: "band" }),
    {
      ...line(ahead, most, (f) => f.q50), name: narrow ? "Forecast" : "Forecast one step before",
      line: { color: c.band, width: 1.2 }, hoverinfo: "none",
    },
    ...(newest && steps.length ? fan(c, steps, newest) : []),
    {
      ...line(onTime, most, (r) => r.value), mode: onTime.length > 150 ? "lines" : "lines+markers", name: "Readings",
      line: { color: c.reading, width: 1.7 }, marker: { color: c.reading, size: 4 }, hoverinfo: "none",
    },
  ];
  const dots = (points, y, name, marker, extra) => points.length && data.push({
    x: points.map((r) => r.at), y: points.map(y), mode: "markers", name, marker, hoverinfo: "none", ...extra,
  });
  // A line of one point is not seen.
  dots(alone(onTime, most), (r) => r.value, "", { color: c.reading, size: 4 }, { showlegend: false });
  dots(readings.filter((r) => r.late), (r) => r.value, "Came late", { symbol: "circle-open", color: c.muted, size: 6 });
  dots(flagged, (r) => r.value, "Flagged", { color: c.alarm, size: 8, line: { color: c.surface, width: 1.5 } });

  // Residuals: bars from zero, and the half widths of the interval as a band around it.
  const judged = onTime.filter((r) => r.forecast);
  const band = judged.map(({ at, forecast: f }) => ({ at, low: f.q05 - f.q50, high: f.q95 - f.q50 }));
  const below = { xaxis: "x", yaxis: "y2", showlegend: false };
  data.push(area(band, most, "low", "high", translucent(c.band, 0.14), below));
  data.push({
    type: "bar", x: judged.map((r) => r.at), y: judged.map((r) => r.value - r.forecast.q50), hoverinfo: "none",
    width: Number.isFinite(usual) ? 0.8 * usual : undefined,
    marker: { color: judged.map((r) => (r.flagged ? c.alarm : c.muted)), line: { width: 0 } }, ...below,
  });

  const first = readings[0]?.at ?? 0, edge = newest?.at ?? 0;
  const shapes = episodes.filter((e) => readings.length && e.end > first).map((e) => ({
    type: "rect", yref: "paper", y0: 0, y1: 1, layer: "below", line: { width: 0 },
    x0: Math.max(e.at, first), x1: Math.min(e.end, Math.max(edge, e.at + (Number.isFinite(usual) ? usual : 0))),
    fillcolor: e.kind === "silence" ? translucent(c.muted, 0.16) : translucent(c.alarm, 0.1),
  }));
  shapes.push({
    type: "line", xref: "paper", x0: 0, x1: 1, yref: "y2", y0: 0, y1: 0, line: { color: c.line, width: 1 },
  });
  if (cursor) {
    shapes.push({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: cursor.at, x1: cursor.at,
      line: { color: c.ink, width: 1, dash: "dot" },
    });
  }
  const title = (text) => ({ text, font: { size: 11, color: c.muted }, standoff: 6 });
  return {
    data,
    layout: {
      ...layout(c, revision), shapes, barmode: "overlay", hovermode: "x", showlegend: true,
      legend: {
        bgcolor: "rgba(0,0,0,0)", orientation: "h", x: 0, y: 1.01, yanchor: "bottom", itemsizing: "constant",
        font: { color: c.muted, size: narrow ? 11 : 12 },
      },
      xaxis: { ...axes(c), type: "date", anchor: "y2", nticks: narrow ? 4 : undefined },
      yaxis: { ...axes(c), domain: [0.33, 1], nticks: 6 },
      yaxis2: { ...axes(c), domain: [0, 0.25], nticks: 3, title: narrow ? undefined : title("Residual") },
    },
  };
}

/** The forecast ahead by itself, behind the last readings. */
export function horizon(past, revision) {
  const c = colours();
  const { readings, steps } = past;
  const onTime = readings.filter((r) => !r.late);
  const newest = onTime.at(-1), most = reach(onTime);
  const before = onTime.slice(-Math.max(6, Math.min(36, 2 * steps.length)));
  return {
    data: [
      ...(newest && steps.length ? fan(c, steps, newest) : []),
      { ...line(before, most, (r) => r.value), line: { color: c.reading, width: 1.7 }, hoverinfo: "none" },
      {
        x: alone(before, most).map((r) => r.at), y: alone(before, most).map((r) => r.value), mode: "markers",
        marker: { color: c.reading, size: 5 }, hoverinfo: "none",
      },
    ],
    layout: {
      ...layout(c, revision), dragmode: false, hovermode: false,
      xaxis: { ...axes(c), type: "date", nticks: 5, fixedrange: true },
      yaxis: { ...axes(c), nticks: 5, fixedrange: true },
    },
  };
}

export const config = {
  responsive: true,
  displaylogo: false,
  displayModeBar: matchMedia("(pointer: coarse)").matches ? false : "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
};
