// Display of a trace: conclusion, candidates and windows.
import { byId, createElement, formatPercent, formatRatio } from "./client.js";

const MIN_SHOWN = 5; // candidates shown before "Show the other ..."

export function showTrace(trace) {
  byId("conclusion-file").textContent = `${trace.file}: ${trace.duration_s.toFixed(1)} s, ${trace.speech_s.toFixed(1)} s of speech`;
  byId("conclusion-title").textContent = trace.name ? `${capitalise(trace.conclusion)}: ${trace.name}` : capitalise(trace.conclusion);
  byId("conclusion-reason").textContent = `${capitalise(trace.reason).replace(/\.$/, "")}.`;
  byId("coverage").textContent = formatPercent(trace.coverage, 0);
  const notes = trace.notes.map((note) => `Note: ${note}.`);
  const details = [`SHA-256 ${trace.sha256}`, `Decoded by ${trace.decoder}.`, ...notes];
  byId("file-details").replaceChildren(...details.map((text) => createElement("li", { text })));
  showCandidates(trace);
  showWindows(trace);
  byId("report-frame").hidden = byId("report-save").hidden = true;
  byId("report-status").textContent = "";
  byId("conclusion").hidden = false;
}

function showCandidates(trace) {
  const rows = trace.candidates.map(candidateRow);
  const hasPosterior = trace.posterior_unknown !== null; // only where a system or family is named
  byId("posterior-heading").hidden = !hasPosterior;
  const unknown = [];
  if (hasPosterior) {
    unknown.push(tableRow({ mark: "", name: "none of these systems", family: "", ratio: "", posterior: trace.posterior_unknown }));
    unknown[0].cells[2].textContent = `prior ${formatPercent(trace.prior_known, 0)} for the systems`;
  }
  const shown = Math.max(MIN_SHOWN, trace.candidates.filter((candidate) => candidate.in_set).length);
  const more = byId("more"), others = rows.slice(shown);
  others.forEach((row) => { row.hidden = true; });
  byId("candidates").replaceChildren(...rows.slice(0, shown), ...unknown, ...others);
  more.hidden = others.length === 0;
  more.textContent = `Show the other ${others.length}`;
  more.onclick = () => { others.forEach((row) => { row.hidden = false; }); more.hidden = true; };
}

function candidateRow(candidate) {
  const { in_set: inSet, system: name, family, posterior } = candidate;
  return tableRow({ mark: inSet ? "●" : "", name, family, ratio: formatRatio(candidate.log10_lr, candidate.at_bound), posterior });
}

function tableRow({ mark, name, family, ratio, posterior }) {
  const system = createElement("td", { text: name });
  if (family) system.append(createElement("div", { className: "family", text: family }));
  const cells = [createElement("td", { text: mark }), system, createElement("td", { text: ratio })];
  if (posterior !== null) {
    const bar = createElement("td", { className: "posterior", text: formatPercent(posterior) });
    bar.style.setProperty("--share", `${100 * posterior}%`);
    cells.push(bar);
  }
  return createElement("tr", { className: mark ? "in-set" : "", children: cells });
}

function showWindows(trace) {
  byId("over-time").hidden = trace.windows.length === 0;
  if (!trace.windows.length) return;
  const several = trace.makers_along_time.length > 1
    ? ` Different systems in different windows (${trace.makers_along_time.join(", ")}): the file may be spliced.` : "";
  byId("agreement").textContent = (trace.agreement === null ? "Every window has too little speech."
    : `${formatPercent(trace.agreement, 0)} of the windows agree with the whole clip.`) + several;
  const counts = new Map();
  trace.windows.forEach(({ best }) => counts.set(best, (counts.get(best) ?? 0) + 1));
  const systems = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
  const withColour = (element, system) => { element.style.setProperty("--system", colourOf(systems.indexOf(system))); return element; };
  byId("strip").replaceChildren(...trace.windows.map((window, index) => {
    const end = trace.windows[index + 1]?.start_s ?? window.end_s; // windows overlap: each is drawn up to the next one
    const label = `${formatSpan(window)} s: top system ${window.best}`;
    const block = createElement("button", { type: "button", title: label, ariaLabel: `Play from ${label}` });
    block.style.left = formatPercent(window.start_s / trace.duration_s, 3).replace(" ", "");
    block.style.width = formatPercent((end - window.start_s) / trace.duration_s, 3).replace(" ", "");
    block.addEventListener("click", () => playFrom(window.start_s));
    return withColour(block, window.best);
  }));
  byId("legend").replaceChildren(...systems.map((system) =>
    withColour(createElement("li", { text: `${system}: ${counts.get(system)} of ${trace.windows.length} windows` }), system)));
  byId("windows").replaceChildren(...trace.windows.map((window) => {
    const conclusion = window.name ? `${window.conclusion}: ${window.name}` : window.conclusion;
    const texts = [formatSpan(window), window.best, conclusion];
    return createElement("tr", { children: texts.map((text) => createElement("td", { text })) });
  }));
}

// Okabe and Ito's palette, which colour-blind readers can tell apart; more systems than colours share grey.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const colourOf = (index) => COLOURS[index] ?? "#999999";

function playFrom(seconds) {
  const player = byId("player");
  player.currentTime = seconds;
  player.play();
}

const capitalise = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const formatSpan = (window) => `${window.start_s.toFixed(1)} – ${window.end_s.toFixed(1)}`;
