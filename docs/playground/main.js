// The page: runs the world, and gives its buttons to it. What it shows is in view.js.

import { say, translatePage } from "./language.js";
import { STEPS_MAX, TOURS } from "./tours.js";
import { byId, show, tell, selected } from "./view.js";

const LOADS = [0, 1, 2, 5, 10, 20, 50, 100, 200, 300, 500, 700, 1000, 1500, 2000, 3000, 4000, 5000, 7000, 10000, 20000];
const COMMITS_US = [100, 200, 500, 1000, 1500, 2000, 5000, 10000, 20000, 40000, 50000, 100000, 500000];
/** A frame must end: what it has no time for is left out, and the clock goes slower. */
const STEPS_A_FRAME = 20000;
/** Of those between two stops of a tour. */
const STEPS_SEEN = 12;
/** The world keeps its whole ledger, to judge by it. */
const ROWS_MAX = 300000;

let world;
let settings;
let now;
let isRunning = false;
let tour = null;
let lastFrame = 0;
let owedSteps = 0;
let targetUs = 0;

/** The settings of a run, as the sliders have them. */
function settingsOfSliders() {
  return `clients=${byId("set-clients").value} lanes=${byId("set-lanes").value} batch=${2 ** byId("set-batch").value}`
    + ` gather=${byId("set-gather").value} load=${LOADS[byId("set-load").value]} commit=${COMMITS_US[byId("set-commit").value]}`;
}

/** Moves the sliders to where the world stands. */
function setSliders() {
  if (!now.hand) return;
  const nearest = (values, wanted) => values.reduce((best, value, index) => (Math.abs(value - wanted) < Math.abs(values[best] - wanted) ? index : best), 0);
  const texts = {
    "set-clients": [now.hand.clients, `${now.hand.clients}`],
    "set-load": [nearest(LOADS, now.hand.load), `${now.hand.load}`],
    "set-commit": [nearest(COMMITS_US, now.hand.commit_us), now.hand.commit_us < 1000 ? `${now.hand.commit_us} µs` : `${now.hand.commit_us / 1000} ms`],
    "set-batch": [Math.round(Math.log2(now.config.batch)), `${now.config.batch}`],
    "set-gather": [now.config.gather, `${now.config.gather} ms`],
    "set-lanes": [now.config.lanes, `${now.config.lanes}`],
  };
  for (const [id, [value, text]] of Object.entries(texts)) {
    const slider = byId(id);
    if (document.activeElement !== slider) slider.value = value;
    slider.previousElementSibling.value = text;
    slider.setAttribute("aria-valuetext", text);
  }
}

function look() {
  now = JSON.parse(world.picture());
  show(now, world);
  setSliders();
  byId("link").value = link();
  targetUs = Math.max(targetUs, now.now_us);
}

function link() {
  const base = location.href.split("#")[0];
  const script = world.script();
  const planted = bug && `bug=${bug}&`;
  if (now.seed_world) return `${base}#${planted}seed=${settings.slice("seed ".length)}&at=${now.step}`;
  return `${base}#${planted}run=${encodeURIComponent(settings)}&at=${now.step}${script && `&do=${encodeURIComponent(script)}`}`;
}

/** Begins a world; `words` as in settingsOfSliders, or `seed 7` for that of a seed. */
function begin(words) {
  pause();
  world?.free();
  settings = words;
  world = words.startsWith("seed ") ? Engine.of_seed(BigInt(words.slice(5))) : new Engine(words);
  targetUs = 0;
  if (!words.startsWith("seed ")) {
    // To where the lanes are ready: before that there is little to see.
    for (let steps = 0; steps < 200; steps++) {
      world.run_until(Number.MAX_SAFE_INTEGER, 1);
      now = JSON.parse(world.picture());
      if (now.hand.stage === "" && now.instances[0].lanes.every((lane) => lane.state === "Ready")) break;
    }
  }
  tell(words.startsWith("seed ") ? "The world of the seed, before its first step." : "The lanes have logged in. The server waits for requests.");
  look();
}

