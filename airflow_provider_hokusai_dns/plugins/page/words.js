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
  cache: "DNS, cached",
  hosts: "the hosts file",
  literal: "an address in the connection",
  stale: "DNS, stale",
  store: "the shared last known good",
  static: "static, for emergencies",
};

/** The writers of a last known good. */
const WRITERS = { refresh: "the refresh DAG", gate: "a gate", hook: "a task" };

/** Why DNS returns no address. The keys are those of `Cause`. */
const DNS_CAUSES = {
  nxdomain: "no such name",
  nodata: "no address record",
  servfail: "the DNS server failed",
  refused: "the DNS server refused",
  timeout: "no answer from DNS",
  network: "DNS cannot be reached",
  malformed: "an invalid answer from DNS",
  config: "DNS is not configured",
};

/** The causes with which DNS says that there is no such name or record. */
export const NO_SUCH_NAME = ["nxdomain", "nodata"];

/** What is wrong with MLflow. The keys are those of `State`, without the two that work. */
const STATES_OF_MLFLOW = {
  unresolved: "no address to use",
  unreachable: "unreachable",
  tls_error: "no secure connection",
  host_rejected: "host name rejected",
  unauthenticated: "login rejected",
  forbidden: "permission missing",
  workspace_missing: "workspace missing",
  backend_down: "server or database unavailable",
  not_mlflow: "not an MLflow server",
  artifact_failed: "artifacts not stored",
  config: "connection misconfigured",
};

/** Why a request got no complete answer. The keys are those of `Failure`. */
const REQUEST_FAILURES = {
  refused: "connection refused",
  connect_timeout: "connection timed out",
  network: "network error",
  timeout: "no answer in time",
  broken_off: "connection closed early",
  not_http: "not HTTP",
  proxy_refused: "refused by the proxy",
  body_too_large: "answer too large",
  certificate_expired: "certificate expired",
  certificate_name: "certificate for another name",
  certificate_untrusted: "certificate not trusted",
  tls: "TLS handshake failed",
  tls_file: "certificate file unusable",
};

/** The text for a word of the code, with a link to its section of the failure guide.
 *
 * An unknown word, from a newer server, is shown unchanged.
 */
function explained(table, section, word) {
  if (!word) return null;
  return word in table ? { text: table[word], href: `guide#${section}.${word}` } : String(word);
}

export const dnsCause = (word) => explained(DNS_CAUSES, "causes-of-dns", word);
export const mlflowState = (word) => explained(STATES_OF_MLFLOW, "states-of-a-verdict", word);
export const requestFailure = (word) => (word in REQUEST_FAILURES ? explained(REQUEST_FAILURES, "failures-of-a-request", word) : null);

/** The text for a word of the code; an unknown one is shown unchanged. */
const named = (table, word) => (word ? (table[word] ?? String(word)) : null);

/** The writer of a last known good. */
export const writer = (word) => named(WRITERS, word);

/** Where an address comes from. */
export const source = (word) => named(SOURCES, word);

/** A number and its unit, which stay on one line. */
const of = (number, unit) => `${number}\u00a0${unit}`;

/** The state, or "unknown" for a word that the page does not know. */
export function state(word) {
  return STATES.includes(word) ? word : "unknown";
}

export function capital(word) {
  return word.charAt(0).toUpperCase() + word.slice(1);
}

/** A span of seconds, in one or two units. */
export function span(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "?";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return of(whole, "s");
  if (whole < 3600) return of(Math.floor(whole / 60), "min");
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor((whole % 3600) / 60);
  if (hours < 48) return minutes ? `${of(hours, "h")} ${of(minutes, "min")}` : of(hours, "h");
  return of(Math.floor(hours / 24), "days");
}

/** The remaining time, in two units, so that the countdown visibly runs. */
export function countdown(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole >= 3600) return span(whole);
  const minutes = Math.floor(whole / 60);
  return minutes ? `${of(minutes, "min")} ${of(whole % 60, "s")}` : of(whole, "s");
}

export function milliseconds(value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return null;
  if (value >= 1000) return of((value / 1000).toFixed(1), "s");
  return of(value < 10 ? value.toFixed(1) : Math.round(value), "ms");
}

/** How many of a thing there are. */
export const count = (number, thing) => `${number} ${thing}${number === 1 ? "" : "s"}`;

/** A part that is not empty, of a whole. */
export function percent(part, whole) {
  const value = (100 * part) / whole;
  if (value > 99 && value < 100) return `over ${of(99, "%")}`;
  if (value < 1) return `under ${of(1, "%")}`;
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
