// Requests to the routes of the server, and what pages show of the answers.

const number = new Intl.NumberFormat("en");

/** Send a request and return its JSON. Throws an Error with the text of the problem. */
export async function ask(method, path, body) {
  const options = {method, headers: {}};
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `The server answered with status ${response.status}.`);
  return answer;
}

/** Show a text in an element, or hide the element if there is none. */
export function show(element, text) {
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
}

export const count = (value) => number.format(value);
export const many = (value, one, several) => `${count(value)} ${value === 1 ? one : several}`;

/** A size in bytes for people: 1.5 GB. */
export function size(bytes) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 999.5 && unit < units.length - 1) { bytes /= 1000; unit += 1; }
  return `${bytes >= 100 || unit === 0 ? Math.round(bytes) : bytes.toPrecision(2)} ${units[unit]}`;
}

/** A time for people: 45 s, 12 min, 3 h 05 min, 12 days. */
export function duration(seconds) {
  if (seconds < 59.5) return `${seconds < 10 && seconds > 0 ? seconds.toPrecision(2) : Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 48 * 60) return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.round(seconds / 86400)} days`;
}

/** A row of a list of figures. */
export function figure(name, text) {
  const row = document.createElement("div");
  const term = document.createElement("dt");
  const value = document.createElement("dd");
  term.textContent = name;
  value.textContent = text;
  row.append(term, value);
  return row;
}
