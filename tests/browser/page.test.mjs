// The live page, as people see and use it. Each test leaves the page as the next one may find it.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { open, Rig, until } from "./rig.mjs";
import { DEVICES, HISTORY, HOSTILE, key, Sensors, SITES } from "./sensors.mjs";

const SERIES = SITES * DEVICES;
const TOKEN = "0123456789abcdef0123456789abcdef";
const FLAGGED = key(3, 2), SILENT = "pulse/pump/value";

let rig, sensors, daemon, browser, page, context, complaints;

const shot = (name, of = page, options = {}) =>
  process.env.SCREENSHOTS && of.screenshot({ path: join(process.env.SCREENSHOTS, `${name}.png`), ...options });
const rows = () => page.$$eval("#rows tr", (all) => all.map((tr) => ({
  key: tr.querySelector("a").title, attention: tr.dataset.attention, text: tr.innerText,
})));
const focused = () => page.evaluate(() => document.activeElement?.title || document.activeElement?.id);
const text = (id, of = page) => of.locator(`#${id}`).innerText();
const fits = (of) => of.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
const trends = (of, count) => of.$$eval("#rows path", (all, count) =>
  all.slice(0, count).every((p) => p.getAttribute("d")), count);
const api = async (path) => (await fetch(`${daemon.url}api/v1/${path}`)).json();
const goTo = async (series) => {
  await page.evaluate((key) => { location.hash = encodeURIComponent(key); }, series);
  await page.waitForSelector("#series:not([hidden]) #chart .main-svg");
};
const goHome = async () => {
  await page.evaluate(() => { location.hash = ""; });
  await page.waitForSelector("#overview:not([hidden]) #rows tr");
};

before(async () => {
  rig = await Rig.start();
  daemon = await rig.daemon("main");
  sensors = new Sensors(rig.sensors);
  const pulse = (async () => {
    for (let n = 0; n < 25; n += 1) {
      await sensors.send("pulse/pump", String(n % 3));
      await sleep(300);
    }
  })();
  const sent = await sensors.past();
  await pulse;
  await until("the readings to be stored", async () => {
    const metrics = await (await fetch(`${daemon.url}metrics`)).text();
    return Number(/^vidente_readings_stored_total (\d+)/m.exec(metrics)?.[1]) >= sent + 25;
  });
  await rig.vidente("train", "--config", daemon.config, "--stream", "climate");
  await until("the model to be in", async () =>
    (await api(`series/${FLAGGED}`)).experts.some((expert) => expert.name === "network 1"));
  await sensors.next(3, 2, 400);
  await until("the silence", async () => (await api("overview?search=pulse")).series[0].attention === "silent");
  browser = await rig.browser();
  ({ page, context, complaints } = await open(browser, daemon.url));
  await page.waitForSelector("#rows tr");
}, { timeout: 600_000 });

after(async () => {
  await rig?.close();
});

test("what needs attention comes first, and all is counted", async () => {
  await until("the order", async () => (await rows())[1]?.key === SILENT);
  const shown = await rows();
  assert.equal(shown[0].key, FLAGGED);
  assert.deepEqual(shown.slice(0, 2).map((r) => r.attention), ["flagged", "silent"]);
  assert.match(shown[0].text, /flagged/);
  assert.match(shown[1].text, /silent/);
  assert.equal(shown.length, 50);
  assert.equal(await text("total-series"), String(SERIES + HOSTILE.length + 1));
  assert.equal(await text("total-flagged"), "1");
  assert.equal(await text("total-silent"), "1");
  assert.match(await text("streams"), /climate[\s\S]*pulse/);
  assert.equal(await text("status"), "Live");
  await until("the trends in sight", () => trends(page, 8));
  await shot("overview-light");
});

test("search, order and pages", async () => {
  await page.fill("#search", "SITE7/ temp");
  await until("the search", async () => (await rows()).length === DEVICES);
  assert.ok((await rows()).every((r) => r.key.startsWith("climate/site7/")));
  assert.match(await text("count"), new RegExp(`${DEVICES} of ${SERIES + HOSTILE.length + 1}`));
  await page.fill("#search", "no such thing");
  await page.waitForFunction(() => document.getElementById("empty").textContent.includes("No series matches"));
  await page.press("#search", "Escape");
  await until("all of them", async () => (await rows()).length === 50);

  await page.selectOption("#sort", "key");
  const names = (await api("overview?sort=key&limit=500")).series.map((s) => s.key);
  await until("the order of names", async () => (await rows())[0]?.key === names[0]);
  await page.click("#after");
  await until("the second page", async () => (await rows())[0]?.key === names[50]);
  assert.match(await text("place"), new RegExp(`51 to 100 of ${names.length}`));
  await page.selectOption("#sort", "error");
  await until("the worst", async () => {
    const errors = (await api("overview?sort=error&limit=50")).series;
    return (await rows())[0]?.key === errors[0].key && errors[0].relative_error >= errors[49].relative_error;
  });
  await page.selectOption("#sort", "attention");
  await until("the first order", async () => (await rows())[0]?.key === FLAGGED);
});

