// The live page: what is shown, the token, the theme, the keys.

import { hasToken, keepToken } from "./api.js";
import { $, setText } from "./format.js";
import * as overview from "./overview.js";
import * as series from "./series.js";

let key = "";

// Where we are: a series' key stands after the #.

function wanted() {
  try { return decodeURIComponent(location.hash.slice(1)); } catch { return ""; }
}

function go() {
  const before = key;
  key = wanted();
  document.title = key ? `${key} · Vidente` : "Vidente";
  show();
  if (key && key !== before) {
    scrollTo(0, 0);
    $("name").focus({ preventScroll: true });
  } else if (!key && before) {
    overview.focus(before);
  }
}

/** Listens to what is in sight, and to nothing while the page is hidden or the token is missing. */
function show() {
  const locked = !$("login").hidden;
  $("overview").hidden = locked || Boolean(key);
  $("series").hidden = locked || !key;
  const seen = !document.hidden && !locked;
  if (seen && !key) overview.start(hear); else overview.stop();
  if (seen && key) series.start(key, hear); else series.stop();
}

const hear = {
  open: () => status("live", "Live"),
  lost(error) {
    if (error.status === 401) {
      askForToken();
      status("wait", "Waiting for the token");
    } else if (error.status) {
      status("wait", error.message);
    } else {
      status("lost", "Connection lost, trying again");
    }
  },
};

function status(state, text) {
  $("status").dataset.state = state;
  setText($("status"), text);
}

// Whether store and broker are there is not told by events.
const READY_EVERY = 10_000;
async function lookReady() {
  const state = $("status").dataset.state;
  if (!document.hidden && (state === "live" || state === "away")) {
    try {
      const ready = await (await fetch("ready")).json();
      if ($("status").dataset.state === state) {
        if (!ready.ready) status("away", `Waiting: ${ready.missing.join(", ")}`);
        else if (!ready.store_up) status("away", "The store is away, forecasting goes on");
        else if (!ready.mqtt_connected) status("away", "The broker is away");
        else status("live", "Live");
      }
    } catch { /* the events tell that the connection is lost */ }
  }
  setTimeout(lookReady, READY_EVERY);
}

// The token

function askForToken() {
  $("login-note").hidden = !hasToken();
  keepToken("");
  $("login").hidden = false;
  show();
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
  keepToken(given);
  $("token").value = "";
  $("login").hidden = true;
  status("wait", "Connecting");
  show();
});

// The theme

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

function showTheme() {
  const [sign, name] = THEMES[window.theme.chosen()];
  setText($("theme"), sign);
  $("theme").title = `Colours: ${name} (t)`;
  $("theme").setAttribute("aria-label", `Colours: ${name}. Change`);
}

function nextTheme() {
  const names = Object.keys(THEMES);
  window.theme.choose(names[(names.indexOf(window.theme.chosen()) + 1) % names.length]);
}

$("theme").addEventListener("click", nextTheme);
addEventListener("theme", () => {
  showTheme();
  series.redraw();
});
showTheme();

// Keys

function openHelp() {
  if (!$("help").open) $("help").showModal();
}
$("help-button").addEventListener("click", openHelp);
$("skip").addEventListener("click", (event) => {
  // The # is for series.
  event.preventDefault();
  $("main").focus();
});

const isField = (target) => target instanceof HTMLElement && target.matches("input, select, textarea");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const field = isField(event.target);
  if (event.key === "Escape") {
    if (key) location.hash = "";
    else if (event.target === $("search")) overview.leaveSearch();
    else return;
  } else if (field) {
    if (event.target !== $("search") || !["ArrowDown", "Enter"].includes(event.key) || !overview.move(1)) return;
  } else if (event.key === "?") {
    openHelp();
  } else if (event.key === "t") {
    nextTheme();
  } else if (key || !$("login").hidden || !overview.press(event.key)) {
    return;
  }
  event.preventDefault();
});

document.addEventListener("visibilitychange", show);
addEventListener("hashchange", go);
go();
setTimeout(lookReady, 1000);
