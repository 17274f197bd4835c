// The page: queries the endpoints at intervals, shows their answers, and reports when there is none.

import * as api from "./api.js";
import { Card, dnsCause, works } from "./card.js";
import { el, mark, say } from "./dom.js";
import { Refresh } from "./refresh.js";
import * as words from "./words.js";

const HEALTH_EVERY_MS = 15_000;
const HISTORY_EVERY_MS = 60_000;
/** If part of the history could not be read. */
const HISTORY_AGAIN_MS = 10_000;
/** A server that has just started checks for the first time. */
const FIRST_CHECK_AGAIN_MS = 2_000;
const OLD_AFTER_S = 60;
const SEARCH_FROM = 9;

const $ = (id) => document.getElementById(id);
const list = $("connections");
const cards = new Map();
const known = { health: null, arrived: 0, history: null, historyArrived: 0, failed: null, again: 0, historyAgain: 0 };
let shownState = null;

/** A button for all connections and one for each state; those without a text are hidden. */
const filters = new Map(
  [null, ...words.STATES].map((state) => {
    const button = el("button", { type: "button", hidden: "" });
    button.addEventListener("click", () => {
      shownState = state;
      showFilters();
    });
    return [state, button];
  }),
);
$("filters").append(...filters.values());

const refresh = new Refresh(
  $("refresh"),
  $("refresh-said"),
  document.body.dataset.refreshDag,
  document.body.dataset.mayTrigger === "yes",
  () => {
    askHealth(true);
    askHistory(true);
  },
);

async function askHealth(fresh = false) {
  try {
    const answer = await api.health(fresh);
    if (!Array.isArray(answer?.connections)) throw new api.Refused(200, "the answer has no connections");
    Object.assign(known, { health: answer, arrived: performance.now(), failed: null });
    showConnections();
    const isUnchecked = answer.connections.some((one) => one.looked_at === null);
    clearTimeout(known.again);
    if (isUnchecked && !document.hidden) known.again = setTimeout(askHealth, FIRST_CHECK_AGAIN_MS);
  } catch (error) {
    known.failed = error;
  }
  showAges();
}

async function askHistory(fresh = false) {
  try {
    known.history = await api.history(fresh);
    known.historyArrived = performance.now();
  } catch (error) {
    if (!known.history) say($("history-note"), "The last day could not be read.");
    return;
  }
  const isUnread = Object.keys(known.history?.problems ?? {}).length > 0;
  clearTimeout(known.historyAgain);
  if (isUnread && !document.hidden) known.historyAgain = setTimeout(askHistory, HISTORY_AGAIN_MS);
  drawAll();
}

function showConnections() {
  const said = Date.parse(known.health.generated_at);
  const wanted = new Map(known.health.connections.map((one) => [String(one.conn_id), one]));
  for (const [id, card] of cards) {
    if (!wanted.has(id)) {
      card.node.remove();
      cards.delete(id);
    }
  }
  for (const [id, one] of wanted) {
    const isNew = !cards.has(id);
    if (isNew) cards.set(id, new Card(id));
    const card = cards.get(id);
    card.said = said;
    card.show(one);
    if (isNew) draw(card);
  }
  order();
  showOverall();
  showFilters();
  showObserver();
  showPolicy();
}

/** What the Variable changes, and why its text is rejected. */
function showPolicy() {
  const { variable, values = {}, problem } = known.health.policy ?? {};
  const numbers = Object.entries(values).map(([name, value]) => `${name} = ${value}`);
  say($("policy"), numbers.length ? `The Variable ${variable} changes the policy: ${numbers.join(", ")}.` : "");
  say($("policy-problem"), problem ? `${problem}. The policy stays as it was.` : "");
}

/** The process that measured this: another process of the API server may answer the next time. */
function showObserver() {
  const { seen_by: by } = known.health;
  const since = Date.parse(by?.since);
  let text = "this API server process";
  if (by) text += ` (${by.host}, process ${by.pid}${Number.isNaN(since) ? "" : `, started ${words.clock(since)}`})`;
  say($("observer"), text);
}

/** Worst first. While the focus is in the list nothing moves, or it would be lost. */
function order() {
  const inside = list.contains(document.activeElement);
  const sorted = [...cards.values()].sort(
    (a, b) => words.STATES.indexOf(a.state) - words.STATES.indexOf(b.state) || a.one.conn_id.localeCompare(b.one.conn_id),
  );
  sorted.forEach(({ node }, index) => {
    const there = list.children[index];
    if (there !== node && (!inside || !node.parentNode)) list.insertBefore(node, there ?? null);
  });
}

function tally() {
  const counts = Object.fromEntries(words.STATES.map((state) => [state, 0]));
  for (const { state } of cards.values()) counts[state] += 1;
  return counts;
}

