// Ask the server of this page. Every page uses these functions, so that a lost session and an error look the same.

/** Ask, and return the response. Throws an Error whose message is the problem that the server states. */
export async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is it running?");
  }
  if (response.status === 401) location.assign(`/login?next=${encodeURIComponent(location.pathname)}`);
  if (!response.ok) throw new Error(await problemOf(response));
  return response;
}

/** Send JSON, and return the response. */
export function send(path, values, options = {}) {
  const headers = { "Content-Type": "application/json", ...options.headers };
  return ask(path, { method: "POST", body: JSON.stringify(values), ...options, headers });
}

/** Fill an element with a part of a page that the server has made and escaped. */
export async function fill(element, response) {
  const parsed = new DOMParser().parseFromString(await response.text(), "text/html");
  element.replaceChildren(...parsed.body.childNodes);
}

/** Say in place of each picture below an element that does not load that it cannot be shown. */
export function watchPictures(element) {
  element.addEventListener("error", ({ target }) => showPicture(target, false), true);
  element.addEventListener("load", ({ target }) => showPicture(target, true), true);
}

function showPicture(image, loaded) {
  if (image.tagName !== "IMG") return;
  image.hidden = !loaded;
  const note = image.parentElement.querySelector("span");
  if (note) note.hidden = loaded;
}

async function problemOf(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The server answers with status ${response.status}.`;
  }
}
