// The page's requests: to our endpoints, and to Airflow's REST API. All URLs are relative, so they
// work under any path of Airflow.

const PATIENCE_MS = 45_000;

/** Why there is no answer; `status` is 0 if the server could not be reached. */
export class Refused extends Error {
  constructor(status, detail) {
    super(detail || `status ${status}`);
    this.status = status;
    this.detail = detail;
  }
}

async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, {
      credentials: "same-origin",
      headers: { Accept: "application/json", ...(options.body && { "Content-Type": "application/json" }) },
      cache: "no-store",
      signal: AbortSignal.timeout(PATIENCE_MS),
      ...options,
    });
  } catch (error) {
    throw new Refused(0, error.name === "TimeoutError" ? `no answer in ${PATIENCE_MS / 1000} s` : "");
  }
  let body = null;
  try {
    body = await answer.json();
  } catch {
    if (answer.ok) throw new Refused(answer.status, "the answer is not JSON");
  }
  if (!answer.ok) throw new Refused(answer.status, detailOf(body));
  return body;
}

async function askIfThere(path) {
  try {
    return await ask(path);
  } catch (error) {
    if (error instanceof Refused && error.status === 404) return null;
    throw error;
  }
}

function detailOf(body) {
  const detail = body?.detail;
  if (typeof detail === "string") return detail;
  return typeof detail?.reason === "string" ? detail.reason : "";
}

/** The state of each connection.
 *
 * @param fresh whether the server should check again, even if its last check is recent.
 */
export const health = (fresh = false) => ask(`health/mlflow${fresh ? "?fresh=true" : ""}`);

/** The last day, or null if the server has none. */
export const history = (fresh = false) => askIfThere(`history${fresh ? "?fresh=true" : ""}`);

const dagPath = (dagId) => `../api/v2/dags/${encodeURIComponent(dagId)}`;
const runPath = (dagId, runId) => `${dagPath(dagId)}/dagRuns/${encodeURIComponent(runId)}`;

/** A DAG's details from Airflow, or null if there is no such DAG. */
export const dag = (dagId) => askIfThere(dagPath(dagId));

export const trigger = (dagId) =>
  ask(`${dagPath(dagId)}/dagRuns`, { method: "POST", body: JSON.stringify({ logical_date: null }) });

export const run = (dagId, runId) => ask(runPath(dagId, runId));

/** The refresh operator's return value, or null. Only for the text about a run. */
export async function report(dagId, runId) {
  try {
    const path = `${runPath(dagId, runId)}/taskInstances/refresh/xcomEntries/return_value`;
    const { value } = await ask(`${path}?stringify=false&deserialize=false`);
    return typeof value === "string" ? JSON.parse(value) : value;
  } catch {
    return null;
  }
}
