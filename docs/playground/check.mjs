// Tries the page in a real browser: each button, each slider, each tour to its end, the hash of seeds, a link that replays,
// the keyboard, what a screen reader needs, the width of a phone, its size. Usage: node check.mjs FOLDER HASHES [SCREENSHOTS]

import assert from "node:assert/strict";
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

import { chromium } from "playwright-core";

import { serve } from "./serve.mjs";

const [root, hashes, screenshots] = process.argv.slice(2);
const SIZE_MAX_BYTES = 1_000_000;
const axe = fs.readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const { server, base: folder } = await serve(root);
const base = `${folder}bank.html`;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
let passed = 0;

/** Opens the page, runs the check, and fails if anything went to the console. */
async function check(name, run, { width = 1280, dark = false, hash = "", query = "?test" } = {}) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme: dark ? "dark" : "light" });
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const problems = [];
  page.on("console", (message) => problems.push(`${message.type()}: ${message.text()}`));
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("requestfailed", (request) => problems.push(`not loaded: ${request.url()}`));
  page.on("response", (response) => response.status() >= 400 && problems.push(`${response.status()}: ${response.url()}`));
  await page.goto(`${base}${query}${hash}`);
  await page.waitForSelector("#bank[aria-busy=false]");
  await run(page);
  assert.deepEqual(problems, [], name);
  if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name.replaceAll(/\W+/g, "-")}.png`), fullPage: true });
  await context.close();
  passed++;
  console.log(`ok: ${name}`);
}

const textOf = (page, selector) => page.locator(selector).innerText();
const stepsOf = async (page) => Number(await textOf(page, "#steps"));
const set = (page, id, value) => page.locator(`#${id}`).fill(`${value}`);

/** Steps until the text of an element fits. */
async function stepUntil(page, selector, wanted) {
  for (let turns = 0; turns < 80; turns++) {
    if (wanted.test(await textOf(page, selector))) return;
    await page.click("#turn");
  }
  assert.fail(`${selector} never shows ${wanted}: ${await textOf(page, selector)}`);
}

// All but the engines with a bug, which are loaded when they are chosen.
const bugs = Object.keys(JSON.parse(fs.readFileSync(path.join(root, "bugs.json"), "utf8")));
const size = fs.readdirSync(root).filter((name) => !bugs.includes(name.replace(".wasm", ""))).reduce((sum, name) => sum + fs.statSync(path.join(root, name)).size, 0);
assert.ok(size < SIZE_MAX_BYTES, `the page has ${size} bytes`);

{
  // From a file, nothing runs but what says so.
  const page = await browser.newPage();
  await page.goto(`file://${path.resolve(root, "bank.html")}`);
  assert.match(await page.locator("#from-disk").innerText(), /http\.server/);
  await page.close();
}

await check("each request is answered", async (page) => {
  for (const [kind, status] of [["credit", "200"], ["statement", "200"], ["malformed", "400"]]) {
    await page.click(`[data-ask=${kind}]`);
    await stepUntil(page, "[data-client='0'] .last", new RegExp(status));
  }
  await page.selectOption("#client", "1");
  await set(page, "cents", 5000);
  await page.click("[data-ask=debit]");
  await stepUntil(page, "[data-client='1'] .last", /422/);
  await page.selectOption("#client", "2");
  await page.check("#bytewise");
  await set(page, "cents", 5);
  await page.click("[data-ask=credit]");
  await page.selectOption("#speed", "time:1");
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("[data-client='2'] .last").textContent === "200");
  await page.click("#run");
  assert.match(await textOf(page, "#check"), /Every check holds/);
  await page.selectOption("#wire-of", "lane 0 0");
  assert.match(await textOf(page, "#messages"), /45 00 00 00 09\s+Execute, 10 bytes[^]*ReadyForQuery, 6 bytes/);
});

await check("what breaks is answered for", async (page) => {
  await page.click("#crowd");
  await page.click("#step");
  await page.selectOption("#client", "1");
  await page.click("#shut");
  await page.selectOption("#client", "2");
  await page.click("#reset");
  await page.click("#stall");
  await page.click("#turn");
  await page.click("#stall");
  for (let steps = 0; steps < 60 && !/works/.test(await textOf(page, "#session-list")); steps++) await page.click("#step");
  await page.click("#hold");
  for (let steps = 0; steps < 60 && !/← \d+ B/.test(await textOf(page, "#instances")); steps++) await page.click("#step");
  await set(page, "bytes", 3);
  await page.click("#pass");
  await page.click("#cut");
  await stepUntil(page, "#answers", /whether it was done is not known/);
  await page.click("#lock");
  await page.click("[data-ask=credit]");
  await stepUntil(page, "#session-list", /waits for the row of account 1/);
  await page.click("#unlock");
  await page.click("#restart");
  await stepUntil(page, "#instances", /Down/);
  await page.click("#stop");
  await page.selectOption("#speed", "time:1");
  await page.click("#run");
  await page.waitForFunction(() => !document.getElementById("start").disabled);
  await page.click("#run");
  await page.click("#start");
  await stepUntil(page, "#instances", /Ready/);
  await page.click("#again");
  assert.match(await textOf(page, "#check"), /Every check holds/);
});

