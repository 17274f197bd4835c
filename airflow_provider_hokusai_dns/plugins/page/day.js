// The last day of one name, as values to draw and texts to show. Pure functions.

import * as words from "./words.js";

const DAY = 24 * 3600 * 1000;
/** Widths of a chart, in seconds: a short history should fill the chart. */
const WINDOWS = [10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400];
const SHORTEST_HOLD = 10 * 60 * 1000;
const SAID = { resolved: "resolved", stale: "stale answer used", failed: "failed" };

/** The valid points of the last day, oldest first, each with the time until which it is valid.
 *
 * A point is valid until the next one, but only for a limited time: without runs, nothing is known.
 */
export function read(points, now) {
  const read = (Array.isArray(points) ? points : [])
    // The time until a failure is not a latency.
    .map((point) => ({ ...point, time: Date.parse(point.at), probe_ms: point.probe === "unhealthy" ? null : point.probe_ms }))
    .filter(({ time, state }) => time > now - DAY && time <= now + 300_000 && state in SAID)
    .sort((a, b) => a.time - b.time);
  const hold = holdOf(read);
  read.forEach((point, index) => {
    const next = index + 1 < read.length ? read[index + 1].time : now;
    point.until = Math.max(point.time, Math.min(next, point.time + hold));
  });
  return read;
}

function holdOf(read) {
  const gaps = read.slice(1).map((point, index) => point.time - read[index].time);
  return Math.max(SHORTEST_HOLD, 2.5 * (median(gaps) ?? SHORTEST_HOLD));
}

const median = (numbers) => numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

const latencies = (read) => read.map((point) => point.probe_ms).filter((ms) => typeof ms === "number");

/** The width of a chart of these points, in milliseconds. */
export function windowOf(read, now) {
  const young = read.length ? now - read[0].time : DAY;
  return 1000 * (WINDOWS.find((window) => young <= 1000 * window) ?? WINDOWS.at(-1));
}

/** Consecutive points of one state, merged: a quiet day is one rectangle and not 288. */
export function stretches(read) {
  const found = [];
  for (const { state, time, until } of read) {
    const last = found.at(-1);
    if (last && last.state === state && time <= last.until) last.until = until;
    else found.push({ state, time, until });
  }
  return found;
}

/** Sequences of adjacent points with a latency; between them the line is interrupted. */
export function lines(read) {
  const found = [];
  let open = null;
  for (const point of read) {
    if (typeof point.probe_ms !== "number") open = null;
    else {
      if (!open || point.time > open.at(-1).until) found.push((open = []));
      open.push(point);
    }
  }
  return found;
}

export const slowest = (read) => Math.max(0, ...latencies(read));

/** The day in two short sentences, next to the chart and as its text alternative. */
export function summary(read) {
  if (!read.length) return "No run of the refresh DAG in the last 24 hours.";
  const parts = ["resolved", "stale", "failed"].flatMap((state) => {
    const number = read.filter((point) => point.state === state).length;
    return number ? [`${words.percent(number, read.length)} ${state}`] : [];
  });
  const bad = stretches(read).filter(({ state }) => state !== "resolved");
  let text = `${words.count(read.length, "check")}, ${parts.join(", ")}.`;
  if (bad.length) {
    const last = bad.at(-1);
    const lasts = last.until >= read.at(-1).until;
    text += lasts ? ` Trouble since ${words.clock(last.time)}.` : ` Last trouble ${words.clock(last.time)}–${words.clock(last.until)}.`;
  }
  const usual = words.milliseconds(median(latencies(read)));
  return usual ? `${text} MLflow: median ${usual}.` : text;
}

/** One point in words. */
export function inWords(point) {
  let text = `${words.clock(point.time)} ${SAID[point.state]}`;
  if (point.cause) text += ` (${point.cause})`;
  if (point.addresses?.length) text += ` ${words.addresses(point.addresses, 2)}`;
  const took = words.milliseconds(point.lookup_ms);
  if (took) text += ` in ${took}`;
  if (point.probe) {
    const ms = words.milliseconds(point.probe_ms);
    text += ` · MLflow ${point.probe}${ms ? ` in ${ms}` : ""}`;
  }
  return text;
}
