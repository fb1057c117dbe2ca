"use strict";
// The reviewer's answers: stored by the browser under the key of this page, and saved as CSV. No path becomes markup:
// the pairs are in the page already, and the saved text is data.
const { key, file, pairs, safe } = JSON.parse(document.getElementById("data").textContent);
const cards = [...document.querySelectorAll(".pair")];
const [counter, decided, undecided, save, none] =
  ["counter", "decided", "undecided", "save", "none"].map((id) => document.getElementById(id));
let answers = load();
let current = Math.max(0, answers.indexOf(""));
let stored = true;
let unsaved = false;

function load() {
  try {
    const saved = JSON.parse(localStorage.getItem(key));
    if (Array.isArray(saved) && saved.length === pairs.length) {
      return saved.map((answer) => (answer === "yes" || answer === "no" ? answer : ""));
    }
  } catch {}
  return pairs.map(() => "");
}

function store() {
  try {
    localStorage.setItem(key, JSON.stringify(answers));
  } catch {
    stored = false;
  }
}

function show() {
  cards.forEach((card, i) => {
    card.dataset.same = answers[i];
    card.classList.toggle("here", i === current);
    card.toggleAttribute("aria-current", i === current);
    card.hidden = undecided.checked && answers[i] !== "" && i !== current;
    card.querySelector(".yes").setAttribute("aria-pressed", answers[i] === "yes");
    card.querySelector(".no").setAttribute("aria-pressed", answers[i] === "no");
  });
  const [yes, no] = ["yes", "no"].map((answer) => answers.filter((given) => given === answer).length);
  counter.textContent = `${yes + no} of ${pairs.length} decided: ${yes} yes, ${no} no`;
  decided.value = yes + no;
  none.hidden = !(undecided.checked && yes + no === pairs.length);
}

function select(index) {
  if (!cards.length) return;
  current = Math.min(Math.max(index, 0), cards.length - 1);
  show();
  cards[current].scrollIntoView({ block: "nearest" });
}

function step(by) {
  let to = current + by;
  while (undecided.checked && answers[to]) to += by;
  if (to >= 0 && to < cards.length) select(to);
}

function decide(index, answer) {
  if (!cards.length) return;
  answers[index] = answer;
  unsaved = true;
  store();
  current = index;
  show();
  if (answer) step(1);
}

function csv() {
  const plain = (text) => (safe && /^[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]/.test(text) ? "'" + text : text);
  const quoted = (value) => '"' + plain(String(value)).replaceAll('"', '""') + '"';
  const lines = pairs.flatMap(([a, b, score, ...rows], i) =>
    answers[i] ? [[quoted(a), quoted(b), score, answers[i], ...rows].join(",")] : []);
  const names = "path_a,path_b,score,same,row_a,row_b,page_a,page_b".split(",");
  return [names.slice(0, 1 + (pairs[0]?.length ?? 5)), ...lines, ""].join("\n");
}

cards.forEach((card, i) => {
  card.querySelector(".yes").addEventListener("click", () => decide(i, answers[i] === "yes" ? "" : "yes"));
  card.querySelector(".no").addEventListener("click", () => decide(i, answers[i] === "no" ? "" : "no"));
  card.addEventListener("pointerdown", () => { current = i; show(); });
});
undecided.addEventListener("change", () => { show(); if (answers[current]) step(1); });
save.addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const act = {
    y: () => decide(current, "yes"), n: () => decide(current, "no"), u: () => decide(current, ""),
    ArrowRight: () => step(1), ArrowDown: () => step(1), ArrowLeft: () => step(-1), ArrowUp: () => step(-1),
  }[event.key];
  if (act) {
    event.preventDefault();
    act();
  }
});
addEventListener("beforeunload", (event) => { if (unsaved && !stored) event.preventDefault(); });
show();