await check("each slider moves the world, also by keyboard", async (page) => {
  for (const id of ["set-clients", "set-load", "set-commit", "set-batch", "set-gather", "set-lanes"]) {
    const before = await textOf(page, `label:has(#${id}) output`);
    await page.focus(`#${id}`);
    await page.keyboard.press("ArrowRight");
    assert.notEqual(await textOf(page, `label:has(#${id}) output`), before, id);
  }
  await set(page, "set-load", 12);
  await page.selectOption("#speed", "time:1");
  await page.click("#run");
  await page.waitForFunction(() => Number(document.getElementById("ledger-rows").textContent) > 200);
  await page.click("#run");
  assert.match(await textOf(page, "#check"), /Every check holds/);
  assert.notEqual(await textOf(page, "#p99"), "–");
});

for (const tour of ["request", "crowd", "commit", "doubt", "deadlock", "overload"]) {
  await check(`tour ${tour}`, async (page) => {
    for (let stops = 1; ; stops++) {
      assert.equal(await page.getAttribute("#tour-say", "data-reached"), "true", `stop ${stops}`);
      const [, at, all] = /(\d+) of (\d+)/.exec(await textOf(page, "#tour-place"));
      assert.equal(Number(at), stops);
      if (at === all) break;
      await page.click("#tour-next:enabled");
      await page.waitForSelector("#tour-next:enabled");
    }
    if (screenshots) await page.screenshot({ path: path.join(screenshots, `last-stop-${tour}.png`), fullPage: true });
    await page.click("#tour-next");
    assert.equal(await page.isVisible("#tour"), false);
  }, { hash: `#tour=${tour}` });
}

/** Steps until the text of an element fits. */
async function smallStepsUntil(page, selector, wanted) {
  for (let steps = 0; steps < 150; steps++) {
    if (wanted.test(await textOf(page, selector))) return;
    await page.click("#step");
  }
  assert.fail(`${selector} never shows ${wanted}: ${await textOf(page, selector)}`);
}

async function ask(page, client, kind, account) {
  await page.selectOption("#client", `${client}`);
  await page.selectOption("#account", `${account}`);
  await page.click(`[data-ask=${kind}]`);
}

// How each bug is found by hand, and by which check.
const HUNTS = {
  "batch-unsorted": ["LockOrder", "lanes=1 batch=2 set=257 clients=2", async (page) => {
    await ask(page, 0, "credit", 2);
    await ask(page, 1, "credit", 1);
  }],
  "batch-unlimited": ["BatchSize|InFlightLimit", "batch=2 clients=8", async (page) => page.click("#crowd")],
  "generation-ignored": ["Accepted|Statement|Status|Refused", "clients=2", async (page) => {
    await ask(page, 0, "credit", 1);
    await smallStepsUntil(page, "#session-list", /not committed/);
    await page.click("#reset");
    for (let steps = 0; steps < 7; steps++) await page.click("#step");
    await ask(page, 1, "statement", 1);
    // The answer of the other client waits in its outbox, until something happens to it.
    for (let turns = 0; turns < 5; turns++) await page.click("#turn");
    await page.click("#shut");
  }],
  "half-close-ends-all": ["Answered", "clients=2", async (page) => {
    await ask(page, 0, "credit", 1);
    await smallStepsUntil(page, "#client-list", /Awaiting/);
    await page.click("#shut");
  }],
  "in-doubt-run-again": ["Once", "clients=2", async (page) => {
    await ask(page, 0, "credit", 1);
    await smallStepsUntil(page, "#session-list", /works, for/);
    await page.click("#hold");
    await smallStepsUntil(page, "#instances", /← \d+ B/);
    await page.click("#cut");
  }],
};
await check("each planted bug is found by hand", async (page) => {
  for (const bug of bugs) {
    const [found, settings, hunt] = HUNTS[bug];
    await page.goto("about:blank");
    await page.goto(`${base}?test#bug=${bug}&run=${encodeURIComponent(settings)}`);
    await page.waitForSelector("#bank[aria-busy=false]");
    assert.equal(await page.inputValue("#bug"), bug);
    await hunt(page);
    for (let turns = 0; turns < 40 && !(await page.isDisabled("#turn")); turns++) await page.click("#turn");
    assert.match(await textOf(page, "#check"), new RegExp(`Check (${found}) failed`), bug);
  }
  await page.selectOption("#bug", "");
  await page.waitForFunction(() => document.getElementById("check").classList.contains("good"));
});

await check("a tour can be left", async (page) => {
  await page.click("[data-tour=crowd]");
  await page.click("#tour-end");
  assert.equal(await page.isVisible("#tour"), false);
});

