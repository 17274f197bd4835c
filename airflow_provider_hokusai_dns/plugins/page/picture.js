// The last day of one name as a chart: latency as a line, states as a strip below. A failure is
// drawn taller than a stale answer, and that taller than a good one: readable without colour. With
// the pointer, or with the arrow keys when it has the focus, each check can be read individually.

import { inWords, lines, read, slowest, stretches, summary, windowOf } from "./day.js";
import { el, mark, say, svg } from "./dom.js";
import * as words from "./words.js";

const WIDTH = 1440;
const HEIGHT = 64;
// Above it stands the scale.
const LINE_TOP = 15;
const LINE_BOTTOM = 41;
const TALL = { resolved: 5, stale: 11, failed: 18 };

export class Picture {
  constructor(name) {
    this.points = [];
    this.chosen = null;
    this.scale = el("span", { class: "scale" });
    this.said = el("p", { class: "summary" });
    this.axis = el("div", { class: "axis", "aria-hidden": "true", hidden: "" }, el("span"), el("span"), el("span", {}, "now"));
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
      focusable: "false",
    });
    this.frame = el("div", { class: "frame", "aria-label": `Last day of ${name}` }, this.drawing, this.scale);
    this.node = el("div", { class: "picture" }, this.frame, this.axis, this.said);
    this.frame.addEventListener("pointermove", (event) => this.#point(event));
    for (const gone of ["pointerleave", "blur"]) {
      this.frame.addEventListener(gone, () => this.#choose(null));
    }
    this.frame.addEventListener("focus", () => this.#choose(this.points.length - 1));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Replace the points.
   *
   * @param points as the history endpoint returns them.
   * @param now milliseconds, on the server's clock.
   */
  draw(points, now) {
    this.now = now;
    this.points = read(points, now);
    this.text = summary(this.points);
    const most = slowest(this.points);
    say(this.scale, most ? `max ${words.milliseconds(most)}` : "");
    this.window = windowOf(this.points, now);
    const [start, middle] = this.axis.children;
    say(start, `${words.span(this.window / 1000)} ago`);
    say(middle, words.span(this.window / 2000));
    this.cursor = svg("path", { class: "cursor", d: "" });
    this.drawing.replaceChildren(this.#grid(), ...this.#strip(), ...this.#line(most), this.cursor);
    this.axis.hidden = false;
    this.#role();
    this.#choose(null);
  }

  #x(time) {
    return Math.round((10 * WIDTH * (time - this.now + this.window)) / this.window) / 10;
  }

  #grid() {
    const quarters = [1, 2, 3].map((quarter) => `M${(quarter * WIDTH) / 4} 0V${HEIGHT}`).join("");
    return svg("path", { class: "grid", d: `${quarters}M0 ${HEIGHT - 0.5}H${WIDTH}` });
  }

  #strip() {
    return stretches(this.points).map(({ state, time, until }) => {
      const x = Math.max(0, this.#x(time));
      const width = Math.max(4, Math.min(WIDTH, this.#x(until)) - x);
      const height = TALL[state];
      return svg("rect", { class: state, x: Math.min(x, WIDTH - 4), y: HEIGHT - height, width, height });
    });
  }

  #line(most) {
    const y = (ms) => (LINE_BOTTOM - ((LINE_BOTTOM - LINE_TOP) * ms) / (most || 1)).toFixed(1);
    const d = lines(this.points)
      .map((line) => {
        const [first, ...rest] = line.map((point) => `${this.#x(point.time)} ${y(point.probe_ms)}`);
        // A single point would be a dot: it is drawn as a line, for as long as it is valid.
        return `M${first}${rest.length ? `L${rest.join(" ")}` : `H${this.#x(line[0].until)}`}`;
      })
      .join("");
    const bad = this.points
      .filter(({ probe }) => probe === "unhealthy")
      .map(({ time }) => `M${this.#x(time)} ${LINE_TOP}v5`)
      .join("");
    return [svg("path", { class: "latency", d }), svg("path", { class: "bad", d: bad })];
  }

  #role() {
    if (!this.points.length) {
      for (const name of ["tabindex", "aria-valuemin", "aria-valuemax", "aria-valuenow", "aria-valuetext"]) {
        this.frame.removeAttribute(name);
      }
      mark(this.frame, "role", "img");
      return;
    }
    mark(this.frame, "role", "slider");
    mark(this.frame, "tabindex", "0");
    mark(this.frame, "aria-valuemin", "1");
    mark(this.frame, "aria-valuemax", String(this.points.length));
  }

  #choose(index) {
    if (!this.points.length) {
      say(this.said, this.text);
      return;
    }
    this.chosen = index;
    const at = index ?? this.points.length - 1;
    const point = this.points[at];
    const text = index === null ? this.text : inWords(point);
    mark(this.cursor, "d", index === null ? "" : `M${Math.min(WIDTH - 1, Math.max(1, this.#x(point.time)))} 0V${HEIGHT}`);
    say(this.said, text);
    mark(this.frame, "aria-valuenow", String(at + 1));
    mark(this.frame, "aria-valuetext", text);
  }

  #point(event) {
    if (!this.points.length) return;
    const box = this.frame.getBoundingClientRect();
    const time = this.now - this.window + (this.window * (event.clientX - box.left)) / box.width;
    const after = this.points.findIndex((point) => point.time > time);
    this.#choose(after === -1 ? this.points.length - 1 : Math.max(0, after - 1));
  }

  #key(event) {
    const last = this.points.length - 1;
    const at = this.chosen ?? last;
    const to = {
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      PageDown: at - 12,
      PageUp: at + 12,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.#choose(Math.min(last, Math.max(0, to)));
  }
}
