// A new job from a form: the manifest that it makes and what the cluster would do with it are shown while one types.
import { ask } from "./api.js";
import { ahead, stateOf, reasonOf } from "./format.js";
import { t } from "./i18n.js";
import { html, useEffect, useMemo, useState } from "./lib.js";
import { Choice, Copy, Icon } from "./parts.js";
import { go, jobLink } from "./route.js";
import { live, useLive } from "./store.js";
import { yaml } from "./yaml.js";

const NAME = /^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$/;
const PAUSE = 500; // ms without a letter before the cluster is asked
const MODELS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "mobilenet_v3_small", "mobilenet_v3_large", "swin_v2_t", "swin_v2_s", "swin_v2_b",
  "vit_b_16", "vit_b_32", "vit_l_16", "vit_l_32", "vit_h_14"];
const EMPTY = { training: { epochs: "100", gpus: "1", fraction: "0.2", model: "resnet18", weights: "none" }, inference: { gpus: "1", shards: "1" } };

// Fields of the form: name, path in the manifest, and what turns the text into a value.
const whole = (text) => (/^\d+$/.test(text) ? Number(text) : text);
const decimal = (text) => (text !== "" && !Number.isNaN(Number(text)) ? Number(text) : text);
const FIELDS = {
  training: [["model", "spec.model.architecture"], ["weights", "spec.model.weights"], ["data", "spec.dataset.train.uri"], ["validation", "spec.dataset.validation.uri"], ["fraction", "spec.dataset.validation.fraction", decimal],
    ["epochs", "spec.training.epochs", whole], ["batch", "spec.training.batchSize", whole], ["rate", "spec.training.optimizer.learningRate", decimal], ["patience", "spec.training.earlyStopping.patience", whole],
    ["output", "spec.output.uri"], ["gpus", "spec.resources.gpus", whole], ["gpuMemory", "spec.resources.gpuMemory"], ["cpu", "spec.resources.cpu"], ["memory", "spec.resources.memory"], ["nodes", "spec.nodes", whole], ["pool", "spec.pool"], ["priority", "spec.priorityClassName"]],
  inference: [["source", "spec.model.fromTrainingJob"], ["data", "spec.input.uri"], ["pattern", "spec.input.pattern"], ["output", "spec.output.uri"], ["gpus", "spec.resources.gpus", whole], ["shards", "spec.shards", whole], ["parallelism", "spec.parallelism", whole],
    ["gpuMemory", "spec.resources.gpuMemory"], ["cpu", "spec.resources.cpu"], ["memory", "spec.resources.memory"], ["pool", "spec.pool"], ["priority", "spec.priorityClassName"]],
};

const at = (object, path) => path.split(".").reduce((found, step) => found?.[step], object);
function put(object, path, value) {
  const steps = path.split("."), last = steps.pop();
  const parent = steps.reduce((found, step) => (found[step] ??= {}), object);
  if (value === undefined) delete parent[last]; else parent[last] = value;
}
/** Without the objects that a removed field leaves empty. */
function pruned(object, empty = ["evaluation"]) {
  for (const [key, value] of Object.entries(object)) {
    if (value && typeof value === "object" && !Array.isArray(value)) { pruned(value, empty); if (Object.keys(value).length === 0 && !empty.includes(key)) delete object[key]; }
  }
  return object;
}

export function manifestOf(type, form, base) {
  const made = structuredClone(base ?? {});
  Object.assign(made, { apiVersion: "rfuav.io/v1alpha1", kind: type === "training" ? "TrainingJob" : "InferenceJob", metadata: { ...made.metadata, name: form.name ?? "", namespace: form.team } });
  made.spec ??= {};
  for (const [name, path, read = (text) => text] of FIELDS[type]) {
    const text = (form[name] ?? "").trim();
    const value = name === "fraction" && form.validation ? "" : text;
    put(made, path, value === "" || (name === "weights" && value === "none") ? undefined : read(value));
  }
  if (type === "inference") put(made, "spec.evaluation", form.evaluation ? made.spec.evaluation ?? {} : undefined);
  return pruned(made);
}