const seeds = fs.readFileSync(hashes, "utf8").trim().split("\n").map((line) => line.split(" "));
assert.ok(seeds.length >= 3 && seeds.every(([, hash]) => /^[0-9a-f]{16}$/.test(hash)), "the hashes of the simulation");
await check("a seed has the hash that the simulation prints", async (page) => {
  for (const [seed, hash] of seeds) {
    await page.fill("#seed", seed);
    await page.click("#seed-run");
    assert.equal(await textOf(page, "#hash"), hash, `seed ${seed}`);
  }
  await page.click("#seed-watch");
  await page.click("#step");
  assert.equal(await stepsOf(page), 1);
  await page.click("#log summary");
  await page.waitForFunction(() => document.getElementById("told").textContent.includes("LANES"));
});

await check("a link brings to the same step of the same run", async (page) => {
  await page.click("#crowd");
  await set(page, "set-load", 12);
  for (let turns = 0; turns < 12; turns++) await page.click("#turn");
  await page.click("#restart");
  for (let turns = 0; turns < 5; turns++) await page.click("#turn");
  await page.click("#copy");
  const [link, hash, steps] = [await page.inputValue("#link"), await textOf(page, "#hash"), await stepsOf(page)];
  await page.goto("about:blank");
  await page.goto(link);
  await page.waitForSelector("#bank[aria-busy=false]");
  assert.equal(await textOf(page, "#hash"), hash);
  assert.equal(await stepsOf(page), steps);
});

await check("the keyboard is enough", async (page) => {
  // To the first button, and from there through all that can be reached: no trap, and the end is reached.
  const reached = new Set();
  for (let tabs = 0; tabs < 120; tabs++) {
    await page.keyboard.press("Tab");
    const place = await page.evaluate(() => document.activeElement.id || document.activeElement.dataset.client || document.activeElement.dataset.ask || document.activeElement.dataset.tour || document.activeElement.tagName);
    if (place === "BODY") break;
    reached.add(place);
  }
  for (const place of ["step", "run", "tour=request", "0", "credit", "reset", "hold", "stop", "set-gather", "wire-of", "messages", "copy", "seed-run"]) {
    assert.ok(reached.has(place), `Tab does not reach ${place}`);
  }
  await page.focus("#step");
  const before = await stepsOf(page);
  await page.keyboard.press("Enter");
  await page.keyboard.press("Space");
  assert.equal(await stepsOf(page), before + 2);
});

for (const [width, dark] of [[1280, false], [1280, true], [390, false], [390, true]]) {
  await check(`at ${width} pixels, ${dark ? "dark" : "light"}`, async (page) => {
    await page.click("[data-tour=crowd]");
    for (let stops = 0; stops < 4; stops++) {
      await page.click("#tour-next:enabled");
      await page.waitForSelector("#tour-next:enabled");
    }
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${overflow} pixels too wide`);
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => window.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21aa"] }));
    const told = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 120)} ${node.failureSummary}`).join("; ")}`);
    assert.deepEqual(told, []);
  }, { width, dark });
}

await check("in Portuguese, nothing stays in English", async (page) => {
  assert.equal(await textOf(page, "#step"), "Passo");
  assert.equal(await page.getAttribute("html", "lang"), "pt-BR");
  const click = (id, times = 1) => page.evaluate(([id, times]) => {
    for (let count = 0; count < times; count++) document.getElementById(id).click();
  }, [id, times]);
  for (const kind of ["credit", "debit", "statement", "malformed"]) await page.click(`[data-ask=${kind}]`);
  for (const id of ["crowd", "stall", "turn", "stall", "lock", "shut", "hold"]) await click(id);
  await click("step", 150);
  for (const id of ["pass", "hold", "unlock", "reset", "crowd", "restart"]) await click(id);
  await click("turn", 30);
  for (const id of ["crowd", "hold"]) await click(id);
  await click("step", 40);
  for (const id of ["cut", "copy", "run", "run", "stop"]) await click(id);
  await click("turn", 60);
  await click("start");
  await click("turn", 10);
  for (const tour of ["request", "crowd", "commit", "doubt", "deadlock", "overload"]) {
    await page.click(`[data-tour=${tour}]`);
    while (await page.isVisible("#tour")) await page.click("#tour-next:enabled");
  }
  await page.click("#seed-run");
  const untranslated = await page.evaluate(() => [...globalThis.untranslated]);
  assert.deepEqual([...new Set(untranslated.map((text) => text.replaceAll(/\d+/g, "N")))], []);
  await page.click("#language");
  await page.waitForSelector("#bank[aria-busy=false]");
  assert.equal(await textOf(page, "#step"), "Step");
}, { query: "?test&lang=pt-BR" });

await check("in Portuguese at 390 pixels", async (page) => {
  await page.click("[data-tour=doubt]");
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.ok(overflow <= 0, `${overflow} pixels too wide`);
}, { width: 390, query: "?test&lang=pt-BR" });

await browser.close();
server.close();
console.log(`${passed} passed, 0 failed`);
