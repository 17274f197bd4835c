// One connection of the list. It is built once; then only changed parts are updated, so that the
// focus, a text selection and an opened detail are kept.

import { el, fill, mark, say, svg } from "./dom.js";
import { Picture } from "./picture.js";
import * as words from "./words.js";

export class Card {
  constructor(connId) {
    this.sign = svg("path", { d: "" });
    const drawing = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, this.sign);
    this.word = el("span");
    this.badge = el("span", { class: "badge" }, drawing, this.word);
    this.uri = el("p", { class: "uri" });
    this.sentence = el("p", { class: "sentence" });
    this.problem = el("p", { class: "problem" });
    this.unread = el("p", { class: "problem", hidden: "" });
    this.left = el("progress", { "aria-label": "Time left for the stale address" });
    this.countdown = el("p", { class: "quiet" });
    this.limit = el("div", { class: "limit", hidden: "" }, this.left, this.countdown);
    this.facts = el("dl", { class: "facts" });
    this.rows = new Map();
    this.picture = new Picture(connId);
    const title = `connection-${Card.#number++}`;
    this.node = el(
      "li",
      { class: "connection", "aria-labelledby": title },
      el(
        "div",
        { class: "what" },
        el("div", { class: "name" }, this.badge, el("h2", { id: title }, connId)),
        this.uri,
        this.sentence,
        this.limit,
        this.problem,
        this.unread,
      ),
      this.facts,
      this.picture.node,
    );
  }

  static #number = 0;

  /** Show the server's current answer.
   *
   * @param one a connection of the health endpoint.
   */
  show(one) {
    this.one = one;
    this.state = words.state(one.state);
    mark(this.badge, "data-state", this.state);
    mark(this.sign, "d", words.SIGNS[this.state]);
    say(this.word, words.capital(this.state));
    mark(this.node, "data-state", this.state);
    say(this.uri, one.tracking_uri ?? one.hostname);
    say(this.sentence, one.sentence || (one.cause ? `Cause: ${one.cause}.` : ""));
    say(this.problem, one.variable_problem);
    const addresses = one.addresses ?? [];
    this.#fact("Address", [addresses.length ? words.addresses(addresses) : "none"], { mono: true });
    this.grow(0);
  }

  /** Update all ages.
   *
   * @param passed seconds since the server's answer.
   */
  grow(passed) {
    const { one } = this;
    this.#fact("Source", this.#source(passed));
    this.#fact("DNS", this.#dns(passed), { state: one.dns });
    this.#fact("MLflow", this.#mlflow(passed), { state: works(one) ? "healthy" : one.mlflow });
    this.#fact("Last good", this.#lastGood(passed));
    this.#countDown(passed);
  }

  /** Draw the last day.
   *
   * @param points of this name, as the history endpoint returns them.
   * @param now milliseconds, on the server's clock.
   * @param problem why its history cannot be read, if so.
   */
  draw(points, now, problem) {
    this.picture.draw(points, now);
    say(this.unread, problem);
  }

  /** Whether a text is in a name of this connection. */
  matches(text) {
    const { conn_id: id, hostname, tracking_uri: uri } = this.one;
    return [id, hostname, uri, ...(this.one.addresses ?? [])].some((name) => (name ?? "").toLowerCase().includes(text));
  }

  #source(passed) {
    const { age, dns, ttl_left: ttl } = this.one;
    let left = null;
    // A stale answer has no time to live left, whatever is known of when DNS is asked next.
    if (typeof ttl === "number" && dns === "healthy") left = ttl > passed ? `TTL ${words.span(ttl - passed)} left` : "TTL expired";
    return join(words.source(this.one.source), typeof age === "number" ? `${words.span(age + passed)} old` : null, left);
  }

  #dns(passed) {
    const { dns, last_known_good: good } = this.one;
    if (dns === "healthy") return ["resolves"];
    const cause = dnsCause(this.one);
    const why = words.dnsCause(cause) ?? (words.state(dns) === "unknown" ? "unknown" : "does not resolve");
    const away = good?.name_away_for;
    if (typeof away !== "number") return join(why);
    const since = words.span(away + passed);
    // The latest failure may be another one, which has not lasted as long.
    const isOther = cause && !words.NO_SUCH_NAME.includes(cause);
    return join(why, isOther ? `first “no such name” ${since} ago` : `for ${since}`);
  }

  /** MLflow, separate from DNS: whether it works, at any address. */
  #mlflow(passed) {
    const { cause, mlflow, latency_ms: ms, verdict } = this.one;
    const took = words.milliseconds(ms);
    if (works(this.one)) return join("works", took, this.#checked(passed));
    if (words.state(mlflow) !== "unhealthy") return join("unknown", this.#checked(passed));
    const why = cause === "missing" ? "connection not returned by Airflow" : words.mlflowState(verdict?.state);
    // Without an address no request was made: the cause is that of DNS, in the line above.
    const failed = verdict?.state === "unresolved" ? null : words.requestFailure(cause);
    // The time until a failure is not a latency.
    return join(why ?? failed ?? "does not work", why && failed, took && `after ${took}`, this.#checked(passed));
  }

  /** The fallback of every process, unless it is already in use. */
  #lastGood(passed) {
    const { last_known_good: good, source, addresses } = this.one;
    if (!good || (source === "store" && String(good.addresses) === String(addresses))) return [];
    const by = words.writer(good.written_by);
    return join(words.addresses(good.addresses ?? [], 2), `${by ? `written by ${by} ` : ""}${words.span(good.age + passed)} ago`);
  }

  #checked(passed) {
    const age = (this.said - Date.parse(this.one.looked_at)) / 1000;
    return Number.isNaN(age) ? null : `checked ${words.span(age + passed)} ago`;
  }

  /** How long the stale address will still be used, and the rule that limits it. */
  #countDown(passed) {
    const { stale } = this.one;
    const hidden = typeof stale?.ends_in !== "number" || typeof stale.limit !== "number";
    if (this.limit.hidden !== hidden) this.limit.hidden = hidden;
    if (hidden) return;
    const left = Math.max(0, stale.ends_in - passed);
    mark(this.left, "max", String(stale.limit));
    mark(this.left, "value", String(Math.floor(left)));
    const limit = words.span(stale.limit);
    const rule = { no_such_name: `${limit} after DNS first said “no such name”`, login_over_http: `${limit} with a login and no verified certificate` }[stale.rule] ?? `${limit} of age`;
    say(this.countdown, left > 0 ? `Used for another ${words.countdown(left)} (limit: ${rule}).` : `No longer used: its limit has passed (${rule}).`);
  }

  #fact(name, parts, { mono = false, state = null } = {}) {
    let row = this.rows.get(name);
    if (!row) {
      row = el("div", {}, el("dt", {}, name), el("dd", { class: mono ? "mono" : null }));
      this.rows.set(name, row);
      this.facts.append(row);
    }
    fill(row.lastChild, parts);
    if (state) mark(row.lastChild, "data-state", words.state(state));
    if (row.hidden !== row.lastChild.hidden) row.hidden = row.lastChild.hidden;
  }
}

/** Whether MLflow can be used, whatever DNS says. */
export const works = (one) => one.mlflow === "healthy" || one.mlflow === "degraded";

/** Why DNS returns no address; some answers have it only in `cause`. */
export const dnsCause = (one) => one.verdict?.dns_cause ?? (one.dns === "healthy" ? null : one.cause);

/** The non-empty parts, separated by commas. */
function join(...parts) {
  return parts.filter(Boolean).flatMap((part, index) => (index ? [", ", part] : [part]));
}