function guard(action) {
  try {
    return action();
  } catch (error) {
    pause();
    // The engine stops the module when one of its own assertions fails, which is a finding as well.
    tell(error instanceof WebAssembly.RuntimeError ? "The engine has panicked: an assertion of its own failed. Begin a new run." : `${error.message ?? error}`);
    document.body.classList.toggle("panicked", error instanceof WebAssembly.RuntimeError);
    return undefined;
  }
}

function act(command) {
  return guard(() => {
    world.act(command);
    look();
    return true;
  });
}

function step() {
  guard(() => {
    tell(world.step());
    look();
  });
}

function pause() {
  isRunning = false;
  byId("run").setAttribute("aria-pressed", "false");
  byId("run").textContent = say("Run");
}

function run() {
  isRunning = true;
  lastFrame = performance.now();
  owedSteps = 0;
  targetUs = now.now_us;
  byId("run").setAttribute("aria-pressed", "true");
  byId("run").textContent = say("Pause");
  requestAnimationFrame(frame);
}

function frame(at) {
  if (!isRunning) return;
  // A page that was hidden does not catch up.
  const passedMs = Math.min(Math.max(at - lastFrame, 0), 100);
  lastFrame = at;
  const [kind, rate] = byId("speed").value.split(":");
  guard(() => {
    if (kind === "steps" || now.seed_world) {
      owedSteps += (passedMs / 1000) * (kind === "steps" ? Number(rate) : 1000);
      const steps = Math.floor(owedSteps);
      owedSteps -= steps;
      if (steps > 0) {
        if (steps > 1) world.run_until(Number.MAX_SAFE_INTEGER, steps - 1);
        tell(world.step(), false);
      }
    } else {
      targetUs += passedMs * 1000 * Number(rate);
      const before = now.step;
      world.run_until(targetUs, STEPS_A_FRAME);
      tell("", false);
      if (JSON.parse(world.picture()).step - before >= STEPS_A_FRAME) targetUs = 0;
    }
    look();
  });
  if (now.is_over) {
    pause();
    tell(now.violation ? "A check has failed: nothing more happens." : "The world of the seed is over.");
  } else if (now.ledger_rows > ROWS_MAX) {
    pause();
    tell(`The ledger has ${now.ledger_rows} rows: begin a new run.`);
  }
  if (isRunning) requestAnimationFrame(frame);
}

// ---- tours

async function beginTour(chosen) {
  endTour();
  if (bug) await load();
  begin(chosen.settings);
  tour = { ...chosen, at: -1, isBusy: false };
  byId("tour").hidden = false;
  document.body.classList.add("touring");
  document.querySelector(`[data-tour="${chosen.id}"]`).setAttribute("aria-pressed", "true");
  await nextStop();
}

function endTour() {
  tour = null;
  byId("tour").hidden = true;
  document.body.classList.remove("touring");
  document.querySelectorAll("[data-tour]").forEach((button) => button.setAttribute("aria-pressed", "false"));
  document.querySelectorAll(".looked-at").forEach((element) => element.classList.remove("looked-at"));
}

async function nextStop() {
  const current = tour;
  if (current.isBusy) return;
  if (current.at + 1 === current.stops.length) return void endTour();
  current.at++;
  current.isBusy = true;
  const stop = current.stops[current.at];
  const next = byId("tour-next");
  next.disabled = true;
  byId("tour-place").textContent = say(`${current.at + 1} of ${current.stops.length}`);
  if (stop.bug) {
    await load(stop.bug);
    begin(current.settings);
  }
  for (const command of stop.do ?? []) act(typeof command === "function" ? command(now) : command);
  const isSlow = !matchMedia("(prefers-reduced-motion: reduce)").matches && !isTest;
  let steps = 0;
  while (!stop.until(now) && !now.is_over && steps < STEPS_MAX && tour === current) {
    // The first steps are seen one by one; the rest of a long way is not worth anybody's minute.
    const jump = steps < STEPS_SEEN ? 1 : steps < 10 * STEPS_SEEN ? 4 : 60;
    guard(() => {
      if (jump > 4) world.run_until(Number.MAX_SAFE_INTEGER, jump - 1);
      for (let index = 0; index < Math.min(jump, 4) && !stop.until(now); index++) {
        tell(world.step(), false);
        now = JSON.parse(world.picture());
      }
    });
    steps += jump;
    look();
    if (isSlow) await new Promise((resolve) => setTimeout(resolve, steps < STEPS_SEEN ? 150 : 16));
  }
  if (tour !== current) return;
  look();
  byId("tour-say").textContent = say(stop.say);
  byId("tour-say").dataset.reached = `${Boolean(stop.until(now))}`;
  document.querySelectorAll(".looked-at").forEach((element) => element.classList.remove("looked-at"));
  byId(stop.look)?.classList.add("looked-at");
  byId(stop.look)?.scrollIntoView({ block: "nearest", behavior: isSlow ? "smooth" : "instant" });
  if (stop.wire) {
    byId("wire-of").value = stop.wire;
    show(now, world);
  }
  current.isBusy = false;
  next.disabled = false;
  next.textContent = say(current.at + 1 === current.stops.length ? "Done" : "Next");
}

