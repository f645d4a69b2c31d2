// The page: one clip at a time, two to compare, and the systems that are known.
import { ask, at, during, make, percent, ratio } from "./asking.js";
import { record } from "./recording.js";
import { show } from "./verdict.js";
import { readable } from "./wav.js";

let model, clip, saved, listening, asked = 0;

const upload = async (path, fields, files) =>
  ask(path, { method: "POST", fields, maxBytes: model.max_bytes, files: await Promise.all(files.map(async ([name, file]) => [name, await readable(file)])) });
const known = () => at("prior-number").value / 100;

async function trace({ focus = true } = {}) {
  if (!clip) return;
  const turn = ++asked;
  await during("trace", `Hearing ${clip.name} …`, async () => {
    at("verdict").setAttribute("aria-busy", "true");
    const told = await (await upload("/api/trace", { prior_known: known() }, [["file", clip]])).json();
    if (turn !== asked) return ""; // a later question is under way
    show(told);
    at("verdict").removeAttribute("aria-busy");
    if (focus) at("verdict").focus();
    return `Heard: ${at("verdict-title").textContent}`;
  });
}

function take(file) {
  if (!file) return;
  clip = file;
  at("verdict").hidden = true;
  if (listening) URL.revokeObjectURL(listening);
  at("listen").src = listening = URL.createObjectURL(file);
  trace();
}

at("clip").addEventListener("change", () => take(at("clip").files[0]));
at("trace-form").addEventListener("submit", (event) => event.preventDefault());
const drop = document.querySelector(".drop");
for (const kind of ["dragover", "dragleave", "drop"])
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });

let later;
for (const [here, there] of [["prior", "prior-number"], ["prior-number", "prior"]])
  at(here).addEventListener("input", () => {
    if (!at(here).validity.valid || at(here).value === "") return;
    at(there).value = at(here).value;
    clearTimeout(later);
    later = setTimeout(() => trace({ focus: false }), 400);
  });

let stop;
at("record").addEventListener("click", async () => {
  const button = at("record"), say = (text) => { at("recording").textContent = text; };
  try {
    if (stop) {
      const end = stop;
      stop = undefined;
      take(await end());
      say("");
    } else {
      const seconds = make("span", { text: "" });
      stop = await record(model.max_seconds, (length) => { seconds.textContent = `${length.toFixed(0)} s`; });
      say("Recording; press again to end it. ");
      at("recording").append(make("span", { ariaHidden: "true", children: [seconds] }));
    }
  } catch (error) {
    say(`No recording: ${error.message}`);
  }
  button.setAttribute("aria-pressed", String(Boolean(stop)));
  button.textContent = stop ? "End the recording" : "Record";
});

at("report").addEventListener("click", () => during("report", "Gathering the evidence …", async () => {
  const page = await (await upload("/api/report", { prior_known: known() }, [["file", clip]])).text();
  at("report-frame").srcdoc = page; // sandboxed: no script of it runs
  at("report-frame").hidden = false;
  if (saved) URL.revokeObjectURL(saved);
  saved = URL.createObjectURL(new Blob([page], { type: "text/html" }));
  Object.assign(at("report-save"), { href: saved, download: `${clip.name}.html`, hidden: false });
  return "The report is below.";
}, [at("report")]));

at("compare-form").addEventListener("submit", (event) => {
  event.preventDefault();
  during("compare", "Hearing both …", async () => {
    const files = [["a", at("clip-a").files[0]], ["b", at("clip-b").files[0]]];
    const told = await (await upload("/api/compare", { prior_same: at("prior-same").value / 100 }, files)).json();
    const facts = [
      ["One maker against two", `likelihood ratio ${ratio(told.log10_lr, told.at_bound)}`],
      ["One system made both", `${percent(told.posterior_same)}, with prior ${percent(told.prior_same, 0)}`],
      ["Speech", told.speech_s.map((seconds) => `${seconds.toFixed(1)} s`).join(" and ")],
    ];
    const list = make("dl", { children: facts.flatMap(([name, text]) => [make("dt", { text: name }), make("dd", { text })]) });
    const title = !told.enough_speech ? "Too little speech to say" : told.log10_lr > 0 ? "Speaks for one maker" : "Speaks for two makers";
    at("compared").replaceChildren(make("h3", { text: title }), list);
    at("compared").hidden = false;
    at("compared").focus();
  }, [...at("compare-form").querySelectorAll("button")]);
});

function list({ systems }) {
  const enrolledFirst = [...systems].sort((a, b) => (a.origin === "train") - (b.origin === "train"));
  at("systems").replaceChildren(...enrolledFirst.map((each) => {
    const end = make("td");
    if (each.origin !== "train" && model.changeable) {
      const button = make("button", { type: "button", className: "quiet", text: "Remove", ariaLabel: `Remove ${each.name}` });
      button.addEventListener("click", () => remove(each.name, button));
      end.append(button);
    }
    const texts = [each.name, each.family, each.origin === "train" ? "training" : "enrolment", each.clips];
    return make("tr", { children: [...texts.map((text) => make("td", { text })), end] });
  }));
}

function remove(name, button) {
  if (!confirm(`Remove ${name}?`)) return;
  during("gallery", `Removing ${name} …`, async () => {
    list(await (await ask(`/api/gallery/${encodeURIComponent(name)}`, { method: "DELETE" })).json());
    trace({ focus: false });
    return `${name} is removed.`;
  }, [button]);
}

at("enrol-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = at("enrol-form"), name = at("enrol-name").value, files = [...at("enrol-files").files];
  during("gallery", `Hearing ${files.length} clips of ${name} …`, async () => {
    if (files.length < model.min_clips || files.length > model.max_clips)
      throw new Error(`${files.length} clips; give ${model.min_clips} to ${model.max_clips}`);
    const fields = { name, family: at("enrol-family").value };
    list(await (await upload("/api/enroll", fields, files.map((file) => ["files", file]))).json());
    form.reset();
    trace({ focus: false });
    return `${name} is enrolled.`;
  }, [...form.querySelectorAll("button")]);
});

during("gallery", "", async () => {
  model = await (await ask("/api/model")).json();
  for (const id of ["prior", "prior-number"]) at(id).value = Math.round(100 * model.prior_known);
  at("prior-same").value = Math.round(100 * model.prior_same);
  at("enrol-hint").textContent = `Enrol a further system from ${model.min_clips} to ${model.max_clips} different clips that it made; no training is needed.`;
  at("enrol-form").hidden = !model.changeable;
  at("model").textContent = `makermark ${model.makermark}; model ${model.model_sha256.slice(0, 12)} (${model.backbone}), trained by commit ${model.git_commit.slice(0, 10)} on speech in ${model.languages.join(", ")}. A clip may last ${model.max_seconds} s.`;
  list(await (await ask("/api/gallery")).json());
  document.body.dataset.ready = "yes";
});