test("the keyboard is enough", async () => {
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("/");
  assert.equal(await focused(), "search");
  await page.keyboard.type("site5");
  await until("the search", async () => (await rows()).every((r) => r.key.includes("site5")));
  await page.keyboard.press("ArrowDown");
  const found = (await rows()).map((r) => r.key);
  assert.equal(await focused(), found[0]);
  await page.keyboard.press("j");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("k");
  assert.equal(await focused(), found[1]);
  const outline = await page.$eval("#rows tr:focus-within", (tr) => getComputedStyle(tr).outlineStyle);
  assert.equal(outline, "solid", "the focus is seen");
  await page.keyboard.press("Enter");
  await page.waitForSelector("#series:not([hidden]) #chart .main-svg");
  assert.equal(await page.title(), `${found[1]} · Vidente`);
  assert.equal(await focused(), "name");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#overview:not([hidden])");
  assert.equal(await focused(), found[1], "back where it was");
  assert.equal(await page.inputValue("#search"), "site5");
  await page.keyboard.press("?");
  await page.waitForSelector("#help[open]");
  await shot("keys");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#help:not([open])", { state: "attached" });
  await page.keyboard.press("/");
  await page.keyboard.press("Escape");
  await until("the first order", async () => (await rows())[0]?.key === FLAGGED);
  await page.keyboard.press("Escape");
  await page.keyboard.press("n");
  await page.waitForFunction(() => document.getElementById("place").textContent.startsWith("51 "));
  await page.keyboard.press("p");
  await page.waitForFunction(() => document.getElementById("place").textContent.startsWith("1 "));
});

test("news come by themselves, and nothing is asked again and again", async () => {
  await page.evaluate(() => { globalThis.same = true; });
  const asked = [];
  const note = (request) => asked.push(new URL(request.url()).pathname);
  page.on("request", note);
  await page.fill("#search", "site9/dev1/");
  await until("the one", async () => (await rows()).length === 1);
  await sensors.next(9, 1, 23.456);
  await until("the reading", async () => /23\.4/.test((await rows())[0]?.text));
  await sensors.next(9, 1, -700);
  await until("the flag", async () => (await rows())[0]?.attention === "flagged");
  await page.waitForSelector("#recent li.began");
  assert.match(await text("recent"), /site9 \/ dev1 \/ temperature is flagged/);
  assert.equal(await text("total-flagged"), "2");
  await sleep(3000);
  page.off("request", note);
  assert.equal(asked.filter((path) => path === "/api/v1/events").length, 1, asked.join(" "));
  assert.ok(!asked.includes("/api/v1/series") && !asked.includes("/api/v1/overview"), asked.join(" "));
  assert.equal(await page.evaluate(() => globalThis.same), true, "it was not loaded anew");
  await page.press("#search", "Escape");
  await until("the newest trouble first", async () => (await rows())[0]?.key === key(9, 1));
  await shot("overview-news");
});

test("one series, with all that is known of it", async () => {
  await goTo(FLAGGED);
  await page.waitForSelector("#state:not([hidden])");
  assert.match(await text("state"), /flagged/);
  assert.match(await text("labels"), /climate · device dev2 · site site3/);
  assert.match(await text("fact-last"), /^400/);
  await until("the table ahead", async () => (await page.$$("#steps tr")).length === 12);
  const legend = await page.$$eval("#chart .legendtext", (all) => all.map((t) => t.textContent));
  for (const name of ["Readings", "Forecast one step before", "90 % and 50 % interval", "Ahead", "Flagged"]) {
    assert.ok(legend.includes(name), `${name} in ${legend}`);
  }
  const drawn = await page.evaluate(() => {
    const chart = document.getElementById("chart");
    const of = (name) => chart.data.find((t) => t.name === name);
    return {
      readings: of("Readings").y.filter((y) => y !== null).length,
      flagged: of("Flagged").y,
      residuals: chart.data.some((t) => t.type === "bar" && t.x.length > 100),
      shaded: chart.layout.shapes.filter((s) => s.type === "rect").length,
      fan: document.getElementById("fan").data.length,
    };
  });
  assert.deepEqual(drawn, { readings: HISTORY + 1, flagged: [400], residuals: true, shaded: 1, fan: 6 });

  const answer = await api(`series/${FLAGGED}`);
  // The axis shows the viewer's own time: it ends with the fan, twelve minutes after the last reading.
  const end = await page.evaluate(() => document.getElementById("chart").layout.xaxis.range[1]);
  const ahead = Date.parse(`${end.replace(" ", "T")}+01:00`) - Date.parse(answer.readings.at(-1).time);
  assert.ok(ahead > 0 && ahead < 40 * 60_000, `${end} is ${ahead} ms after the last reading`);
  const best = [...answer.experts].sort((a, b) => b.weight - a.weight);
  assert.ok(Math.abs(best.reduce((sum, e) => sum + e.weight, 0) - 1) < 1e-3);
  assert.match((await page.$$eval("#experts li", (all) => all.map((li) => li.innerText)))[0], new RegExp(best[0].name));
  assert.equal((await page.$$("#experts li")).length, best.length);
  assert.ok(best.some((e) => e.name === "network 1"), "a model was trained");
  assert.equal(answer.models[0].name, "climate-1");
  assert.match(await text("models"), /climate-1[\s\S]*since/);
  assert.match(await text("anomalies"), /Value 400[\s\S]*lasts[\s\S]*expected/);
  await shot("series-light", page, { fullPage: true });
});

