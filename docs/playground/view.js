// What the page shows of a world. Elements stay where they are and only change, so that the focus and a reader's place do too.

import { say } from "./language.js";
import * as wire from "./wire.js";

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";
/** Cards of more clients than this are small. */
const LARGE_CLIENTS_MAX = 12;

/** Says what happened; to a screen reader as well, unless it happens many times a second. */
export function tell(text, isAloud = true) {
  const said = byId("said");
  said.setAttribute("aria-live", isAloud ? "polite" : "off");
  if (text) said.textContent = say(text);
}

/** What the controls are about. */
export function selected() {
  return { client: Number(byId("client").value || 0), lane: Number(byId("lane").value || 0), account: Number(byId("account").value) };
}

function asIs(element, value) {
  if (element.textContent !== `${value}`) element.textContent = value;
}

const text = (element, value) => asIs(element, say(`${value}`));

/** Gives a parent as many children as there are items, and lets each show its item. */
function list(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, index) => {
    const child = parent.children[index] ?? parent.appendChild(make(index));
    update(child, item, index);
  });
}

function create(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

function rows(body, items, cells, mark = () => "") {
  list(body, items, () => create("tr"), (row, item) => {
    list(row, cells(item), () => create("td"), (cell, value) => {
      asIs(cell, value);
      cell.classList.toggle("number", typeof value === "number" || /^[−-]?[\d.,]+$/.test(value));
    });
    row.className = mark(item);
  });
}

function options(select, values) {
  const before = select.value;
  list(select, values, () => create("option"), (option, [value, name]) => {
    if (option.value !== value) option.value = value;
    text(option, name);
  });
  if (values.some(([value]) => value === before)) select.value = before;
}

const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;

export function duration(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${us} µs`;
  return us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(3)} s`;
}

const onWire = (forth, back) => [forth > 0 ? `→ ${forth} B` : "", back > 0 ? `← ${back} B` : ""].filter(Boolean).join("  ");

export function show(now, world) {
  showBar(now);
  showClients(now);
  showInstances(now);
  showPostgres(now);
  showControls(now);
  showNumbers(now);
  showWire(now, world);
}

function showBar(now) {
  text(byId("time"), duration(now.now_us));
  text(byId("turns"), now.seed_world ? "–" : now.turn);
  text(byId("steps"), now.step);
  const check = byId("check");
  check.className = now.violation ? "check failed" : "check good";
  text(check, now.violation ? `Check ${now.violation.check} failed: ${now.violation.meaning} Found: ${now.violation.text}` : "Every check holds");
  const stage = now.hand?.stage ?? "";
  for (const item of byId("stages").children) {
    if (item.dataset.stage === stage) item.setAttribute("aria-current", "step");
    else item.removeAttribute("aria-current");
  }
  byId("stages").hidden = !now.hand;
}

function showClients(now) {
  const parent = byId("client-list");
  parent.classList.toggle("small", now.peers.length > LARGE_CLIENTS_MAX);
  const chosen = selected().client;
  list(parent, now.peers, (index) => {
    const button = create("button", "card", create("b"), create("span", "phase"), create("span", "asked"), create("span", "bytes"), create("span", "last"));
    button.dataset.client = index;
    return create("li", "", button);
  }, (item, peer, index) => {
    const button = item.firstElementChild;
    const [name, phase, asked, bytes, last] = button.children;
    text(name, index);
    text(phase, peer.phase);
    text(asked, `${peer.asked[0] ?? ""}${peer.asked.length > 1 ? ` and ${peer.asked.length - 1} more` : ""}`);
    text(bytes, onWire((peer.unsent_bytes ?? 0) + (peer.forth_bytes ?? 0), peer.back_bytes ?? 0));
    text(last, peer.last ? peer.last.status : "");
    last.dataset.status = peer.last ? Math.floor(peer.last.status / 100) : "";
    button.setAttribute("aria-pressed", `${index === chosen}`);
    button.dataset.phase = peer.phase;
    const label = say(`Client ${index}: ${peer.phase}${peer.asked[0] ? `, asks: ${peer.asked[0]}` : ""}${peer.last ? `, last answer ${peer.last.status}` : ""}`);
    if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
    button.title = peer.last?.problem ? `${label}: ${peer.last.problem}` : label;
  });
}

function showInstances(now) {
  list(byId("instances"), now.instances, () => create("div", "instance",
    create("h3"), create("p", "why"), create("ol", "queue"), create("h3", "", say("Lanes")), create("ul", "cards wide")), (box, instance, index) => {
    const [head, why, queue, , lanes] = box.children;
    const state = now.hand?.is_stopped ? ", stopped" : instance.is_stopping ? ", stopping" : "";
    text(head, `${now.instances.length > 1 ? `Server ${index}: queue` : "Queue"} of ${counted(instance.queued, "call")}${state}`);
    text(why, instance.why);
    list(queue, instance.queue, () => create("li"), (item, ticket) => {
      text(item, ticket.client === null ? "gone" : `${ticket.client}`);
      item.title = say(`Client ${ticket.client ?? "that has left"}: ${ticket.call}${ticket.is_alone ? "; rolled back, goes by itself" : ""}`);
      item.dataset.account = /account (\d+)/.exec(ticket.call)?.[1];
    });
    list(lanes, instance.lanes, () => create("li", "card", create("b"), create("span", "phase"), create("span", "asked"), create("span", "held"), create("span", "bytes")), (card, lane, number) => {
      const [name, phase, batches, held, bytes] = card.children;
      text(name, `Lane ${number}`);
      const isHeld = now.hand?.held.includes(number);
      text(phase, `${lane.state}${isHeld ? ", link held" : ""}`);
      card.dataset.phase = lane.state;
      const told = lane.batches.map((batch) => (batch.calls === 0 ? "a probe" : `${counted(batch.calls, "call")}${batch.set ? `, ${batch.set} as a set` : ""}`));
      text(batches, told.length ? `out: ${told.join("; ")}` : lane.state === "Ready" ? "free" : "");
      text(held, lane.held_answers ? `${counted(lane.held_answers, "answer")} held until the commit` : "");
      text(bytes, onWire(lane.forth_bytes, lane.back_bytes + lane.unread_bytes));
    });
  });
}

function showPostgres(now) {
  const state = byId("postgres-state");
  text(state, now.hand?.is_away ? "It restarts, and takes no connection." : now.hand?.is_stalled ? "It is stalled, and does nothing." : "");
  list(byId("session-list"), now.sessions, () => create("li", "card", create("b"), create("span", "phase"), create("span", "asked"), create("span", "held")), (card, session) => {
    const [name, does, locked, uncommitted] = card.children;
    text(name, `Session ${session.session}`);
    text(does, `${session.does}${session.is_cut ? "; its link is cut" : ""}${session.has_failed ? "; its transaction has failed" : ""}`);
    card.dataset.phase = session.waits_for ? "Waits" : "Ready";
    text(locked, session.locked.length ? `has locked the rows ${session.locked.join(", ")}` : "");
    text(uncommitted, session.uncommitted.length ? `not committed: ${session.uncommitted.length > 4 ? counted(session.uncommitted.length, "row") : session.uncommitted.map((row) => row.description).join(", ")}` : "");
  });
  const holders = new Map(now.sessions.flatMap((session) => session.locked.map((account) => [account, say(`session ${session.session}`)])));
  rows(byId("accounts"), now.accounts, (account) => [`${account.id}`, account.limit, account.balance, account.is_locked ? say("locked by another") : holders.get(account.id) ?? ""],
    (account) => (account.is_locked || holders.has(account.id) ? "locked" : ""));
  text(byId("ledger-rows"), now.ledger_rows);
  rows(byId("ledger"), now.ledger, (row) => [`${row.account}`, row.description, row.value, row.balance]);
}

function showControls(now) {
  options(byId("client"), now.peers.map((_, index) => [`${index}`, `${index}`]));
  options(byId("lane"), now.instances[0].lanes.map((_, index) => [`${index}`, `${index}`]));
  const { lane, account } = selected();
  const isByHand = Boolean(now.hand) && !now.is_over;
  for (const button of byId("deeds").querySelectorAll("button")) button.disabled = !isByHand;
  byId("step").disabled = byId("turn").disabled = byId("run").disabled = now.is_over;
  text(byId("lock-account"), account);
  if (!now.hand) return;
  const isHeld = now.hand.held.includes(lane);
  const back = now.instances[0].lanes[lane].back_bytes;
  const bytes = byId("bytes");
  bytes.max = back;
  text(byId("bytes-shown"), `${bytes.value} of ${back}`);
  byId("hold").setAttribute("aria-pressed", `${isHeld}`);
  text(byId("hold"), isHeld ? "Let the link carry" : "Hold the link");
  byId("pass").disabled = !isByHand || !isHeld || back === 0;
  byId("cut").disabled = !isByHand || now.instances[0].lanes[lane].session === null;
  byId("stall").setAttribute("aria-pressed", `${now.hand.is_stalled}`);
  text(byId("stall"), now.hand.is_stalled ? "Let PostgreSQL go on" : "Stall PostgreSQL");
  byId("stop").disabled = !isByHand || now.instances[0].is_stopping;
  byId("start").disabled = !isByHand || !now.hand.is_stopped;
}

function showNumbers(now) {
  const { tally } = now;
  text(byId("p50"), duration(tally.p50_us));
  text(byId("p99"), duration(tally.p99_us));
  text(byId("mean-batch"), tally.committed_batches ? (tally.committed_calls / tally.committed_batches).toFixed(1) : "–");
  text(byId("saved"), tally.committed_batches ? `${tally.committed_calls - tally.committed_batches} of ${tally.committed_calls}` : "–");
  text(byId("time-saved"), tally.alone_us ? `${Math.round(100 * (1 - tally.worked_us / tally.alone_us))} %` : "–");
  rows(byId("answers"), tally.answers, (answer) => [answer.status, answer.problem || (answer.status === 200 ? say("done") : ""), answer.count], (answer) => `status-${Math.floor(answer.status / 100)}`);
  text(byId("not-asked"), tally.not_asked ? `${counted(tally.not_asked, "request")} not asked, since every client waited for an answer.` : "");
  asIs(byId("hash"), now.hash);
  showBatches(tally.batch_calls);
  if (byId("log").open) list(byId("told"), [...now.told].reverse(), () => create("li"), asIs);
}

function showBatches(calls) {
  const most = Math.max(8, ...calls);
  const label = say(calls.length ? `Calls in the newest ${calls.length} batches, oldest first: ${calls.join(", ")}` : "No batch yet");
  const parent = byId("batches");
  if (parent.getAttribute("aria-label") === label) return;
  parent.setAttribute("aria-label", label);
  let chart = parent.querySelector("svg");
  if (!chart) {
    chart = document.createElementNS(SVG, "svg");
    chart.setAttribute("viewBox", "0 0 300 60");
    chart.setAttribute("preserveAspectRatio", "none");
    parent.append(chart, create("span", "hint"));
  }
  text(parent.lastElementChild, calls.length ? `the highest bar is ${Math.max(...calls)}` : "");
  list({
    get children() { return chart.children; },
    get lastElementChild() { return chart.lastElementChild; },
    appendChild: (child) => chart.appendChild(child),
  }, calls, () => document.createElementNS(SVG, "rect"), (bar, value, index) => {
    const height = (value / most) * 58;
    for (const [name, number] of Object.entries({ x: index * 5, y: 60 - height, width: 4, height })) bar.setAttribute(name, number);
  });
}

// ---- the wire

let shownWire = "";

function showWire(now, world) {
  const lanes = now.instances.flatMap((instance, server) => instance.lanes.map((_, lane) => [`lane ${server} ${lane}`, now.instances.length > 1 ? `server ${server}, lane ${lane}` : `lane ${lane}`]));
  options(byId("wire-of"), [...now.peers.map((_, index) => [`client ${index}`, `client ${index}`]), ...lanes]);
  const [kind, first, second] = byId("wire-of").value.split(" ");
  const json = kind === "lane" ? world.lane_wire(Number(first), Number(second)) : world.client_wire(Number(first ?? 0));
  const withBytes = byId("wire-hex").checked;
  const key = `${kind} ${first} ${second} ${withBytes} ${json}`;
  if (key === shownWire) return;
  shownWire = key;
  const { messages, partial, is_postgres: isPostgres, forgotten } = JSON.parse(json);
  const parent = byId("messages");
  const isAtEnd = parent.scrollTop + parent.clientHeight >= parent.scrollHeight - 30;
  const peer = isPostgres ? "PostgreSQL" : "client";
  const items = messages.map((message) => ({ ...message, peer, isPostgres, withBytes }));
  if (forgotten) items.unshift({ note: `${counted(forgotten, "message")} before these` });
  if (messages.length === 0) items.push({ note: "Nothing has gone over this connection yet." });
  for (const [way, bytes] of [[`${peer} to server`, partial[0]], [`server to ${peer}`, partial[1]]]) {
    if (bytes) items.push({ note: `${way}: ${bytes} bytes of a message whose end has not come` });
  }
  list(parent, items, () => create("div"), showMessage);
  if (isAtEnd) parent.scrollTop = parent.scrollHeight;
}

function showMessage(box, message) {
  const key = JSON.stringify(message);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  if (message.note) {
    box.className = "note";
    box.textContent = say(message.note);
    return;
  }
  const bytes = wire.bytesOf(message.hex);
  box.className = `message ${message.is_to_server ? "to-server" : "from-server"}`;
  const way = say(message.is_to_server ? `${message.peer} → server` : `server → ${message.peer}`);
  const lines = message.isPostgres ? wire.postgres(bytes, message.is_to_server) : wire.http(bytes);
  const body = create("pre");
  for (const { depth, hex, line } of lines) {
    const shown = message.isPostgres && message.withBytes ? `${hex.padEnd(24)} ` : "";
    const field = create("span", "field", create("span", "hex", shown), `${"  ".repeat(depth)}${line}`);
    // A long line goes on below its meaning, not below its bytes.
    field.style.setProperty("--indent", `${shown.length + 2 * depth}ch`);
    body.append(field);
  }
  box.replaceChildren(create("span", "way", `${way}, ${duration(message.at_us)}${message.isPostgres ? "" : `, ${bytes.length} bytes`}`), body);
}