// ---- what the buttons do

const isTest = new URLSearchParams(location.search).has("test");

const slider = (id, input, isRestart) => {
  byId(id).addEventListener("input", () => {
    if (!now.hand || isRestart) {
      const wasRunning = isRunning;
      endTour();
      begin(settingsOfSliders());
      if (wasRunning) run();
    } else act(input(byId(id).value));
  });
};

function listen() {
  const on = (id, action) => byId(id).addEventListener("click", action);
  on("step", step);
  on("turn", () => guard(() => {
    const before = now.turn;
    for (let steps = 0; steps < 2000 && !now.is_over; steps++) {
      tell(world.step());
      now = JSON.parse(world.picture());
      // To the end of a turn that has begun here, or was under way.
      if (now.hand && now.hand.stage === "reap" && (now.turn > before || steps > 0)) break;
      if (!now.hand) break;
    }
    look();
  }));
  on("run", () => (isRunning ? pause() : run()));
  on("again", () => {
    endTour();
    begin(settings.startsWith("seed ") ? settingsOfSliders() : settings);
  });
  document.querySelectorAll("[data-ask]").forEach((button) => button.addEventListener("click", () => {
    const { client, account } = selected();
    const kind = button.dataset.ask;
    const piece = byId("bytewise").checked ? " 1" : "";
    const rest = { credit: ` ${account} ${byId("cents").value}`, debit: ` ${account} ${byId("cents").value}`, statement: ` ${account}`, malformed: "" }[kind];
    if (act(`ask ${client} ${kind}${rest}${piece}`)) tell(`Client ${client} asks.`);
  }));
  on("crowd", () => {
    for (let client = 0; client < now.hand.clients; client++) act(`ask ${client} credit ${1 + (client % 5)} 1`);
    tell("Every client asks.");
  });
  on("shut", () => act(`shut ${selected().client}`) && tell(`Client ${selected().client} closes its half.`));
  on("reset", () => act(`reset ${selected().client}`) && tell(`Client ${selected().client} breaks its connection.`));
  on("hold", () => {
    const { lane } = selected();
    const isHeld = now.hand.held.includes(lane);
    if (act(`${isHeld ? "release" : "hold"} ${lane}`)) tell(isHeld ? "The link carries again." : "Nothing passes on the link, in either direction.");
  });
  on("pass", () => act(`pass ${selected().lane} ${byId("bytes").value}`) && tell("As many bytes of the reply arrive."));
  on("cut", () => act(`cut ${selected().lane} 0 ${byId("bytes").value}`) && tell("The link is cut between two bytes."));
  on("stall", () => act(now.hand.is_stalled ? "go_on" : "stall") && tell(now.hand.is_stalled ? "PostgreSQL does nothing." : "PostgreSQL goes on."));
  on("restart", () => act("restart") && tell("PostgreSQL ends every session, and is away for half a second."));
  on("lock", () => act(`lock ${selected().account}`) && tell("Somebody with psql has locked the row."));
  on("unlock", () => act("unlock") && tell("The rows are free."));
  on("stop", () => act("stop") && tell("SIGTERM: the server takes no new connections, and answers those that it has."));
  on("start", () => act("start") && tell("A new server."));
  slider("set-clients", (value) => `clients ${value}`);
  slider("set-load", (value) => `load ${LOADS[value]}`);
  slider("set-commit", (value) => `commit ${COMMITS_US[value]}`);
  slider("set-batch", null, true);
  slider("set-gather", null, true);
  slider("set-lanes", null, true);
  byId("bug").addEventListener("change", async () => {
    endTour();
    await load(byId("bug").value);
    begin(settings.startsWith("seed ") ? settings : settingsOfSliders());
  });
  for (const id of ["client", "lane", "account", "wire-of", "wire-hex", "bytes"]) byId(id).addEventListener("input", () => show(now, world));
  byId("client-list").addEventListener("click", (event) => {
    const button = event.target.closest("[data-client]");
    if (!button) return;
    byId("client").value = button.dataset.client;
    byId("wire-of").value = `client ${button.dataset.client}`;
    show(now, world);
  });
  byId("log").addEventListener("toggle", () => show(now, world));
  on("copy", async () => {
    byId("link").select();
    await navigator.clipboard?.writeText(byId("link").value).catch(() => document.execCommand("copy"));
    byId("copy").textContent = say("Copied");
    setTimeout(() => (byId("copy").textContent = say("Copy")), 1500);
  });
  const seed = () => (/^\d{1,19}$/.test(byId("seed").value.trim()) ? byId("seed").value.trim() : "7");
  byId("seed").addEventListener("input", () => (byId("seed-shown").textContent = seed()));
  const watch = () => {
    endTour();
    begin(`seed ${seed()}`);
  };
  on("seed-watch", watch);
  on("seed-run", () => {
    watch();
    guard(() => {
      world.run_until(Number.MAX_SAFE_INTEGER, 100000);
      tell("The seed has come to its end.");
      look();
    });
  });
  for (const one of TOURS) {
    const button = document.querySelector(`[data-tour="${one.id}"]`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => beginTour(one));
  }
  on("tour-next", nextStop);
  on("tour-end", endTour);
  window.addEventListener("hashchange", follow);
}

