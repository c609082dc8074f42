// Looks at each page of the book, and at some of its sources, in a real browser, as wide as a phone and in the dark theme:
// nothing may be cut off or scroll sideways, and no picture may be a light box or have text too small to read.
// Usage: node look.mjs BOOK [SCREENSHOTS]

import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";

import { chromium } from "playwright-core";

import { serve } from "./serve.mjs";

const [root, screenshots] = process.argv.slice(2);
const WIDTH = 390;
const TEXT_MIN_PX = 10;
// Tables of figures with more columns than a phone has room for scroll within themselves. More of them would be a decision.
const TABLES_MAX = 12;

/** Every page but those that only lead to another one, and the whole book as one page, which opens a dialog to print it. */
const all = fs
  .readdirSync(root, { recursive: true })
  .filter((name) => name.endsWith(".html") && !["print.html", "404.html", "toc.html"].includes(name))
  .filter((name) => !fs.readFileSync(path.join(root, name), "utf8").includes('http-equiv="refresh"'))
  .sort();
// The pages of sources are made alike: the longest of each kind stands for the others.
const longest = {};
for (const name of all.filter((name) => name.startsWith("source/"))) {
  const kind = path.extname(path.basename(name, ".html"));
  const size = fs.statSync(path.join(root, name)).size;
  if (size > (longest[kind]?.size ?? 0)) longest[kind] = { name, size };
}
const pages = [...all.filter((name) => !name.startsWith("source/")), ...Object.values(longest).map(({ name }) => name)];
assert.ok(all.length > 100 && pages.length > 40, `the book has ${all.length} pages`);

const { server, base } = await serve(root);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] });
const context = await browser.newContext({ viewport: { width: WIDTH, height: 844 }, colorScheme: "dark" });
const page = await context.newPage();
page.setDefaultTimeout(15_000);

let problems = [];
page.on("console", (message) => {
  // The script in a flamegraph takes its margins off a width that is 0 while a screenshot changes the size of the page.
  if (/width: A negative value/.test(message.text()) && message.location().url.includes("/flamegraph/")) return;
  problems.push(`${message.type()}: ${message.text()}`);
});
page.on("pageerror", (error) => problems.push(error.message));
page.on("response", (response) => response.status() >= 400 && problems.push(`${response.status()}: ${response.url()}`));

/** What is wrong with the page as it is laid out. */
function layout() {
  const told = (element) => `${element.tagName.toLowerCase()} "${element.textContent.trim().slice(0, 40)}"`;
  const isCut = (element) => element.scrollWidth > element.clientWidth + 1;
  const problems = [];
  if (isCut(document.documentElement)) problems.push(`the page is ${document.documentElement.scrollWidth} pixels wide`);
  for (const element of document.querySelectorAll("pre, pre > code")) {
    if (isCut(element)) problems.push(`scrolls sideways: ${told(element)}`);
    // What a selection gives, and what the button beside a block copies.
    getSelection().selectAllChildren(element);
    for (const copied of [getSelection().toString(), element.innerText]) {
      if (copied.trim() !== element.textContent.trim()) problems.push(`is copied as something else: ${told(element)}`);
    }
  }
  const marked = /\bANCHOR(_END)?: \w+$/m.exec(document.body.textContent);
  if (marked) problems.push(`the mark of an excerpt: ${marked[0]}`);
  const tables = [...document.querySelectorAll(".table-wrapper, .wide")].filter(isCut).length;
  return { problems, tables };
}

/** Text of a drawing that is too small as it is shown. */
async function smallText([textMinPx]) {
  const problems = [];
  for (const image of document.querySelectorAll('img[src$=".svg"]')) {
    // mdBook has another one, to be shown when the first is clicked.
    if (!image.checkVisibility()) continue;
    const drawing = new DOMParser().parseFromString(await (await fetch(image.src)).text(), "image/svg+xml");
    const width = Number(drawing.documentElement.getAttribute("viewBox").split(" ")[2]);
    const sizes = [...drawing.documentElement.outerHTML.matchAll(/font(?:-size)?(?:=|:)[ "]*(\d+)(?:px|")/g)].map(([, size]) => Number(size));
    const px = (Math.min(...sizes) * image.clientWidth) / width;
    if (!(px >= textMinPx)) problems.push(`${image.src} has text of ${px.toFixed(1)} pixels`);
  }
  return problems;
}

/** The share of the border of a picture, 4 pixels within, that is light: near 1 for one that has a light ground of its own. */
async function lightShare(png) {
  const bitmap = await createImageBitmap(await (await fetch(`data:image/png;base64,${png}`)).blob());
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
  canvas.drawImage(bitmap, 0, 0);
  const points = [];
  for (let x = 4; x < bitmap.width - 4; x += 4) points.push([x, 4], [x, bitmap.height - 5]);
  for (let y = 4; y < bitmap.height - 4; y += 4) points.push([4, y], [bitmap.width - 5, y]);
  const light = points.filter(([x, y]) => {
    const [red, green, blue] = canvas.getImageData(x, y, 1, 1).data;
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 150;
  });
  return light.length / points.length;
}

let [tables, pictures] = [0, 0];
const failed = [];
for (const name of pages) {
  problems = [];
  await page.goto(base + name);
  // The network of the machine has changed meanwhile, which is no fault of the page.
  if (problems.some((problem) => problem.includes("ERR_NETWORK_CHANGED"))) {
    problems = [];
    await page.goto(base + name);
  }
  // page.js puts each of them into a frame.
  await page.waitForFunction(() => !document.querySelector('.content img[src*="flamegraph/"]'));
  const found = await page.evaluate(layout);
  tables += found.tables;
  problems.push(...found.problems, ...(await page.evaluate(smallText, [TEXT_MIN_PX])));
  for (const picture of await page.locator("img:visible, iframe:visible").all()) {
    pictures++;
    const png = (await picture.screenshot()).toString("base64");
    const share = await page.evaluate(lightShare, png);
    if (share > 0.5) problems.push(`a light box on a dark page: ${await picture.evaluate((element) => element.src)}`);
  }
  if (screenshots) await page.screenshot({ path: path.join(screenshots, `${name.replaceAll(/\W+/g, "-")}.png`), fullPage: true });
  failed.push(...problems.map((problem) => `${name}: ${problem}`));
}
await browser.close();
server.close();

assert.deepEqual(failed, []);
assert.ok(tables <= TABLES_MAX, `${tables} tables scroll sideways`);
assert.ok(pictures >= 15, `the book has ${pictures} pictures`);
console.log(`ok: ${pages.length} pages, ${pictures} pictures, ${tables} tables that scroll`);
