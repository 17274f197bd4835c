// Numbers, times and states as people say them. Pure functions.

/** From worst to best, as the list is sorted. */
export const STATES = ["unhealthy", "degraded", "unknown", "healthy"];

/** The outline of a state's sign: readable without its colour. */
export const SIGNS = {
  healthy: "M3.5 8.5l3 3 6-7",
  degraded: "M8 3.5v5.5M8 12.2v.3",
  unhealthy: "M4 4l8 8M12 4l-8 8",
  unknown: "M5.6 5.8a2.4 2.4 0 1 1 3.4 2.1c-.7.4-1 .8-1 1.6M8 12.2v.3",
};

const SOURCES = {
  dns: "DNS",
  system: "the system’s resolver",
  cache: "DNS, from the cache",
  hosts: "the hosts file",
  literal: "written in the connection",
  stale: "an old answer of DNS",
  store: "the fleet’s last known good",
  static: "static, for emergencies",
};

/** A number and its unit, which stay on one line. */
const of = (number, unit) => `${number}\u00a0${unit}`;

/** A state we know, whatever the server says. */
export function state(word) {
  return STATES.includes(word) ? word : "unknown";
}

export function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** Where an address comes from; an unknown word is shown as it is. */
export function source(word) {
  return word === null || word === undefined ? null : (SOURCES[word] ?? String(word));
}

/** A span of seconds, in one or two units. */
export function span(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return of(whole, "s");
  if (whole < 3600) return of(Math.floor(whole / 60), "min");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours < 24) return minutes ? `${of(hours, "h")} ${of(minutes, "min")}` : of(hours, "h");
  const days = Math.floor(hours / 24);
  return of(days, days === 1 ? "day" : "days");
}

export function milliseconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return null;
  if (value >= 1000) return of((value / 1000).toFixed(1), "s");
  return of(value < 10 ? value.toFixed(1) : Math.round(value), "ms");
}

export function count(number, one, many) {
  return `${number} ${number === 1 ? one : many}`;
}

export function percent(part, whole) {
  if (!whole) return of(0, "%");
  const value = (100 * part) / whole;
  if (value > 99 && value < 100) return `over ${of(99, "%")}`;
  if (value > 0 && value < 1) return `under ${of(1, "%")}`;
  return of(Math.round(value), "%");
}

/** The time zone chosen in the Airflow UI, or this browser's. */
export function zone() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  try {
    const chosen = (localStorage.getItem("timezone") ?? "").replaceAll('"', "");
    if (!chosen || chosen === "local") return own;
    new Intl.DateTimeFormat("en", { timeZone: chosen });
    return chosen;
  } catch {
    return own;
  }
}

/** A moment in milliseconds as hours and minutes. */
export function clock(at) {
  return new Intl.DateTimeFormat("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    timeZone: zone(),
  }).format(at);
}

/** Some of the addresses in a line, and how many more there are. */
export function addresses(list, most = 3) {
  const shown = list.slice(0, most).join(", ");
  return list.length > most ? `${shown} and ${list.length - most} more` : shown;
}
