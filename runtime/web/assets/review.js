// What the pages of the review share: questions that take long, pictures of rows, keys.
import { ask, send } from "./server.js";

const PAUSE_MS = 700; // between two questions about work that is not done

/** Ask until the answer is complete; `progress` gets the finished share, 0 to 1, until then. */
export async function askUntilDone(question, progress, signal) {
  for (;;) {
    const response = await question();
    const answer = await response.json();
    if (response.status !== 202) return answer;
    progress(answer.done);
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    signal?.throwIfAborted();
  }
}

export const get = (path, values, signal) => ask(`${path}?${new URLSearchParams(values)}`, { signal });

/** Send a change, each with a key of its own: a repeated request changes nothing twice. */
export const change = async (path, file, values) => {
  const key = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  const headers = { "Idempotency-Key": key.join("") };
  return (await send(`${path}?${new URLSearchParams({ file })}`, values, { headers })).json();
};

/** A frame with the picture of a row, and a note that shows when there is no picture. */
export function pictureOf(pictures, row, name) {
  const frame = document.createElement("div");
  frame.className = "photo";
  const note = document.createElement("span");
  note.textContent = "cannot be shown";
  note.hidden = true;
  const image = document.createElement("img");
  image.alt = name;
  image.decoding = "async";
  image.src = `${pictures}/${row}?view=face`;
  frame.append(note, image);
  return frame;
}

/** Call an action for a key, unless a text is being written or the key belongs to something else. */
export function onKeys(actions) {
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.target.matches("input:not([type=checkbox]), select, textarea") || document.querySelector("dialog[open]")) return;
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
