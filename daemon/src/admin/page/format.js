// Small helpers: elements, numbers, times. Whatever comes from the API is written as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function element(tag, className, ...children) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

// Numbers with as many decimals as the width of the interval makes meaningful.
export function formatter(width) {
  const plain = new Intl.NumberFormat(undefined, { maximumSignificantDigits: 5 });
  const huge = new Intl.NumberFormat(undefined, { notation: "scientific", maximumSignificantDigits: 5 });
  let format = plain;
  if (width > 0 && Number.isFinite(width)) {
    const digits = Math.min(6, Math.max(0, Math.ceil(1 - Math.log10(width))));
    format = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  }
  return (v) => (!Number.isFinite(v) ? "–" : Math.abs(v) >= 1e9 ? huge.format(v) : format.format(v));
}

export const count = (n) => n.toLocaleString();
export const percent = (share) => `${Math.round(100 * share)} %`;

/** Error over the naive forecast's as a change: −23 %. */
export function change(relative) {
  const shown = Math.round(100 * (relative - 1));
  if (!Number.isFinite(shown) || relative === null) return { text: "–", sign: 0 };
  if (shown > 900) return { text: `× ${count(Math.round(relative))}`, sign: 1 };
  return { text: `${shown > 0 ? "+" : shown < 0 ? "−" : "±"}${Math.abs(shown)} %`, sign: Math.sign(shown) };
}

const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });

export const moment = (at) => full.format(at);
/** Without the day where it is near. */
export const clock = (at) => (Math.abs(at - Date.now()) < 43_200_000 ? time : full).format(at);
export const date = (at) => day.format(at);

export function span(ms) {
  const seconds = Math.max(0, ms / 1000);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86_400)} days`;
}

export function age(time) {
  const at = Date.parse(time), ms = Date.now() - at;
  return ms < 172_800_000 ? `${span(ms)} ago` : day.format(at);
}

/** A key as people read it: where, what, and the stream. */
export function parts(key) {
  const levels = key.split("/").map((level) => {
    try { return decodeURIComponent(level); } catch { return level; }
  });
  return { stream: levels[0], where: levels.slice(1, -1).join(" / "), field: levels.at(-1) };
}
