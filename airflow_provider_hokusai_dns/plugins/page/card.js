// One connection of the list: built once, then only what changed is touched, so that the focus,
// a text selection and an opened detail stay where they are.

import { el, mark, say, svg } from "./dom.js";
import { Picture } from "./picture.js";
import * as words from "./words.js";

/** A state as a sign and a word. */
export function badge() {
  const sign = svg("path", { d: "" });
  const word = el("span");
  const drawing = svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, sign);
  const node = el("span", { class: "badge" }, drawing, word);
  return {
    node,
    show(state) {
      mark(node, "data-state", state);
      mark(sign, "d", words.SIGNS[state]);
      say(word, words.capital(state));
    },
  };
}

export class Card {
  constructor(connId) {
    this.badge = badge();
    this.uri = el("p", { class: "uri" });
    this.sentence = el("p", { class: "sentence" });
    this.problem = el("p", { class: "problem" });
    this.unread = el("p", { class: "problem", hidden: "" });
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
        el("div", { class: "name" }, this.badge.node, el("h2", { id: title }, connId)),
        this.uri,
        this.sentence,
        this.problem,
        this.unread,
      ),
      this.facts,
      this.picture.node,
    );
  }

  static #number = 0;

  /** Show what the server says now.
   *
   * @param one a connection of the health endpoint.
   */
  show(one) {
    this.one = one;
    this.state = words.state(one.state);
    this.badge.show(this.state);
    mark(this.node, "data-state", this.state);
    say(this.uri, one.tracking_uri ?? one.hostname);
    say(this.sentence, one.sentence || (one.cause ? `Cause: ${one.cause}.` : ""));
    say(this.problem, one.variable_problem);
    const addresses = one.addresses ?? [];
    this.#fact("Address", addresses.length ? words.addresses(addresses) : "none", { mono: true });
    this.grow(0);
  }

  /** Let what has an age grow older.
   *
   * @param passed seconds since the server said it.
   */
  grow(passed) {
    const { one } = this;
    this.#fact("Source", this.#source(passed));
    this.#fact("DNS", join(words.state(one.dns), this.#whyNotFresh(passed)), { state: one.dns });
    this.#fact("MLflow", this.#mlflow(passed), { state: one.mlflow });
    this.#fact("Last good", this.#lastGood(passed));
  }

  /** Draw the last day.
   *
   * @param points of this name, as the history endpoint gives them.
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
    // An old answer has no time to live left, whatever is known of when DNS is asked next.
    if (typeof ttl === "number" && dns === "healthy") left = ttl > passed ? `TTL ${words.span(ttl - passed)} left` : "TTL over";
    return join(words.source(this.one.source), typeof age === "number" ? `${words.span(age + passed)} old` : null, left);
  }

  #mlflow(passed) {
    const { cause, dns, mlflow, latency_ms: ms } = this.one;
    const took = words.milliseconds(ms);
    if (mlflow !== "unhealthy") return join(words.state(mlflow), took, this.#looked(passed));
    // How long it took to fail is no latency. A cause in DNS stands in the line above.
    const why = dns === "healthy" ? cause : null;
    return join("unhealthy", why, took && `after ${took}`, this.#looked(passed));
  }

  #whyNotFresh(passed) {
    const { cause, dns, last_known_good: good } = this.one;
    if (dns === "healthy") return null;
    const away = good?.name_away_for;
    return join(cause, typeof away === "number" ? `name away for ${words.span(away + passed)}` : null);
  }

  /** What the fleet falls back on, where that is not what is in use anyway. */
  #lastGood(passed) {
    const { last_known_good: good, source, addresses } = this.one;
    if (!good || (source === "store" && String(good.addresses) === String(addresses))) return null;
    const by = good.written_by ? `by ${good.written_by}` : null;
    return join(words.addresses(good.addresses ?? [], 2), `${words.span(good.age + passed)} old`, by);
  }

  #looked(passed) {
    const [at, said] = [Date.parse(this.one.looked_at), this.said];
    return Number.isNaN(at) || said === undefined ? null : `seen ${words.span((said - at) / 1000 + passed)} ago`;
  }

  #fact(name, text, { mono = false, state = null } = {}) {
    let row = this.rows.get(name);
    if (!row) {
      row = el("div", {}, el("dt", {}, name), el("dd", { class: mono ? "mono" : null }));
      this.rows.set(name, row);
      this.facts.append(row);
    }
    say(row.lastChild, text);
    if (state) mark(row.lastChild, "data-state", words.state(state));
    if (row.hidden !== row.lastChild.hidden) row.hidden = row.lastChild.hidden;
  }
}

function join(...parts) {
  return parts.filter(Boolean).join(", ") || null;
}