export function formOf(type, manifest) {
  const form = { team: manifest.metadata.namespace };
  for (const [name, path] of FIELDS[type]) { const value = at(manifest, path); if (value !== undefined && typeof value !== "object") form[name] = String(value); }
  if (type === "inference") form.evaluation = Boolean(manifest.spec.evaluation);
  return form;
}

export function Create({ session, query }) {
  const version = useLive();
  const [from, use] = [query.get("from"), query.get("use")?.split("/")];
  const [type, setType] = useState(use || query.get("type") === "inference" ? "inference" : "training");
  const [base, setBase] = useState(null);
  const teams = session.namespaces.filter((one) => one.create && (one.creates ?? [type]).includes(type)).map((one) => one.name);
  const [form, setForm] = useState({ team: use?.[1] ?? (teams.includes(session.namespace) ? session.namespace : teams[0]), ...EMPTY[type], ...(use ? { source: use[2] } : {}) });
  const [answer, setAnswer] = useState({});
  const [touched, setTouched] = useState({});
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    if (!from) return;
    ask("GET", `api/v2/jobs/${from.split("/").map(encodeURIComponent).join("/")}`).then(({ row, manifest }) => {
      const taken = (name) => live.rows.has(`${row.type}/${row.namespace}/${name}`);
      let count = 2;
      const stem = row.name.replace(/-\d+$/, "").slice(0, 36);
      while (taken(`${stem}-${count}`)) count++;
      const { suspend, cancel, ...spec } = manifest.spec;
      setBase({ ...manifest, metadata: { labels: manifest.metadata.labels }, spec });
      setType(row.type);
      setForm({ ...formOf(row.type, manifest), name: `${stem}-${count}` });
    }, (problem) => setAnswer({ problem }));
  }, [from]);
  const manifest = useMemo(() => manifestOf(type, form, base), [type, form, base]);
  const text = useMemo(() => yaml(manifest), [manifest]);
  const missing = (type === "training" ? ["name", "data", "output"] : ["name", "source", "data", "output"]).filter((name) => !form[name]?.trim());
  const misnamed = Boolean(form.name) && !NAME.test(form.name.trim());
  const ready = !misnamed && (missing.length === 0 || (missing.length === 1 && base && missing[0] === "source"));
  useEffect(() => {
    if (!ready) { setAnswer((old) => (old.preview ? {} : old)); return; }
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      setAnswer((old) => ({ ...old, asking: true }));
      try { setAnswer({ preview: await ask("POST", "api/v2/preview", { namespace: form.team, body: { manifest }, signal: stop.signal }) }); } catch (problem) { if (problem.name !== "AbortError") setAnswer({ problem }); }
    }, PAUSE);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [text, ready]);
  const change = (name, value) => { setForm((old) => ({ ...old, [name]: value })); setTouched((old) => ({ ...old, [name]: true })); };
  const fields = answer.problem?.fields ?? {};
  const path = (name) => ({ name: "metadata.name", team: "metadata.namespace" })[name] ?? FIELDS[type].find(([one]) => one === name)?.[1];
  const error = (name) => {
    if (missing.includes(name) && touched[name]) return t("create.missing");
    if (name === "name" && misnamed) return t("create.nameHint");
    const here = path(name), found = here && Object.entries(fields).find(([key]) => key === here || key.startsWith(`${here}.`) || (here.startsWith(`${key}.`) && key.split(".").length > 2));
    return found?.[1];
  };
  const submit = async (event) => {
    event.preventDefault();
    if (!ready) { setTouched(Object.fromEntries(missing.map((name) => [name, true]))); document.getElementById(`f-${misnamed ? "name" : missing[0]}`)?.focus(); return; }
    setBusy(true);
    try { const row = await ask("POST", "api/v2/jobs", { namespace: form.team, body: { manifest } }); go(jobLink((row.row ?? row).key)); } catch (problem) { setAnswer({ problem, refused: true }); setBusy(false); }
  };
  const trainings = useMemo(() => [...live.rows.values()].filter((row) => row.type === "training" && row.namespace === form.team && !["failed", "cancelled"].includes(stateOf(row)))
    .sort((a, b) => (stateOf(a) === "succeeded" ? 0 : 1) - (stateOf(b) === "succeeded" ? 0 : 1) || (a.created < b.created ? 1 : -1)), [version, form.team]);
  const classes = useMemo(() => [...new Set([...live.rows.values()].map((row) => row.priorityClass).filter(Boolean))].sort(), [version]);
  const field = { form, change, error };
  const pools = live.pools.map((pool) => pool.name);
  if (teams.length === 0) return html`<div class="head"><h1>${t("nav.create")}</h1></div><p class="banner">${t("create.mayNot")}</p>`;
  return html`<div class="head"><h1>${t(base ? "create.clone" : "nav.create")}</h1></div>
  <form class="create" onSubmit=${submit} novalidate><div class="stackv">
    ${!base && html`<${Choice} label=${t("field.type")} value=${type} set=${(value) => { setType(value); setForm((old) => ({ ...EMPTY[value], team: old.team, name: old.name, priority: old.priority, pool: old.pool })); setAnswer({}); setTouched({}); }} options=${[["training", t("kind.training")], ["inference", t("kind.inference")]]} />`}
    <fieldset class="panel"><legend>${t("create.what")}</legend><div class="two">
      <${Text} ...${field} name="name" hint=${t("create.nameHint")} placeholder=${type === "training" ? "drones-resnet18" : "flight7"} required />
      <${Pick} ...${field} name="team" options=${teams.map((one) => [one, one])} /></div>
      ${type === "training" ? html`<div class="two"><${Pick} ...${field} name="model" options=${(MODELS.includes(form.model) ? MODELS : [form.model, ...MODELS]).map((one) => [one, one])} />
        <${Pick} ...${field} name="weights" options=${[["none", t("create.random")], ["pretrained", t("create.pretrained")], ...(["none", "pretrained", undefined].includes(form.weights) ? [] : [[form.weights, form.weights]])]} hint=${form.weights === "pretrained" ? t("create.pretrainedHint") : ""} /></div>`
      : html`<${Text} ...${field} name="source" list=${trainings.slice(0, 100).map((row) => [row.name, t(`state.${stateOf(row)}`)])} hint=${t("create.sourceHint")} required />`}</fieldset>
    <fieldset class="panel"><legend>${t("create.data")}</legend>
      <${Text} ...${field} name="data" placeholder=${type === "training" ? "pvc://captures/train" : "pvc://captures/flight7"} hint=${t(type === "training" ? "create.dataHint" : "create.inputHint")} required />
      ${type === "training" ? html`<div class="two"><${Text} ...${field} name="fraction" inputmode="decimal" hint=${t("create.fractionHint")} /><${Text} ...${field} name="validation" placeholder="pvc://captures/validation" hint=${t("create.validationHint")} /></div>`
      : html`<${Text} ...${field} name="pattern" placeholder="**/*.iq" hint=${t("create.patternHint")} /><label class="check"><input type="checkbox" checked=${form.evaluation} onChange=${(event) => change("evaluation", event.target.checked)} />${t("create.evaluation")}</label>`}
      <${Text} ...${field} name="output" placeholder=${type === "training" ? "pvc://models/drones-resnet18" : "pvc://results/flight7"} hint=${t("create.outputHint")} required /></fieldset>
    <fieldset class="panel"><legend>${t("create.how")}</legend><div class="two">
      ${type === "training" ? html`<${Text} ...${field} name="epochs" inputmode="numeric" />` : html`<${Text} ...${field} name="shards" inputmode="numeric" hint=${t("create.shardsHint")} />`}
      <${Text} ...${field} name="gpus" inputmode="numeric" hint=${t("create.gpusHint")} />
      ${pools.length > 1 ? html`<${Pick} ...${field} name="pool" options=${[["", "default"], ...pools.filter((one) => one !== "default").map((one) => [one, one])]} />` : html`<${Text} ...${field} name="pool" placeholder="default" />`}
      <${Text} ...${field} name="priority" list=${classes.map((one) => [one, ""])} hint=${t("create.priorityHint")} /></div>
      <details><summary>${t("create.more")}</summary><div class="two">
      ${type === "training" ? html`<${Text} ...${field} name="batch" placeholder="8" /><${Text} ...${field} name="rate" inputmode="decimal" placeholder="0.001" /><${Text} ...${field} name="patience" inputmode="numeric" hint=${t("create.patienceHint")} /><${Text} ...${field} name="nodes" inputmode="numeric" placeholder="1" />` : html`<${Text} ...${field} name="parallelism" inputmode="numeric" placeholder="1" />`}
      <${Text} ...${field} name="gpuMemory" placeholder="12Gi" /><${Text} ...${field} name="cpu" placeholder="4" /><${Text} ...${field} name="memory" placeholder="16Gi" /></div></details></fieldset>
  </div>
  <aside class="stackv"><section class="panel preview" aria-live="polite"><div class="panel-head"><h2>${t("preview.title")}</h2>${answer.asking && html`<span class="muted small">${t("preview.asking")}</span>`}</div><div class="pad"><${Preview} answer=${answer} ready=${ready} known=${(key) => FIELDS[type].some(([, here]) => key === here || key.startsWith(`${here}.`) || here.startsWith(`${key}.`)) || key.startsWith("metadata.name")} /></div>
    <div class="pad end"><button class="main" disabled=${busy}>${t(busy ? "create.busy" : "create.do")}</button></div></section>
    <section class="panel"><div class="panel-head"><h2>YAML</h2><${Copy} text=${text} label=${t("do.copyYaml")} /></div><pre class="code" tabindex="0">${text}</pre></section></aside></form>`;
}

