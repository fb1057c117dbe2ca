// The page Jobs: what a job does, as it happens. It may be closed at any time: the job does not need it.
import {ask, count, duration, figure, show, size} from "./requests.js";

const FAILURES_EVERY_MS = 20_000;
const LIST_EVERY_MS = 5_000;
const AGAIN_MS = 3_000;
const WORDS = {
  waiting: "Waiting: another job runs, or the process starts",
  running: "Running",
  pausing: "Pausing: the work in flight is being made durable",
  paused: "Paused: no memory is used, and nothing is lost",
  stopping: "Stopping: the work in flight is being made durable",
  stopped: "Stopped by the system: the next start of the server resumes it",
  cancelled: "Stopped: photos that are done are kept",
  failed: "Failed",
  finished: "Finished",
};
const BUTTONS = {
  pause: ["waiting", "running", "stopped"],
  resume: ["pausing", "paused", "stopped", "cancelled", "failed"],
  cancel: ["waiting", "running", "pausing", "paused", "stopped", "failed"],
  delete: ["cancelled", "failed", "finished"],
  open: ["finished"],
};

const part = (id) => document.getElementById(id);
const job = JSON.parse(part("jobs")?.dataset.job ?? "null");
let last = job?.last_event ?? 0;
let failed = -1;
let asked = 0;
let events = null;

function showState(facts) {
  show(part("state"), WORDS[facts.state] ?? facts.state);
  show(part("job-error"), facts.error ? `${facts.error.code}: ${facts.error.detail}` : "");
  for (const [id, states] of Object.entries(BUTTONS)) part(id).hidden = !states.includes(facts.state);
  if (facts.state !== "running") show(part("phase"), "");
  if (facts.summary) showOutcomes(facts.summary.outcomes);
  if (["finished", "failed", "paused", "cancelled"].includes(facts.state)) {
    part("eta").textContent = "\u2013";
    askFailures();
  }
}

function showProgress(facts) {
  const share = facts.total ? facts.done / facts.total : 0;
  part("share").value = share;
  part("done").textContent = `${(100 * share).toFixed(1)} %`;
  part("done").title = `${count(facts.done)} of ${count(facts.total)} photos`;
  part("rate").textContent = count(Math.round(facts.images_per_s));
  part("elapsed").textContent = duration(facts.elapsed_s);
  part("eta").textContent = facts.eta_s === null ? "\u2013" : duration(facts.eta_s);
  part("bottleneck").textContent = facts.bottleneck || "\u2013";
  part("memory").textContent = size(facts.memory_bytes);
  part("gpu").textContent = facts.gpu
    ? `${facts.gpu.name}: ${size(facts.gpu.used_bytes)} of ${size(facts.gpu.total_bytes)}`
      + (facts.gpu.busy === undefined ? "" : `, ${Math.round(100 * facts.gpu.busy)} % busy`)
    : "none";
  showOutcomes(facts.outcomes);
  const failures = Object.entries(facts.outcomes).filter(([name]) => name !== "embedded")
    .reduce((sum, [, number]) => sum + number, 0);
  if (failures !== failed && Date.now() - asked > FAILURES_EVERY_MS) {
    failed = failures;
    askFailures();
  }
}

function showOutcomes(outcomes) {
  part("outcomes").replaceChildren(...Object.entries(outcomes).map(([name, number]) => figure(name, count(number))));
}

async function askFailures() {
  asked = Date.now();
  const {failures} = await ask("GET", `/api/v1/jobs/${job.id}/failures`).catch(() => ({failures: []}));
  if (!failures.length) return;
  part("failures").hidden = false;
  part("no-failures").hidden = true;
  part("failures").querySelector("tbody").replaceChildren(...failures.map((failure) => {
    const row = document.createElement("tr");
    for (const text of [failure.path, failure.status, failure.detail]) {
      const cell = document.createElement("td");
      cell.textContent = text;
      row.append(cell);
    }
    return row;
  }));
}

/** Follow the events of the job, unless that is being done, or no event can come. */
function follow(state) {
  if (["finished", "cancelled"].includes(state) || events) return;
  events = new EventSource(`/api/v1/jobs/${job.id}/events?after=${last}`);
  const on = (kind, action) => events.addEventListener(kind, (event) => {
    part("connection").hidden = true;
    if (event.lastEventId) last = Number(event.lastEventId);
    action(JSON.parse(event.data));
  });
  on("state", (facts) => {
    showState(facts);
    if (["finished", "cancelled"].includes(facts.state)) leave();
  });
  on("progress", showProgress);
  on("phase", (facts) => show(part("phase"), facts.text));
  on("step", (facts) => show(part("phase"), `${facts.step}: ${count(facts.done)} of ${count(facts.total)} ${facts.unit}`));
  on("started", () => {});
  on("ended", () => {});
  events.addEventListener("error", () => {
    part("connection").hidden = false;
    leave();
    setTimeout(follow, AGAIN_MS); // the browser itself gives up after an answer like 429
  });
}

function leave() {
  events?.close();
  events = null;
}

async function act(action) {
  try {
    if (action === "delete") {
      await ask("DELETE", `/api/v1/jobs/${job.id}`);
      location.assign("/jobs");
      return;
    }
    const facts = await ask("POST", `/api/v1/jobs/${job.id}/${action}`);
    showState(facts);
    follow(facts.state);
    (part("resume").hidden ? part("pause") : part("resume")).focus();
  } catch (error) {
    show(part("job-error"), error.message);
  }
}

async function showList() {
  const {jobs} = await ask("GET", "/api/v1/jobs").catch(() => ({jobs: null}));
  if (!jobs || document.hidden) return;
  const shown = new Map([...part("list").children].map((item) => [new URL(item.querySelector("a").href).searchParams.get("id"), item]));
  for (const each of jobs) {
    const item = shown.get(each.id);
    if (item) show(item.querySelector("span"), each.state);
    if (each.id === job.id && !events) { // it may have been resumed in another window
      showState(each);
      follow(each.state);
    }
  }
}

if (job) {
  if (job.progress) showProgress(job.progress);
  showState(job);
  askFailures();
  follow(job.state);
  for (const action of ["pause", "resume", "cancel", "delete"]) part(action).addEventListener("click", () => act(action));
  setInterval(showList, LIST_EVERY_MS);
}
