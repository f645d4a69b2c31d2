// The page: trace a clip, compare two clips, list and change the gallery.
import { byId, createElement, formatPercent, formatRatio, request, runTask } from "./client.js";
import { showTrace } from "./conclusion.js";
import { record } from "./recording.js";

const RETRACE_DELAY_MS = 400; // after a change of the prior

let model, clip, reportUrl, clipUrl, latestTrace = 0;

const upload = (path, fields, files) => request(path, { method: "POST", fields, maxBytes: model.max_bytes, files });
const priorKnown = () => byId("prior-number").value / 100;

async function trace({ focus = true } = {}) {
  if (!clip) return;
  const number = ++latestTrace;
  await runTask("trace", `Tracing ${clip.name} …`, async () => {
    byId("conclusion").setAttribute("aria-busy", "true");
    const result = await (await upload("/api/trace", { prior_known: priorKnown() }, [["file", clip]])).json();
    if (number !== latestTrace) return ""; // a later request is in progress
    showTrace(result);
    byId("conclusion").removeAttribute("aria-busy");
    if (focus) byId("conclusion").focus();
    return `Result: ${byId("conclusion-title").textContent}`;
  });
}

function setClip(file) {
  if (!file) return;
  clip = file;
  byId("conclusion").hidden = true;
  if (clipUrl) URL.revokeObjectURL(clipUrl);
  byId("player").src = clipUrl = URL.createObjectURL(file);
  trace();
}

byId("clip").addEventListener("change", () => setClip(byId("clip").files[0]));
byId("trace-form").addEventListener("submit", (event) => event.preventDefault());
const drop = document.querySelector(".drop");
for (const type of ["dragover", "dragleave", "drop"])
  drop.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", type === "dragover");
    if (type === "drop") setClip(event.dataTransfer.files[0]);
  });

let retraceTimer;
for (const [source, target] of [["prior", "prior-number"], ["prior-number", "prior"]])
  byId(source).addEventListener("input", () => {
    if (!byId(source).validity.valid || byId(source).value === "") return;
    byId(target).value = byId(source).value;
    clearTimeout(retraceTimer);
    retraceTimer = setTimeout(() => trace({ focus: false }), RETRACE_DELAY_MS);
  });

let stopRecording;
byId("record").addEventListener("click", async () => {
  const button = byId("record"), setStatus = (text) => { byId("recording").textContent = text; };
  try {
    if (stopRecording) {
      const stop = stopRecording;
      stopRecording = undefined;
      setClip(await stop());
      setStatus("");
    } else {
      const seconds = createElement("span", { text: "" });
      stopRecording = await record(model.max_seconds, (length) => { seconds.textContent = `${length.toFixed(0)} s`; });
      setStatus("Recording. Press the button again to stop. ");
      byId("recording").append(createElement("span", { ariaHidden: "true", children: [seconds] }));
    }
  } catch (error) {
    setStatus(`No recording: ${error.message}`);
  }
  button.setAttribute("aria-pressed", String(Boolean(stopRecording)));
  button.textContent = stopRecording ? "Stop recording" : "Record";
});

byId("report").addEventListener("click", () => runTask("report", "Creating the report …", async () => {
  const page = await (await upload("/api/report", { prior_known: priorKnown() }, [["file", clip]])).text();
  byId("report-frame").srcdoc = page; // the frame is sandboxed: scripts in it do not run
  byId("report-frame").hidden = false;
  if (reportUrl) URL.revokeObjectURL(reportUrl);
  reportUrl = URL.createObjectURL(new Blob([page], { type: "text/html" }));
  Object.assign(byId("report-save"), { href: reportUrl, download: `${clip.name}.html`, hidden: false });
  return "The report is shown below.";
}, [byId("report")]));

byId("compare-form").addEventListener("submit", (event) => {
  event.preventDefault();
  byId("comparison").hidden = true;
  runTask("compare", "Comparing …", async () => {
    const files = [["a", byId("clip-a").files[0]], ["b", byId("clip-b").files[0]]];
    const fields = { prior_same: byId("prior-same").value / 100 };
    showComparison(await (await upload("/api/compare", fields, files)).json(), files.map(([, file]) => file.name));
  }, [...byId("compare-form").querySelectorAll("button")]);
});

