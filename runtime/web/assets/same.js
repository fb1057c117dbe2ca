// The page Same person twice: one key decides, the decision is saved at once, and one key takes it back.
import { watchPictures } from "./server.js";
import { askUntilDone, change, get, onKeys, pictureOf } from "./review.js";
import { virtualList } from "./virtual.js";

const PAGE = 500; // pairs of one answer
const MOST = 50000; // pairs on the page; the others follow when these are decided
const PAIRS = "/api/v1/pairs";
const WORDS = { same: "the same person", different: "never the same", undecided: "undecided", "": "" };

const element = (id) => document.getElementById(id);
const question = element("question");
if (question) start();

function start() {
  const [file, threshold, show, status, error, box] =
    ["file", "threshold", "show", "status", "error", "pairs"].map(element);
  let list = []; // the pairs that are loaded
  let places = new Map(); // "row-row" -> place in the list
  let asked = { total: 0, next: null, answer: null, values: {} };
  let loading = null;
  let current = 0;
  let aborted = new AbortController();
  let queue = Promise.resolve(); // changes are sent one after another
  let unsaved = 0;
  const view = virtualList(box, draw);

  function say(problem = "") {
    error.textContent = problem;
    error.hidden = !problem;
  }

  function tell() {
    if (!asked.answer) return;
    const decided = list.filter((pair) => pair.decision).length;
    const more = asked.all > MOST ? `, the best ${MOST.toLocaleString("en")} of ${asked.all.toLocaleString("en")}` : "";
    const saved = unsaved ? ` Saving ${unsaved} ...` : "";
    const total = asked.total.toLocaleString("en");
    status.textContent = asked.total
      ? `Pair ${(current + 1).toLocaleString("en")} of ${total}${more}. ${decided.toLocaleString("en")} decided.${saved}`
      : "No pairs.";
  }

  async function load() {
    aborted.abort();
    aborted = new AbortController();
    const { signal } = aborted;
    list = [];
    places = new Map();
    current = 0;
    asked = { total: 0, next: null, answer: null, values: {} };
    box.hidden = true;
    enable();
    say();
    const values = { file: file.value, threshold: threshold.value, show: show.value, limit: PAGE };
    status.textContent = "Comparing all photos ...";
    try {
      const answer = await askUntilDone(
        () => get(PAIRS, values, signal),
        (done) => (status.textContent = `Comparing all photos: ${Math.round(100 * done)} %`),
        signal,
      );
      const all = show.value === "all" ? answer.total : answer.counts[show.value];
      asked = { all, total: Math.min(all, MOST), next: answer.next, answer, values };
      take(answer.pairs);
      box.hidden = !asked.total;
      view.resize(asked.total);
      box.scrollTop = 0;
      select(0);
      box.focus();
    } catch (problem) {
      if (problem.name === "AbortError") return;
      status.textContent = "";
      say(problem.message);
    }
  }

  function take(pairs) {
    for (const pair of pairs) {
      places.set(`${pair.row_a}-${pair.row_b}`, list.length);
      list.push(pair);
    }
  }

  /** Load the list as far as a place. */
  function reach(place) {
    if (place < list.length || !asked.next) return Promise.resolve();
    loading ??= more(place).finally(() => (loading = null));
    return loading.then(() => reach(Math.min(place, asked.total - 1)));
  }

  async function more() {
    const { signal } = aborted;
    try {
      const answer = await (await get(PAIRS, { ...asked.values, cursor: asked.next }, signal)).json();
      asked.next = answer.next;
      take(answer.pairs);
      if (!answer.next && list.length < asked.total) asked.total = list.length; // others decided meanwhile
      view.resize(Math.min(asked.total, MOST));
      tell();
    } catch (problem) {
      asked.next = null;
      if (problem.name !== "AbortError") say(problem.message);
    }
  }

  function draw(item, place) {
    const pair = list[place];
    item.toggleAttribute("aria-current", place === current);
    if (place === current) item.setAttribute("aria-current", "true");
    if (!pair) {
      item.textContent = "Loading ...";
      reach(place);
      return;
    }
    const sides = ["a", "b"].map((side) => {
      const figure = document.createElement("figure");
      const caption = document.createElement("figcaption");
      caption.className = "name";
      caption.textContent = pair[`path_${side}`];
      figure.append(pictureOf(asked.answer.pictures, pair[`row_${side}`], pair[`path_${side}`]), caption);
      return figure;
    });
    const text = document.createElement("div");
    text.className = "text";
    const score = document.createElement("b");
    score.textContent = pair.score.toFixed(3);
    text.append(score);
    if (pair.expected_false !== undefined) {
      const expected = document.createElement("p");
      expected.className = "fact";
      const amount = pair.expected_false.toLocaleString("en", { maximumSignificantDigits: 2 });
      expected.textContent = `${pair.at_most ? "at most " : ""}${amount} false pairs expected from here up`;
      text.append(expected);
    }
    const decision = document.createElement("p");
    decision.className = `decision ${pair.decision}`;
    decision.textContent = WORDS[pair.decision];
    text.append(decision);
    item.replaceChildren(...sides, text);
  }

  function enable() {
    for (const verdict of ["same", "different", "undecided"]) element(verdict).disabled = !list[current];
  }

  function select(place) {
    if (!asked.total) return tell();
    current = Math.min(Math.max(place, 0), asked.total - 1);
    view.redraw();
    view.reveal(current);
    enable();
    tell();
    if (!list[current]) reach(current).then(() => select(current));
  }

  /** Go on to the next pair about which nothing is decided. */
  async function goOn() {
    let place = current + 1;
    for (;;) {
      await reach(place);
      if (place >= list.length) return select(current);
      if (!list[place].decision) return select(place);
      place++;
    }
  }

  function decide(verdict) {
    const pair = list[current];
    if (!pair) return;
    const { answer, values } = asked;
    const before = pair.decision;
    pair.decision = verdict;
    say();
    enqueue(async () => {
      try {
        const one = { row_a: pair.row_a, row_b: pair.row_b, decision: verdict };
        await change(`${PAIRS}/decisions`, values.file, { version: answer.version, decisions: [one] });
      } catch (problem) {
        pair.decision = before;
        if (answer === asked.answer) select(places.get(`${pair.row_a}-${pair.row_b}`));
        throw problem;
      }
    });
    goOn();
  }

  function step(what) {
    const { answer, values } = asked;
    if (!answer) return;
    say();
    enqueue(async () => {
      const done = await change(`${PAIRS}/${what}`, values.file, {});
      if (done.decision === null) return say(`There is nothing to ${what}.`);
      const place = places.get(`${Math.min(done.rows[0], done.others[0])}-${Math.max(done.rows[0], done.others[0])}`);
      if (place === undefined) return say(`The decision about a pair that is not in this list: ${what} is done.`);
      list[place].decision = done.now;
      select(place);
    });
  }

  function enqueue(work) {
    unsaved++;
    tell();
    queue = queue
      .then(work)
      .catch((problem) => say(`Not saved: ${problem.message}`))
      .finally(() => {
        unsaved--;
        tell();
      });
  }

  for (const verdict of ["same", "different", "undecided"]) element(verdict).addEventListener("click", () => decide(verdict));
  for (const what of ["undo", "redo"]) element(what).addEventListener("click", () => step(what));
  box.addEventListener("click", (event) => {
    const item = event.target.closest(".pair");
    if (item) select(Number(item.dataset.place));
  });
  question.addEventListener("submit", (event) => {
    event.preventDefault();
    load();
  });
  file.addEventListener("change", () => (threshold.value = file.selectedOptions[0].dataset.threshold));
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  onKeys({
    y: () => decide("same"),
    n: () => decide("different"),
    s: () => decide("undecided"),
    u: () => step("undo"),
    r: () => step("redo"),
    ArrowDown: () => select(current + 1),
    ArrowRight: () => select(current + 1),
    ArrowUp: () => select(current - 1),
    ArrowLeft: () => select(current - 1),
    PageDown: () => select(current + 10),
    PageUp: () => select(current - 10),
    Home: () => select(0),
    End: () => select(asked.total - 1),
  });
  watchPictures(box);
}