function Preview({ answer, ready, known }) {
  const { preview, problem } = answer;
  if (problem) {
    const others = Object.entries(problem.fields).filter(([key]) => !known(key));
    const all = Object.keys(problem.fields).length;
    return html`<p class="state failed"><i></i>${t(answer.refused ? "preview.refused" : "preview.cannot")}</p>
      ${all === 0 ? html`<p>${problem.message || t("error.unreachable")}</p>` : others.length ? html`<ul>${others.map(([key, text]) => html`<li key=${key}><code>${key}</code>: ${text}</li>`)}</ul>` : html`<p class="muted">${t("preview.fields")}</p>`}`;
  }
  if (!ready || !preview) return html`<p class="muted">${t("preview.empty")}</p>`;
  if (preview.starts_now) return html`<p class="state succeeded"><i></i>${t("preview.now")}</p><p class="muted">${preview.nodes.length ? t("preview.on", { nodes: preview.nodes.join(", ") }) : preview.message}</p>`;
  const start = preview.estimated_start && (/Z$/.test(preview.estimated_start) ? preview.estimated_start : `${preview.estimated_start}Z`);
  return html`<p class="state waiting"><i></i>${start ? t("preview.later", { time: ahead(start) }) : t("preview.waits")}</p>
    ${preview.position && html`<p><b>${t("job.place", { n: preview.position, of: preview.of })}</b></p>`}<p>${reasonOf(preview.reason)}</p><p class="muted">${preview.message}</p>`;
}

