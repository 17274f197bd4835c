// The button for the refresh DAG, and what became of the run it started.

import * as api from "./api.js";
import { say } from "./dom.js";
import * as words from "./words.js";

const EVERY_MS = 1500;
const PATIENCE_MS = 5 * 60_000;
/** What a run found is news for this long. */
const NEWS_MS = 5 * 60_000;

export class Refresh {
  /**
   * @param dagId the refresh DAG.
   * @param mayTrigger whether Airflow lets this user trigger it.
   * @param whenDone called after a run has ended.
   */
  constructor(button, said, dagId, mayTrigger, whenDone) {
    Object.assign(this, { button, said, dagId, mayTrigger, whenDone, running: false });
    this.why = "";
    button.addEventListener("click", () => this.#start());
  }

  /** Ask for the DAG, and offer the button or say why not. */
  async check() {
    if (this.running) return;
    this.why = await this.#obstacle();
    if (this.running) return;
    this.button.hidden = !this.mayTrigger;
    // Not the attribute `disabled`: the button can still get the focus, and shows the reason.
    this.button.setAttribute("aria-disabled", String(this.why !== ""));
    if (this.why) this.#say(this.why, "warn");
    else if (!this.isNews || performance.now() - this.saidAt > NEWS_MS) this.#say("", "");
  }

  async #obstacle() {
    let dag;
    try {
      dag = await api.dag(this.dagId);
    } catch (error) {
      if (error.status === 403) return `You do not have permission to see the refresh DAG, ${this.dagId}.`;
      return "The refresh DAG could not be looked up.";
    }
    if (dag === null || dag.is_stale) {
      return `There is no refresh DAG: put hokusai_dns_refresh.py from the examples into the DAG folder to create ${this.dagId}.`;
    }
    if (dag.has_import_errors) return `The file of ${this.dagId} has an import error: see the list of Dags.`;
    if (dag.is_paused) return `${this.dagId} is paused: unpause it in the list of Dags, or nothing is refreshed.`;
    return this.mayTrigger ? "" : `You need the permission to trigger ${this.dagId}.`;
  }

  async #start() {
    if (this.running) return;
    if (this.why) {
      this.#say(this.why, "warn");
      return;
    }
    this.running = true;
    this.button.setAttribute("aria-disabled", "true");
    try {
      this.#say("Starting a run …", "busy");
      const run = await api.trigger(this.dagId);
      const [text, tone] = await this.#follow(run.dag_run_id);
      // With the time, because it stays while the states below are updated.
      this.#say(`${words.clock(Date.now())}: ${text}`, tone);
    } catch (error) {
      this.#say(failure(error), "warn");
    } finally {
      this.running = false;
      this.button.setAttribute("aria-disabled", "false");
    }
    this.whenDone();
  }

  async #follow(runId) {
    const started = performance.now();
    let shown = "";
    while (performance.now() - started < PATIENCE_MS) {
      const { state } = await api.run(this.dagId, runId);
      if (state === "success" || state === "failed") {
        const report = await api.report(this.dagId, runId);
        return outcome(state, report, words.span((performance.now() - started) / 1000));
      }
      if (state !== shown) {
        shown = state;
        this.#say(state === "queued" ? "The run is queued …" : "The run is asking DNS …", "busy");
      }
      await new Promise((go) => setTimeout(go, EVERY_MS));
    }
    return [`The run ${runId} has not ended in ${words.span(PATIENCE_MS / 1000)}: is a worker free?`, "warn"];
  }

  #say(text, tone) {
    this.saidAt = performance.now();
    this.isNews = tone === "done" || tone === "bad";
    this.said.classList.toggle("bad", tone === "bad" || tone === "warn");
    say(this.said, text);
  }
}

function failure(error) {
  if (error.status === 403) return "You do not have permission to trigger the refresh DAG.";
  if (error.status === 401) return "You are signed out: reload the page to sign in.";
  if (error.status === 0) return "The API server did not answer; check the list of Dags for a run.";
  return `Airflow refused the run: ${error.message}.`;
}

function inWords(cause) {
  const said = words.dnsCause(cause);
  return said?.text ?? said ?? "no cause given";
}

/** What a run found, in one sentence and a tone. */
function outcome(state, report, took) {
  const rows = report?.resolutions ?? [];
  const bad = rows.filter((row) => row.health === "unhealthy");
  const old = rows.filter((row) => row.health === "degraded");
  const name = (row) => row.hostname ?? row.target;
  if (bad.length) {
    const [first] = bad;
    const more = bad.length > 1 ? ` and ${bad.length - 1} more` : "";
    return [`${name(first)}${more} did not resolve (${inWords(first.cause)}).`, "bad"];
  }
  if (state === "failed") return [`The run failed after ${took}; the log of its task says why.`, "bad"];
  if (!rows.length) return [`The run succeeded in ${took}.`, "done"];
  if (old.length) return [`DNS returned no fresh address for ${name(old[0])} (${inWords(old[0].cause)}); the stale one stays in use.`, "bad"];
  const changes = report.changes ?? [];
  const asked = `${words.count(rows.length, "name")} resolved in ${took}`;
  if (!changes.length) return [`${asked}; nothing changed.`, "done"];
  const [{ hostname, new: now }] = changes;
  const more = changes.length > 1 ? `, and ${changes.length - 1} more` : "";
  return [`${asked}; ${hostname} is now ${words.addresses(now ?? [], 2)}${more}.`, "done"];
}