function showOverall() {
  const counts = tally();
  const all = cards.size;
  list.classList.toggle("one", all === 1);
  let text;
  if (!all) text = "No connection is listed.";
  else if (all === 1) text = headline([...cards.values()][0].one);
  else if (counts.healthy === all) text = `All ${all} connections are healthy.`;
  else {
    const parts = ["unhealthy", "degraded", "unknown"].filter((state) => counts[state]).map((state) => `${counts[state]} ${state}`);
    text = `${counts.healthy} of ${all} connections are healthy; ${parts.join(", ")}.`;
  }
  say($("overall"), text);
  mark($("overall"), "data-state", words.STATES.find((state) => counts[state]) ?? "unknown");
  say($("empty"), all ? "" : known.health.problem || "List the ids of your MLflow connections in [hokusai_dns] connections of airflow.cfg, or in AIRFLOW__HOKUSAI_DNS__CONNECTIONS.");
}

/** A connection in one sentence: MLflow, and separately its name. */
function headline(one) {
  const state = words.state(one.state);
  if (state === "healthy") return "MLflow is reachable at a current address.";
  if (state === "unknown") return "MLflow has not been checked yet.";
  if (one.verdict?.state === "config") return "MLflow was not asked: the connection cannot be used.";
  const resolves = one.dns === "healthy";
  const noName = ["nxdomain", "nodata"].includes(dnsCause(one));
  const why = noName ? "its name does not resolve" : "DNS returns no address";
  if (works(one)) return resolves ? "MLflow works, with problems." : `MLflow works; ${why}.`;
  if (resolves) return "MLflow does not work; its name resolves.";
  return one.verdict?.state === "unresolved" ? `MLflow cannot be reached: ${why}.` : `MLflow does not work, and ${why}.`;
}

function showFilters() {
  $("find").hidden = cards.size < SEARCH_FROM;
  const counts = tally();
  if (shownState && !counts[shownState]) shownState = null;
  const isMixed = words.STATES.filter((state) => counts[state]).length > 1;
  $("tools").hidden = $("find").hidden && !isMixed;
  for (const [state, button] of filters) {
    const number = state ? counts[state] : cards.size;
    mark(button, "aria-pressed", String(shownState === state));
    say(button, isMixed && number ? `${state ? words.capital(state) : "All"} ${number}` : "");
  }
  filter();
}

function filter() {
  const text = $("find").hidden ? "" : $("find").value.trim().toLowerCase();
  let shown = 0;
  for (const card of cards.values()) {
    const hidden = (shownState !== null && card.state !== shownState) || (text !== "" && !card.matches(text));
    if (card.node.hidden !== hidden) card.node.hidden = hidden;
    if (!hidden) shown += 1;
  }
  if (cards.size) say($("empty"), shown ? "" : "No connection matches.");
}

/** The server's time, so that a wrong clock on this machine does not matter. */
function serverNow() {
  const said = Date.parse(known.history?.generated_at);
  return Number.isNaN(said) ? Date.now() : said + performance.now() - known.historyArrived;
}

function draw(card) {
  const { history } = known;
  if (history) card.draw(history.names?.[card.one.history_name], serverNow(), history.problems?.[card.one.history_name]);
}

function drawAll() {
  const { history } = known;
  say($("history-note"), history ? history.note : "This server keeps no history.");
  for (const card of cards.values()) draw(card);
}

function showAges() {
  const passed = (performance.now() - known.arrived) / 1000;
  if (known.health) for (const card of cards.values()) card.grow(passed);
  say($("answered"), known.health ? `updated ${words.span(passed)} ago` : "");
  say($("trouble"), trouble(passed));
  list.classList.toggle("old", known.health !== null && (known.failed !== null || passed > OLD_AFTER_S));
}

function trouble(passed) {
  const { failed, health } = known;
  const old = health ? ` The data shown is ${passed < 60 ? "less than a minute" : words.span(passed - (passed % 60))} old.` : "";
  if (!failed) return health && passed > OLD_AFTER_S ? `The API server is slow to answer.${old}` : "";
  if (failed.status === 0) return `The API server does not answer${failed.detail ? ` (${failed.detail})` : ""}; retrying.${old}`;
  if (failed.status === 401) return `You are signed out: reload the page to sign in.${old}`;
  if (failed.status === 403) return `You do not have permission to view this page (it needs "view plugins").${old}`;
  return `The API server returned an error (${failed.status ? `status ${failed.status}` : failed.message}${failed.detail ? `: ${failed.detail}` : ""}).${old}`;
}

/** Query now and at intervals; not while the page is hidden, and at once when it is shown again. */
function keepAsking(ask, every) {
  let timer;
  let asking = false;
  async function turn() {
    clearTimeout(timer);
    if (asking || document.hidden) return;
    asking = true;
    try {
      await ask();
    } finally {
      asking = false;
      timer = setTimeout(turn, every);
    }
  }
  document.addEventListener("visibilitychange", turn);
  addEventListener("online", turn);
  turn();
}

$("find").addEventListener("input", filter);
$("zone").textContent = `Times are in ${words.zone()}.`;
keepAsking(() => askHealth(), HEALTH_EVERY_MS);
keepAsking(() => askHistory(), HISTORY_EVERY_MS);
keepAsking(() => refresh.check(), HISTORY_EVERY_MS);
setInterval(() => document.hidden || showAges(), 1000);