function showComparison(comparison, names) {
  const clips = names.map((name, i) => [`Clip ${i + 1}`, `${name}, ${comparison.speech_s[i].toFixed(1)} s of speech, SHA-256 ${comparison.sha256[i]}`]);
  const rows = [
    ...clips,
    ["One system against two systems", `likelihood ratio ${formatRatio(comparison.log10_lr, comparison.at_bound)}`],
    ["One system made both", `posterior ${formatPercent(comparison.posterior_same)}, prior ${formatPercent(comparison.prior_same, 0)}`],
    ...comparison.notes.map((note) => ["Note", note]),
  ];
  const children = rows.flatMap(([name, text]) => [createElement("dt", { text: name }), createElement("dd", { text })]);
  const supported = comparison.log10_lr > 0 ? "one system" : "two different systems";
  const title = comparison.enough_speech ? `The clips support ${supported}` : "Too little speech for a conclusion";
  byId("comparison").replaceChildren(createElement("h3", { text: title }), createElement("dl", { children }));
  byId("comparison").hidden = false;
  byId("comparison").focus();
}

function showGallery({ systems }) {
  const enrolledFirst = [...systems].sort((a, b) => (a.origin === "train") - (b.origin === "train"));
  byId("systems").replaceChildren(...enrolledFirst.map((system) => {
    const action = createElement("td");
    if (system.origin !== "train" && model.changeable) {
      const button = createElement("button", { type: "button", className: "quiet", text: "Remove", ariaLabel: `Remove ${system.name}` });
      button.addEventListener("click", () => removeSystem(system.name, button));
      action.append(button);
    }
    const texts = [system.name, system.family, system.origin === "train" ? "training" : "enrolment", system.clips];
    return createElement("tr", { children: [...texts.map((text) => createElement("td", { text })), action] });
  }));
}

function removeSystem(name, button) {
  if (!confirm(`Remove ${name}?`)) return;
  runTask("gallery", `Removing ${name} …`, async () => {
    showGallery(await (await request(`/api/gallery/${encodeURIComponent(name)}`, { method: "DELETE" })).json());
    await loadModel();
    trace({ focus: false });
    return `${name} was removed.`;
  }, [button]);
}

byId("enroll-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = byId("enroll-form"), name = byId("enroll-name").value, files = [...byId("enroll-files").files];
  runTask("gallery", `Enrolling ${name} from ${files.length} clips …`, async () => {
    if (files.length < model.min_clips || files.length > model.max_clips)
      throw new Error(`${files.length} clips; enrolment needs ${model.min_clips} to ${model.max_clips}.`);
    const fields = { name, family: byId("enroll-family").value };
    showGallery(await (await upload("/api/enroll", fields, files.map((file) => ["files", file]))).json());
    form.reset();
    await loadModel();
    trace({ focus: false });
    return `${name} was enrolled.`;
  }, [...form.querySelectorAll("button")]);
});

/** Reads the model and shows what it knows and how often it was right; an enrolment changes the sentences. */
async function loadModel() {
  model = await (await request("/api/model")).json();
  byId("scope").textContent = model.scope;
  byId("test-rates").textContent = model.test_rates;
}

runTask("gallery", "", async () => {
  await loadModel();
  for (const id of ["prior", "prior-number"]) byId(id).value = Math.round(100 * model.prior_known);
  byId("prior-same").value = Math.round(100 * model.prior_same);
  byId("enroll-hint").textContent = `Enrol a system from ${model.min_clips} to ${model.max_clips} different clips that it made. The model is not trained again.`;
  byId("enroll-form").hidden = !model.changeable;
  byId("model").textContent = `makermark ${model.makermark}. Model ${model.model_sha256.slice(0, 12)} (${model.backbone}), commit ${model.git_commit.slice(0, 10)}, training languages: ${model.languages.join(", ")}. Longest clip: ${model.max_seconds} s.`;
  showGallery(await (await request("/api/gallery")).json());
  document.body.dataset.ready = "yes";
});
