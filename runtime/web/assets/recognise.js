// The page Recognise: photos become faces, a face becomes hits, and a hit is compared side by side.
import { ask, fill, send, watchPictures } from "./server.js";
import { copy, openPhoto, sameFace } from "./photos.js";

const MOST_PHOTOS = 20; // on the page at once
const PAUSE_MS = 80; // after the latest move of a slider

const element = (id) => document.getElementById(id);
const question = element("question");
if (question) start();

function start() {
  const [file, hits, queries, status, error] = ["file", "hits", "queries", "status", "error"].map(element);
  let chosen = null; // the face that is searched for: { vector, file, crop, whole, name }
  let asked = new AbortController();
  let timer = 0;
  let queue = Promise.resolve(); // photos are embedded one after another

  function say(text, problem = "") {
    status.textContent = text;
    error.textContent = problem;
    error.hidden = !problem;
  }

  function add(files) {
    for (const each of [...files].slice(0, MOST_PHOTOS)) queue = queue.then(() => addPhoto(each));
  }

  // The main face first: its vector is made as the vectors of the rows were, and its hits are there at once. The other
  // faces come from a second look in larger views, which takes longer.
  async function addPhoto(photo) {
    say(`Looking for faces in ${photo.name} ...`);
    const searched = file.value;
    let drawn = null;
    try {
      const main = await recognise(photo, searched, "largest");
      drawn = await openPhoto(photo);
      const figure = showPhoto(photo, drawn);
      say("", main.error ? `${photo.name}: ${main.error}` : "");
      main.faces.forEach((face) => showFace(figure, photo, face, drawn, searched));
      if (!main.faces.length) return;
      figure.querySelector("button").click();
      if (!main.faces[0].box) return; // the photo was taken whole
      const every = await recognise(photo, searched, "all");
      const others = every.faces.filter(({ box }) => !sameFace(box, main.faces[0].box));
      others.forEach((face) => showFace(figure, photo, face, drawn, searched));
    } catch (problem) {
      say("", `${photo.name}: ${problem.message}`);
    } finally {
      drawn?.close();
    }
  }

  async function recognise(photo, searched, faces) {
    const headers = { "Content-Type": photo.type.startsWith("image/") ? photo.type : "application/octet-stream" };
    const path = `/api/v1/recognition?faces=${faces}&file=${encodeURIComponent(searched)}`;
    return (await ask(path, { method: "POST", body: photo, headers })).json();
  }

  /** Show a photo; its faces follow. */
  function showPhoto(photo, drawn) {
    const figure = document.createElement("figure");
    figure.className = "query-photo";
    const [frame, list, caption] = ["div", "ul", "figcaption"].map((tag) => document.createElement(tag));
    frame.className = "frame";
    list.className = "faces";
    caption.textContent = drawn ? photo.name : `${photo.name} (this browser cannot show it)`;
    if (drawn) {
      drawn.whole.setAttribute("role", "img");
      drawn.whole.setAttribute("aria-label", photo.name);
      frame.append(drawn.whole);
    }
    figure.append(frame, list, caption);
    queries.prepend(figure);
    while (queries.children.length > MOST_PHOTOS) queries.lastElementChild.remove();
    return figure;
  }

  /** Add a face to its photo: a mark on the photo, and a button that searches for the face. */
  function showFace(figure, photo, face, drawn, searched) {
    const mark = document.createElement("i");
    const crop = drawn?.crop(face.box) ?? null;
    if (drawn && face.box) {
      const [left, top, right, bottom] = face.box.map((edge) => edge * drawn.scale);
      const { width, height } = drawn.whole;
      Object.assign(mark.style, {
        left: `${(100 * left) / width}%`, top: `${(100 * top) / height}%`,
        width: `${(100 * (right - left)) / width}%`, height: `${(100 * (bottom - top)) / height}%`,
      });
      figure.querySelector(".frame").append(mark);
    }
    const list = figure.querySelector(".faces");
    const label = `Face ${list.children.length + 1}`;
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-pressed", "false");
    if (crop) {
      const small = document.createElement("canvas");
      copy(crop, small);
      small.setAttribute("aria-hidden", "true");
      button.append(small);
    }
    button.append(label);
    const name = `${photo.name}, ${label.toLowerCase()}`;
    const query = { button, mark, name, vector: face.vector, file: searched, crop, whole: drawn?.whole ?? null };
    button.addEventListener("click", () => choose(query));
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }

  function choose(query) {
    if (chosen) {
      chosen.button.setAttribute("aria-pressed", "false");
      chosen.mark.classList.remove("here");
    }
    chosen = query;
    query.button.setAttribute("aria-pressed", "true");
    query.mark.classList.add("here");
    search();
  }

  async function search() {
    clearTimeout(timer);
    if (!chosen) return;
    if (!question.reportValidity()) return;
    if (chosen.file !== file.value) return say("Choose the photo again: another file may have another model.");
    asked.abort();
    asked = new AbortController();
    const has = file.selectedOptions[0].dataset;
    const filters = has.attributes
      ? { gender: element("gender").value, age: element("age").value, unsure: element("sure").checked ? "drop" : "keep" }
      : {};
    const values = {
      file: file.value, model_sha256: has.model, vector: chosen.vector, k: Number(element("k").value),
      threshold: Number(element("threshold").value), by_folder: element("by_folder").checked, ...filters,
    };
    hits.setAttribute("aria-busy", "true");
    try {
      await fill(hits, await send("/recognise/hits", values, { signal: asked.signal }));
      const count = hits.querySelectorAll("li[data-row]").length;
      say(`${count} ${count === 1 ? "hit" : "hits"} for ${chosen.name}`);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      say("", problem.message);
    }
    hits.removeAttribute("aria-busy");
  }

  function showValues() {
    question.querySelector("output[for=k]").value = element("k").value;
    const threshold = Number(element("threshold").value);
    question.querySelector("output[for=threshold]").value = threshold ? threshold.toFixed(2) : "any";
  }

  function showFilters() {
    const attributes = file.selectedOptions[0].dataset.attributes.split(" ");
    element("gender-field").hidden = !attributes.includes("gender");
    element("age-field").hidden = !attributes.includes("age");
    element("attributes").hidden = !attributes.includes("gender") && !attributes.includes("age");
    for (const id of ["gender", "age"]) if (!attributes.includes(id)) element(id).value = "";
  }

  const drop = element("drop");
  element("photos").addEventListener("change", ({ target }) => {
    add(target.files);
    target.value = ""; // so that the same photo can be chosen again
  });
  addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  addEventListener("dragleave", () => drop.classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    add(event.dataTransfer.files);
  });
  addEventListener("paste", ({ clipboardData }) => add(clipboardData.files));
  question.addEventListener("submit", (event) => { event.preventDefault(); search(); });
  question.addEventListener("input", ({ target }) => {
    if (target.type === "file") return;
    showValues();
    if (target === file) showFilters();
    clearTimeout(timer);
    timer = setTimeout(search, PAUSE_MS);
  });
  watchPictures(hits);
  element("options").open = matchMedia("(min-width: 56rem)").matches; // on a narrow screen the hits are below them
  showValues();
  showFilters();
  startComparison(hits, () => chosen);
}

