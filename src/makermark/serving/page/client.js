// Requests to the server, and helpers for numbers and elements of the page.

/** @returns {Promise<Response>}; throws an Error with the server's one-line message. */
export async function request(path, { method = "GET", fields = {}, files = [], maxBytes = Infinity } = {}) {
  const total = files.reduce((sum, [, file]) => sum + file.size, 0);
  if (total > maxBytes) throw new Error(`The upload has ${megabytes(total)} MB; the limit is ${megabytes(maxBytes)} MB.`);
  let body;
  if (method === "POST") {
    body = new FormData();
    Object.entries(fields).forEach(([name, value]) => body.append(name, value));
    files.forEach(([name, file]) => body.append(name, file, file.name));
  }
  let response;
  try {
    response = await fetch(path, { method, body });
  } catch {
    throw new Error("The server does not respond: it has stopped, or it rejected the upload.");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw new Error(problem.error ?? `The server responded with status ${response.status}.`);
  }
  return response;
}

const megabytes = (bytes) => (bytes / 2 ** 20).toFixed(0);

/** Formats a likelihood ratio: `240 to 1`, `1 to 52`; `over` or `under` at the bound of the calibration. */
export function formatRatio(log10, atBound) {
  const size = 10 ** Math.abs(log10);
  const number = size >= 9.5 ? Math.round(size).toString() : size.toFixed(1);
  const bound = atBound ? (log10 > 0 ? "over " : "under ") : "";
  return log10 >= 0 ? `${bound}${number} to 1` : `${bound}1 to ${number}`;
}

export const formatPercent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** Creates an element. Text is set as text content, so names from clients are never parsed as HTML. */
export function createElement(tag, { text, children = [], ...properties } = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Runs `task` and shows its state in the section: `text` while it runs, then its result or its error message. */
export async function runTask(section, text, task, buttons = []) {
  const status = byId(`${section}-status`), problem = byId(`${section}-problem`) ?? status;
  if (problem !== status) problem.hidden = true;
  status.textContent = text;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    status.textContent = (await task()) ?? "";
  } catch (error) {
    status.textContent = "";
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}