function Labelled({ name, hint, error, children, required }) {
  return html`<div class="field ${error ? "bad" : ""}"><label for=${`f-${name}`}>${t(`create.${name}`)}${required && html`<span aria-hidden="true" class="muted"> *</span>`}</label>${children}
    <p class="hint" id=${`h-${name}`}>${error ? html`<span class="error">${error}</span>` : hint}</p></div>`;
}

function Text({ form, change, error, name, hint, list, required, ...rest }) {
  const wrong = error(name);
  return html`<${Labelled} name=${name} hint=${hint} error=${wrong} required=${required}><input id=${`f-${name}`} name=${name} type="text" autocomplete="off" autocapitalize="none" spellcheck="false" value=${form[name] ?? ""} onInput=${(event) => change(name, event.target.value)}
    aria-invalid=${wrong ? "true" : undefined} aria-required=${required} aria-describedby=${`h-${name}`} list=${list ? `l-${name}` : undefined} ...${rest} />
    ${list && html`<datalist id=${`l-${name}`}>${list.map(([value, text]) => html`<option key=${value} value=${value}>${text}</option>`)}</datalist>`}<//>`;
}

function Pick({ form, change, error, name, hint, options }) {
  return html`<${Labelled} name=${name} hint=${hint} error=${error(name)}><select id=${`f-${name}`} aria-describedby=${`h-${name}`} value=${form[name] ?? ""} onChange=${(event) => change(name, event.target.value)}>
    ${options.map(([value, text]) => html`<option key=${value} value=${value} selected=${value === (form[name] ?? "")}>${text}</option>`)}</select><//>`;
}