test("the crosshair follows keys and pointer, and a table has the same figures", async () => {
  await page.focus("#chart");
  await page.keyboard.press("End");
  await until("the last reading", async () => /reading 400.*residual.*flagged/.test(await text("readout")));
  const last = await text("readout");
  await page.keyboard.press("ArrowLeft");
  await page.waitForFunction((last) => document.getElementById("readout").textContent !== last, last);
  assert.match(await text("readout"), /forecast [\d.]+ · 90 %: [\d.]+ to [\d.]+ · residual/);
  const box = await page.locator("#chart .draglayer .xy").boundingBox();
  const kept = await text("readout");
  await page.mouse.move(box.x + box.width / 3, box.y + box.height / 2);
  await page.waitForFunction((kept) => document.getElementById("readout").textContent !== kept, kept);
  await page.click("#figures summary");
  await page.waitForSelector("#figures-rows tr");
  const [first] = await page.$$eval("#figures-rows tr", (all) => all.map((tr) => tr.innerText));
  assert.match(first, /400[\s\S]*flagged/);
  await page.click("#figures summary");
});

test("one series goes on by itself", async () => {
  await goTo(key(11, 3));
  const drawn = () => page.evaluate(() =>
    document.getElementById("chart").data?.find((t) => t.name === "Readings")?.y.filter((y) => y !== null) ?? []);
  await until("its history", async () => (await drawn()).length > 100);
  const asked = [];
  const note = (request) => asked.push(new URL(request.url()).pathname);
  page.on("request", note);
  await sensors.next(11, 3, 21.987);
  await page.waitForFunction(() => /^21\.9|^22/.test(document.getElementById("fact-last").textContent));
  await until("the drawing", async () => (await drawn()).at(-1) === 21.987);
  assert.equal(await page.$$eval("#steps tr", (all) => all.length), 12);
  page.off("request", note);
  assert.ok(!asked.includes("/api/v1/events"), "the same stream tells it");
  await page.selectOption("#history", "100");
  await until("fewer readings", async () => (await drawn()).length === 100);
  await page.selectOption("#history", "300");
  await until("all readings", async () => (await drawn()).length > 100);
  await shot("series-usual", page, { fullPage: true });
});

test("names are text, whatever they say", async () => {
  await goHome();
  await page.fill("#search", "hostile");
  await until("the hostile", async () => (await rows()).length === HOSTILE.length);
  await shot("hostile");
  for (const { key } of await rows()) {
    await page.locator(`#rows a[title=${JSON.stringify(key)}]`).click();
    await page.waitForSelector("#series:not([hidden]) #chart .main-svg");
    assert.equal(await page.title(), `${key.replace(/\s+/g, " ").trim()} · Vidente`);
    await until(`the steps of ${key}`, async () => (await page.$$("#steps tr")).length === 12);
    assert.ok(await fits(page) <= 0, `${key} is too wide`);
    await page.keyboard.press("Escape");
    await page.waitForSelector("#overview:not([hidden]) #rows tr");
  }
  assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
  assert.equal(await page.$$eval("main script, main img, main iframe", (all) => all.length), 0);
  await page.fill("#search", "");
  await until("all of them", async () => (await rows()).length === 50);
});

test("dark and light, as the system or as chosen", async () => {
  const ground = (of) => of.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground(page);
  await page.emulateMedia({ colorScheme: "dark" });
  await until("dark", async () => (await ground(page)) !== light);
  const dark = await ground(page);
  await page.evaluate(() => scrollTo(0, 0));
  await shot("overview-dark");
  await goTo(FLAGGED);
  const paper = () => page.evaluate(() => document.getElementById("chart").layout.paper_bgcolor);
  await until("a dark chart", async () => (await paper()) === "#151c25");
  await until("the fan", async () => (await page.$$("#steps tr")).length === 12);
  await shot("series-dark", page, { fullPage: true });
  await page.click("#theme");
  assert.equal(await ground(page), light);
  await until("a light chart", async () => (await paper()) === "#ffffff");
  await page.reload();
  assert.equal(await ground(page), light, "the choice is kept");
  await page.evaluate(() => document.activeElement.blur());
  await page.keyboard.press("t");
  assert.equal(await ground(page), dark);
  await page.keyboard.press("t");
  assert.equal(await ground(page), dark, "as the system");
  await page.emulateMedia({ colorScheme: "light" });
  await until("light as the system", async () => (await ground(page)) === light);
  await goHome();
});

