// The page People: clusters as faces. A name, a merge and a split are saved at once, and one key takes them back.
import { send, watchPictures } from "./server.js";
import { askUntilDone, change, get, onKeys, pictureOf } from "./review.js";

const PAGE = 24; // people on the page
const FACES = 60; // faces that the dialog adds at a time
const CLUSTERS = "/api/v1/clusters";

const element = (id) => document.getElementById(id);
const question = element("question");
if (question) start();

function start() {
  const [file, least, status, error, people, pages, previous, next, merge] =
    ["file", "least", "status", "error", "people", "pages", "previous", "next", "merge"].map(element);
  const [dialog, title, faces, more, split, problem] =
    ["person", "person-title", "faces", "more", "split", "person-error"].map(element);
  let starts = [undefined]; // the cursors of the pages so far
  let answer = null;
  let marked = new Map(); // id of a cluster -> its name
  let opened = null; // the cluster of the dialog: { id, next, rows }

  function say(text, wrong = "") {
    status.textContent = text;
    error.textContent = wrong;
    error.hidden = !wrong;
  }

  async function load() {
    marked = new Map();
    merge.disabled = true;
    try {
      const values = { file: file.value, min_photos: least.value, limit: PAGE };
      const cursor = starts.at(-1);
      answer = await (await get(CLUSTERS, cursor ? { ...values, cursor } : values)).json();
      const count = answer.total.toLocaleString("en");
      if (!answer.grouped) {
        say("The photos of this file are not grouped by person yet.");
        element("grouping").open = true;
      } else say(`${count} ${answer.total === 1 ? "person" : "people"} with ${answer.photos.toLocaleString("en")} faces`);
      people.replaceChildren(...answer.clusters.map(card));
    } catch (wrong) {
      answer = null;
      people.replaceChildren();
      say("", wrong.message);
    }
    pages.hidden = starts.length === 1 && !answer?.next;
    previous.disabled = starts.length === 1;
    next.disabled = !answer?.next;
  }

  function reload() {
    starts = [undefined];
    return load();
  }

  function card(cluster) {
    const item = document.createElement("li");
    item.className = "card person";
    item.dataset.id = cluster.id;
    const label = cluster.name || `Person ${cluster.cluster}`;
    const strip = document.createElement("ul");
    strip.className = "strip";
    strip.setAttribute("aria-label", `Faces of ${label}`);
    strip.append(...cluster.faces.map((face) => {
      const entry = document.createElement("li");
      entry.append(pictureOf(answer.pictures, face.row, face.path));
      return entry;
    }));
    const form = document.createElement("form");
    const name = document.createElement("input");
    Object.assign(name, { type: "text", value: cluster.name, maxLength: 200, placeholder: "Name", autocomplete: "off" });
    name.setAttribute("aria-label", `Name of ${label}`);
    const save = document.createElement("button");
    save.textContent = "Save";
    form.append(name, save);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      apply("name", { cluster: cluster.id, name: name.value }, `${label} is now called ${name.value || "nothing"}.`);
    });
    const tools = document.createElement("div");
    tools.className = "tools";
    const mark = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", `Mark ${label}`);
    mark.append(box, " Mark");
    box.addEventListener("change", () => {
      item.classList.toggle("marked", box.checked);
      if (box.checked) marked.set(cluster.id, label);
      else marked.delete(cluster.id);
      merge.disabled = marked.size < 2;
    });
    const all = document.createElement("button");
    all.type = "button";
    all.textContent = cluster.size === 1 ? "1 face" : `All ${cluster.size.toLocaleString("en")} faces`;
    all.setAttribute("aria-label", `${all.textContent} of ${label}`);
    all.addEventListener("click", () => open(cluster, label));
    tools.append(mark, all);
    item.append(strip, form, tools);
    return item;
  }

  /** Save a change of the clusters that are shown, and show what became of them. */
  async function apply(what, values, text) {
    try {
      await change(`${CLUSTERS}/${what}`, answer.file, { version: answer.version, ...values });
      await load();
      if (answer) say(text);
    } catch (wrong) {
      say("", `Not saved: ${wrong.message}`);
    }
  }

  function mergeMarked() {
    if (marked.size < 2) return;
    const names = [...marked.values()].join(", ");
    apply("merge", { clusters: [...marked.keys()] }, `One person now: ${names}.`);
  }

  async function step(what) {
    try {
      const done = await change(`${CLUSTERS}/${what}`, file.value, {});
      await load();
      if (answer) say(done.decision === null ? `There is nothing to ${what}.` : `The ${done.kind} is ${what}ne.`.replace("redone", "done again"));
    } catch (wrong) {
      say("", wrong.message);
    }
  }

  async function open(cluster, label) {
    opened = { id: cluster.id, rows: new Set(), next: undefined, size: cluster.size };
    title.textContent = label;
    faces.replaceChildren();
    tellDialog();
    dialog.showModal();
    await addFaces();
  }

  function tellDialog(wrong = "") {
    split.disabled = !opened.rows.size || opened.rows.size === opened.size;
    problem.textContent = wrong;
    problem.hidden = !wrong;
  }

  async function addFaces() {
    const values = { file: answer.file, cluster: opened.id, limit: FACES };
    try {
      const page = await (await get(`${CLUSTERS}/faces`, opened.next ? { ...values, cursor: opened.next } : values)).json();
      opened.next = page.next;
      more.hidden = !page.next;
      faces.append(...page.faces.map((face) => faceOf(face, page.pictures)));
    } catch (wrong) {
      tellDialog(wrong.message);
    }
  }

  function faceOf(face, pictures) {
    const item = document.createElement("li");
    item.className = "face";
    const label = document.createElement("label");
    const check = document.createElement("span");
    check.className = "check";
    const box = document.createElement("input");
    box.type = "checkbox";
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = face.path;
    check.append(box, name);
    label.append(pictureOf(pictures, face.row, ""), check);
    item.append(label);
    box.addEventListener("change", () => {
      item.classList.toggle("marked", box.checked);
      if (box.checked) opened.rows.add(face.row);
      else opened.rows.delete(face.row);
      tellDialog();
    });
    return item;
  }

  split.addEventListener("click", async () => {
    const rows = [...opened.rows];
    try {
      await change(`${CLUSTERS}/split`, answer.file, { version: answer.version, cluster: opened.id, rows });
      dialog.close();
      await load();
      if (answer) say(rows.length === 1 ? "1 face is somebody else now." : `${rows.length} faces are somebody else now.`);
    } catch (wrong) {
      tellDialog(`Not saved: ${wrong.message}`);
    }
  });
  more.addEventListener("click", addFaces);
  element("close").addEventListener("click", () => dialog.close());
  merge.addEventListener("click", mergeMarked);
  for (const what of ["undo", "redo"]) element(what).addEventListener("click", () => step(what));
  next.addEventListener("click", () => { starts.push(answer.next); load(); });
  previous.addEventListener("click", () => { starts.pop(); load(); });
  question.addEventListener("submit", (event) => { event.preventDefault(); reload(); });
  file.addEventListener("change", () => (element("threshold").value = file.selectedOptions[0].dataset.threshold));
  element("group").addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = { threshold: Number(element("threshold").value) };
    const path = `${CLUSTERS}/group?${new URLSearchParams({ file: file.value })}`;
    say("Comparing all photos ...");
    try {
      await askUntilDone(() => send(path, values), (done) => say(`Comparing all photos: ${Math.round(100 * done)} %`));
      element("grouping").open = false;
      await reload();
    } catch (wrong) {
      say("", wrong.message);
    }
  });
  onKeys({ m: mergeMarked, u: () => step("undo"), r: () => step("redo") });
  for (const part of [people, faces]) watchPictures(part);
  load();
}
