// Questions to the server, and numbers as people read them.

/** @returns {Promise<Response>}; throws an Error with the server's one line. */
export async function ask(path, { method = "GET", fields = {}, files = [], maxBytes = Infinity } = {}) {
  const total = files.reduce((sum, [, file]) => sum + file.size, 0);
  if (total > maxBytes) throw new Error(`${mega(total)} MB; at most ${mega(maxBytes)} MB are taken`);
  let body;
  if (method === "POST") {
    body = new FormData();
    Object.entries(fields).forEach(([name, value]) => body.append(name, value));
    files.forEach(([name, file]) => body.append(name, file, file.name));
  }
  let answer;
  try {
    answer = await fetch(path, { method, body });
  } catch {
    throw new Error("the server does not answer: it has ended, or refused what was sent");
  }
  if (!answer.ok) {
    const said = await answer.json().catch(() => ({}));
    throw new Error(said.error ?? `the server answered ${answer.status}`);
  }
  return answer;
}

const mega = (bytes) => (bytes / 2 ** 20).toFixed(0);

/** `240 to 1`, or `1 to 52`; `over`, `under` where what was learned from vouches no further. */
export function ratio(log10, atBound) {
  const size = 10 ** Math.abs(log10);
  const said = size >= 9.5 ? Math.round(size).toString() : size.toFixed(1);
  const beyond = atBound ? (log10 > 0 ? "over " : "under ") : "";
  return log10 >= 0 ? `${beyond}${said} to 1` : `${beyond}1 to ${said}`;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** An element with text and children; whatever a client named is text and never markup. */
export function make(tag, { text, children = [], ...properties } = {}) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

export const at = (id) => document.getElementById(id);

/** Runs `work` while its section says so; an error is told, not thrown. */
export async function during(section, text, work, buttons = []) {
  const status = at(`${section}-status`), problem = at(`${section}-problem`) ?? status;
  if (problem !== status) problem.hidden = true;
  status.textContent = text;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    status.textContent = (await work()) ?? "";
  } catch (error) {
    status.textContent = "";
    problem.textContent = error.message;
    problem.hidden = false;
  } finally {
    buttons.forEach((button) => { button.disabled = false; });
  }
}