/** Compare a hit with the face that was searched for. Arrow keys go to the next hit, Escape closes. */
function startComparison(hits, query) {
  const [dialog, mine, theirs, whole] = ["compare", "mine", "theirs", "whole"].map(element);
  let place = 0;

  function show(index) {
    const cards = [...hits.querySelectorAll("li[data-row]")];
    const { crop, whole: photo, name } = query();
    place = Math.min(Math.max(index, 0), cards.length - 1);
    const { path, score } = cards[place].dataset;
    const mySide = whole.checked ? photo : crop;
    mine.hidden = !mySide;
    if (mySide) copy(mySide, mine);
    mine.setAttribute("aria-label", `Your photo: ${name}`);
    theirs.src = `${cards[place].querySelector("img").getAttribute("src")}?view=${whole.checked ? "photo" : "face"}`;
    theirs.alt = `Hit ${place + 1}: ${path}`;
    element("compare-title").textContent = `Hit ${place + 1} of ${cards.length}, score ${score}`;
    element("my-name").textContent = name;
    element("their-name").textContent = path;
    element("previous").disabled = place === 0;
    element("next").disabled = place === cards.length - 1;
  }

  hits.addEventListener("click", ({ target }) => {
    const card = target.closest(".cover")?.closest("li");
    if (!card) return;
    show([...hits.querySelectorAll("li[data-row]")].indexOf(card));
    dialog.showModal();
  });
  element("previous").addEventListener("click", () => show(place - 1));
  element("next").addEventListener("click", () => show(place + 1));
  element("close").addEventListener("click", () => dialog.close());
  whole.addEventListener("change", () => show(place));
  dialog.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft") show(place - 1);
    if (key === "ArrowRight") show(place + 1);
  });
  dialog.addEventListener("close", () => hits.querySelectorAll(".cover")[place]?.focus());
  watchPictures(dialog);
}
