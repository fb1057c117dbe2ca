// The page Create dataset: choose a folder, plan, start.
import {ask, count, duration, figure, many, show, size} from "./requests.js";

const form = document.getElementById("create");
const part = (id) => document.getElementById(id);
let folder = "";
let only = false; // whether the server has one folder of photos

async function open(path, focus = false) {
  try {
    const listing = await ask("GET", `/api/v1/folders?path=${encodeURIComponent(path)}`);
    if (!path) only = listing.folders.length === 1;
    if (!path && only) return open(listing.folders[0].path, focus);
    folder = listing.path;
    forgetPlan();
    part("here").textContent = folder
      ? `${folder}: ${many(listing.photos, "photo", "photos")} here, ${listing.cut ? "more than " : ""}${many(listing.folders.length, "folder", "folders")}. All folders below are taken too.`
      : "Choose a folder.";
    const entries = listing.folders.map((each) => entry(each.name, each.path));
    if (folder && !(only && listing.parent === null)) entries.unshift(entry("Up", listing.parent ?? ""));
    part("folders").replaceChildren(...entries);
    if (focus) part("folders").querySelector("button")?.focus();
    show(part("folder-error"), "");
  } catch (error) {
    show(part("folder-error"), error.message);
  }
}

function entry(name, path) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.addEventListener("click", () => open(path, true));
  item.append(button);
  return item;
}

/** The body of the request: only what differs from the defaults. */
function body() {
  const options = {};
  for (const field of form.elements) {
    if (!field.name || field.name === "output") continue;
    if (field.type === "checkbox") {
      if (field.checked !== field.defaultChecked) options[field.name] = field.checked;
    } else if (field.name === "include" || field.name === "exclude") {
      if (field.value.trim()) options[field.name] = field.value.trim().split(/\s+/);
    } else if (field.type === "number") {
      if (field.value !== field.defaultValue) options[field.name] = Number(field.value);
    } else if (field.value && !field.selectedOptions[0].defaultSelected) {
      options[field.name] = field.value;
    }
  }
  return {photos: [folder], output: form.elements.output.value, options};
}

function forgetPlan() {
  part("plan").hidden = part("problems").hidden = part("start").hidden = true;
  part("make-plan").hidden = false;
  show(part("error"), "");
}

async function plan() {
  forgetPlan();
  if (!folder) return show(part("error"), "Choose a folder of photos first.");
  const question = body();
  part("make-plan").disabled = true;
  part("plan-state").textContent = "Counting the photos and measuring this machine.";
  try {
    showPlan(await ask("POST", "/api/v1/jobs/plan", question));
  } catch (error) {
    show(part("error"), error.message);
    part("plan-state").textContent = "There is no plan.";
  } finally {
    part("make-plan").disabled = false;
  }
}

function showPlan(found) {
  const time = found.time.value === null ? "unknown" : duration(found.time.value);
  part("plan").replaceChildren(
    figure("photos", count(found.photographs)),
    figure("time", found.time.basis === "guess" ? `about ${time}, a guess` : time),
    figure("disk while it runs", size(found.disk_running.value)),
    figure("disk afterwards", size(found.disk.value)),
    figure("memory", size(found.memory.value)),
    figure("model", found.model),
  );
  const problems = [found.time, found.disk_running, found.memory].map((item) => item.problem).filter(Boolean);
  part("problems").replaceChildren(...problems.map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  }));
  const over = Object.entries(found.passed_over).map(([kind, number]) => `${kind} ${count(number)}`).join(", ");
  part("plan-state").textContent = (found.fits ? "This fits on the machine." : "This does not fit on the machine.")
    + (over ? ` Passed over: ${over}.` : "");
  part("plan").hidden = false;
  part("problems").hidden = !problems.length;
  part("start").hidden = false;
  part("make-plan").hidden = true;
  part("start").focus();
}

async function start() {
  part("start").disabled = true;
  try {
    const job = await ask("POST", "/api/v1/jobs", body());
    location.assign(`/jobs?id=${encodeURIComponent(job.id)}`);
  } catch (error) {
    show(part("error"), error.message);
    part("start").disabled = false;
  }
}

if (form) {
  form.addEventListener("submit", (event) => { event.preventDefault(); plan(); });
  form.addEventListener("input", forgetPlan);
  part("start").addEventListener("click", start);
  open("");
}