test("phones, down to 360 pixels", async () => {
  const phones = [["phone", 390, 844, "light"], ["phone-dark", 390, 844, "dark"], ["narrow", 360, 640, "light"]];
  for (const [name, width, height, colorScheme] of phones) {
    const phone = await open(browser, daemon.url, {
      viewport: { width, height }, isMobile: true, hasTouch: true, deviceScaleFactor: 2, colorScheme,
    });
    await phone.page.waitForSelector("#rows tr");
    await shot(`${name}-overview`, phone.page);
    await phone.page.locator("#rows tr").nth(2).scrollIntoViewIfNeeded();
    await until("the trends", () => trends(phone.page, 3));
    assert.ok(await fits(phone.page) <= 0, `overview at ${width}`);
    await phone.page.tap("#rows tr:first-child");
    await phone.page.waitForSelector("#series:not([hidden]) #chart .main-svg");
    await until("the fan", async () => (await phone.page.$$("#steps tr")).length === 12);
    assert.ok(await fits(phone.page) <= 0, `series at ${width}`);
    await shot(`${name}-series`, phone.page, { fullPage: true });
    assert.deepEqual(phone.complaints, []);
    await phone.context.close();
  }
});

test("the token is asked for, kept in the tab, and forgotten when it is wrong", async () => {
  const file = join(rig.dir, "token");
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
  const locked = await rig.daemon("locked", `token_file = "${file}"\n`);
  await sensors.next(0, 0, 20);
  const { page: tab, complaints: said } = await open(browser, locked.url);
  await tab.waitForSelector("#login:not([hidden])");
  assert.equal(await tab.$$eval("#rows tr", (all) => all.length), 0);
  assert.ok(await tab.isHidden("#overview"));
  await tab.fill("#token", "0123456789abcdef0123456789abcdeX");
  await tab.press("#token", "Enter");
  await tab.waitForSelector("#login-note:not([hidden])");
  await shot("token", tab);
  await tab.fill("#token", TOKEN);
  await tab.press("#token", "Enter");
  await tab.waitForSelector("#rows tr");
  assert.equal(await text("status", tab), "Live");
  await tab.click("#rows a");
  await tab.waitForSelector("#series:not([hidden])");
  await tab.reload();
  await until("the series", async () => /just|ago/.test(await text("fact-age", tab)));
  assert.ok(await tab.isHidden("#login"), "the tab keeps it");
  const others = said.filter((line) => !/401/.test(line));
  assert.deepEqual(others, []);
  await tab.context().close();
});

test("a daemon that goes away and comes back is noticed", async () => {
  const other = await rig.daemon("other", '[[stream]]\nname = "misspelt"\ntopic = "nowhere/{device}"\n');
  await sensors.next(1, 1, 20);
  const { page: tab } = await open(browser, other.url);
  await tab.waitForSelector("#rows tr");
  await until("the stream of which nothing came", async () =>
    /misspelt\s+Nothing heard on its topic/.test(await text("streams", tab)));
  assert.equal((await text("streams", tab)).match(/Nothing heard/g).length, 2, "nor of pulse, but of climate");
  const begun = Date.now();
  other.process.child.kill("SIGTERM");
  assert.equal(await other.process.ended, 0);
  assert.ok(!/cut off/.test(other.process.log()), "pages do not hold up the end");
  assert.ok(Date.now() - begun < 15_000);
  await tab.waitForSelector('#status[data-state="lost"]');
  rig.run("other", process.env.VIDENTE, ["run", "--config", other.config]);
  await tab.waitForSelector('#status[data-state="live"]', { timeout: 60_000 });
  await tab.context().close();
});

test("a page that is not seen listens to nothing", async () => {
  const asked = [];
  const note = (request) => asked.push(new URL(request.url()).pathname);
  const gone = page.waitForEvent("requestfailed", (r) => r.url().includes("/events"));
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { get: () => true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await gone;
  page.on("request", note);
  await page.evaluate(() => {
    delete document.hidden;
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await until("it to listen again", () => asked.includes("/api/v1/events"));
  page.off("request", note);
});

test("nothing was complained about", async () => {
  assert.deepEqual(await page.evaluate(() => globalThis.violations), []);
  assert.deepEqual(complaints, []);
  await context.close();
});