/** Begins what the address asks for: a tour, a seed, or a run with its commands. */
async function follow() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const at = Number(wanted.get("at") ?? 0);
  const chosen = TOURS.find((one) => one.id === wanted.get("tour"));
  if (chosen) return void (await beginTour(chosen));
  endTour();
  const planted = Object.hasOwn(bugs, wanted.get("bug") ?? "") ? wanted.get("bug") : "";
  if (planted !== bug) await load(planted);
  guard(() => {
    const seed = wanted.get("seed");
    if (seed && /^\d{1,19}$/.test(seed)) {
      byId("seed").value = seed;
      byId("seed-shown").textContent = seed;
      begin(`seed ${seed}`);
    } else if (wanted.has("run")) {
      begin(wanted.get("run"));
      // Without a step to go to, it stays where the lanes are ready.
      if (wanted.has("at")) {
        world.free();
        world = new Engine(settings);
        world.replay(wanted.get("do") ?? "");
      }
    } else {
      begin(settingsOfSliders());
    }
    now = JSON.parse(world.picture());
    if (at > now.step) world.run_until(Number.MAX_SAFE_INTEGER, at - now.step);
    look();
  });
}

let Engine;
/** The planted bug that the engine has; empty for the code as it is. */
let bug = "";
let bugs = {};

/** Loads the engine, or with a name the one that has this planted bug. */
async function load(name = "") {
  // A module of its own for each: all of them are called in the same way.
  const module = await import(`./bank.js?bug=${name}`);
  await module.default({ module_or_path: new URL(`./${name || "bank"}.wasm`, import.meta.url) });
  pause();
  world?.free();
  world = undefined;
  Engine = module.World;
  bug = name;
  byId("bug").value = name;
  byId("bug-meaning").textContent = name ? say(`${bugs[name]} Play until a check goes red, or watch seeds.`) : "";
}

try {
  translatePage();
  bugs = await (await fetch("bugs.json")).json();
  for (const [name, meaning] of Object.entries(bugs)) byId("bug").append(new Option(`${name}: ${meaning}`, name));
  await load();
  listen();
  await follow();
  byId("bank").setAttribute("aria-busy", "false");
} catch (error) {
  tell(`The engine cannot be loaded: ${error.message}`);
  throw error;
}
