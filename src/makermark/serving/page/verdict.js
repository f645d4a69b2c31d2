// What the server says of a clip, laid out.
import { at, make, percent, ratio } from "./asking.js";

const FIRST = 5; // candidates shown at once

export function show(told) {
  at("verdict-file").textContent = `${told.file}: ${told.duration_s.toFixed(1)} s, ${told.speech_s.toFixed(1)} s of speech`;
  at("verdict-title").textContent = told.name ? `${capital(told.verdict)}: ${told.name}` : capital(told.verdict);
  at("verdict-reason").textContent = `${capital(told.reason)}.`;
  at("coverage").textContent = percent(told.coverage, 0);
  const rows = told.candidates.map(candidate);
  const none = row({ mark: "", name: "none of these systems", family: "", ratio: "", posterior: told.posterior_unknown });
  none.cells[2].textContent = `prior ${percent(told.prior_known, 0)} for the systems`;
  const first = Math.max(FIRST, told.candidates.filter((each) => each.in_set).length);
  rows.slice(first).forEach((each) => { each.hidden = true; });
  at("candidates").replaceChildren(...rows.slice(0, first), none, ...rows.slice(first));
  at("more").hidden = rows.length <= first;
  at("more").textContent = `Show the other ${rows.length - first}`;
  at("more").onclick = () => { rows.forEach((each) => { each.hidden = false; }); at("more").hidden = true; };
  along(told);
  at("report-frame").hidden = at("report-save").hidden = true;
  at("report-status").textContent = "";
  at("verdict").hidden = false;
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

function candidate(each) {
  const said = ratio(each.log10_lr, each.at_bound);
  return row({ mark: each.in_set ? "●" : "", name: each.system, family: each.family, ratio: said, posterior: each.posterior });
}

function row({ mark, name, family, ratio: said, posterior }) {
  const bar = make("td", { className: "posterior", text: percent(posterior) });
  bar.style.setProperty("--share", `${100 * posterior}%`);
  const system = make("td", { text: name });
  if (family) system.append(make("div", { className: "family", text: family }));
  return make("tr", { className: mark ? "in-set" : "", children: [make("td", { text: mark }), system, make("td", { text: said }), bar] });
}

function along(told) {
  at("along").hidden = told.windows.length === 0;
  if (!told.windows.length) return;
  const several = told.makers_along_time.length > 1
    ? ` More than one maker along time (${told.makers_along_time.join(", ")}): the file may be put together.` : "";
  at("agreement").textContent = (told.agreement === null ? "Too little speech in every window."
    : `${percent(told.agreement, 0)} of the windows agree with the whole.`) + several;
  const systems = [...new Set(told.windows.map((each) => each.best))];
  at("strip").replaceChildren(...told.windows.map((each) => {
    const block = make("span", { text: each.best, title: `${span(each)} s: nearest ${each.best}` });
    block.style.background = `hsl(${(systems.indexOf(each.best) * 137 + 175) % 360} 55% 78%)`;
    return block;
  }));
  at("windows").replaceChildren(...told.windows.map((each) => make("tr", { children: [
    make("td", { text: span(each) }), make("td", { text: each.best }),
    make("td", { text: each.name ? `${each.verdict}: ${each.name}` : each.verdict }),
  ] })));
}

const span = (window) => `${window.start_s.toFixed(1)} – ${window.end_s.toFixed(1)}`;
