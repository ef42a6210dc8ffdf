// One job: what it does in a sentence, how it goes, why it waits or failed, and what may be done with it.
import { ask } from "./api.js";
import { ago, ahead, duration, figure, fullTime, isOver, percent, person, reasonOf, share, since, stateOf } from "./format.js";
import { has, number, t } from "./i18n.js";
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { Log } from "./log.js";
import { Bar, Command, Confirm, Copy, Empty, Icon, State } from "./parts.js";
import { ByNoise, Confusion, Curves } from "./results.js";
import { go, jobLink, link } from "./route.js";
import { live, useLive, useTick } from "./store.js";
import { steps } from "./overview.js";
import { yaml } from "./yaml.js";

const LEAST = 4000; // ms between two questions for the same thing

/** The job in full, asked for again when its row changes. */
function useDetail(path, row) {
  const [detail, set] = useState(null);
  const [problem, setProblem] = useState(null);
  const asked = useRef(0);
  const again = useRef(() => {});
  useEffect(() => {
    let alive = true, timer = 0;
    again.current = (now = false) => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        asked.current = Date.now();
        try { const found = await ask("GET", path); if (alive) { set(found); setProblem(null); } } catch (error) { if (alive) setProblem(error); }
      }, now ? 0 : Math.max(0, asked.current + LEAST - Date.now()));
    };
    again.current(true);
    return () => { alive = false; clearTimeout(timer); };
  }, [path]);
  const mark = row && [row.phase, row.reason, row.attempt, row.epoch, row.suspended, row.failures, row.position, Math.floor(row.percent ?? 0)].join();
  useEffect(() => { again.current(); }, [mark]); // also when the row has gone
  return [detail, problem, again];
}

/** What `path` answers, null where there is nothing (yet). */
function useAnswer(path, mark) {
  const [found, set] = useState(null);
  useEffect(() => { if (!path) return; let alive = true; ask("GET", path).then((answer) => alive && set(answer), () => {}); return () => { alive = false; }; }, [path, mark]);
  return found;
}

export function Job({ path, query }) {
  useLive();
  useTick(5000);
  const key = path.slice(1).join("/");
  const base = `api/v2/jobs/${path.slice(1).map(encodeURIComponent).join("/")}`;
  const inList = live.rows.get(key);
  const [detail, problem, again] = useDetail(base, inList);
  const [seen, setSeen] = useState([]);
  const row = inList ?? detail?.row;
  const id = row?.id.split("/").map(encodeURIComponent).join("/");
  const results = useAnswer(id && `ns/${row.namespace}/api/v2/tasks/${id}/results`, `${id} ${row?.epoch} ${row?.phase}`);
  const events = useAnswer(`${base}/events`, `${row?.phase} ${row?.reason} ${row?.attempt}`);
  const metrics = detail?.status.metrics;
  useEffect(() => { // each epoch's numbers as they come
    const epoch = detail?.status.progress?.epoch;
    if (metrics && epoch != null) setSeen((old) => (old.at(-1)?.epoch === epoch ? old.slice(0, -1) : old).concat({ epoch, trainLoss: metrics.trainLoss, valLoss: metrics.valLoss, trainAccuracy: metrics.trainAccuracy, valAccuracy: metrics.valAccuracy }));
  }, [detail]);
  if (!row) {
    if (!problem) return html`<p class="muted" role="status">${t("live.loading")}</p>`;
    return html`<${Empty} title=${t(problem.status === 404 || problem.status === 403 ? "job.missing" : "job.unread")} text=${problem.status === 404 || problem.status === 403 ? t("job.missingText") : problem.message}><a class="button plain" href="#/jobs">${t("job.back")}</a><//>`;
  }
  const gone = detail && !inList && problem?.status === 404;
  const tab = query.get("tab") ?? "summary";
  const tabs = [["summary", "tab.summary"], ["log", "tab.log"], ["results", "tab.results"], ["events", "tab.events"], ["yaml", "tab.yaml"]].filter(([name]) => name !== "log" || !detail || detail.can.logs);
  return html`<div class="head job-head"><div><nav class="crumbs" aria-label=${t("nav.path")}><a href="#/jobs">${t("nav.jobs")}</a><a href=${link("jobs", { team: row.namespace })}>${row.namespace}</a></nav>
    <h1>${row.name}</h1></div>${detail && !gone && html`<${Actions} row=${row} detail=${detail} base=${base} again=${again} />`}</div>
  ${gone && html`<p class="banner">${t("job.gone")}</p>`}
  <p class="lead"><${State} row=${row} /><span>${sentence(row)}</span></p>
  <nav class="tabs" aria-label=${t("nav.views")}>${tabs.map(([name, label]) => html`<a key=${name} href=${jobLink(key, { tab: name === "summary" ? "" : name })} aria-current=${tab === name ? "page" : undefined}>${t(label)}</a>`)}</nav>
  ${tab === "log" ? html`<${Log} row=${row} />` : tab === "results" ? html`<${Results} row=${row} results=${results} detail=${detail} />` : tab === "events" ? html`<${Events} events=${events} />`
    : tab === "yaml" ? html`<${Manifest} detail=${detail} />` : html`<${Summary} row=${row} detail=${detail} results=${results} seen=${seen} />`}`;
}

/** The state in a sentence for people. */
function sentence(row) {
  const state = stateOf(row), where = row.nodes?.length ? t("job.on", { nodes: row.nodes.join(", ") }) : "";
  const parts = [];
  if (state === "running") {
    parts.push(t("job.running", { where, time: duration(since(row.started ?? row.created)) }));
    if (row.epochs) parts.push(t("job.epoch", { epoch: row.epoch ?? 0, epochs: row.epochs }));
    if (row.remaining != null) parts.push(t("job.left", { time: duration(row.remaining) }));
  } else if (state === "starting") parts.push(t("job.starting", { where }));
  else if (state === "waiting") {
    if (row.position) parts.push(t("job.queued", { n: row.position, of: row.of ?? row.position, pool: row.pool }));
    parts.push(row.estimatedStart ? t("job.starts", { time: ahead(row.estimatedStart) }) : t("job.startUnknown"));
  } else if (state === "suspended") parts.push(t("job.suspended"));
  else if (state === "succeeded") parts.push(t("job.succeeded", { ago: ago(row.finished), time: duration((Date.parse(row.finished) - Date.parse(row.started ?? row.created)) / 1000) }));
  else if (state === "failed") parts.push(t("job.failed", { ago: ago(row.finished), reason: reasonOf(row.reason) }));
  else parts.push(t("job.cancelled", { ago: ago(row.finished) }));
  return parts.filter(Boolean).join(" ");
}

function Actions({ row, detail, base, again }) {
  const [asking, setAsking] = useState("");
  const { can } = detail, over = isOver(row);
  const post = (verb) => async () => { await ask("POST", `${base}/${verb}`); again.current(true); };
  const questions = {
    suspend: { act: post("suspend") }, cancel: { act: post("cancel"), danger: true },
    delete: { danger: true, act: async () => { await ask("DELETE", base); live.rows.delete(row.key); go("#/jobs"); } },
  };
  return html`<div class="row actions">
    ${can.update && !over && (row.suspended ? html`<button type="button" class="plain" onClick=${() => post("resume")().catch((problem) => setAsking({ problem }))}><${Icon} name="play" />${t("do.resume")}</button>`
      : html`<button type="button" class="plain" onClick=${() => setAsking("suspend")}><${Icon} name="pause" />${t("do.suspend")}</button>`)}
    ${can.create && html`<a class="button plain" href=${link("new", { from: row.key })}><${Icon} name="copy" />${t("do.clone")}</a>`}
    ${can.create && row.type === "training" && stateOf(row) === "succeeded" && html`<a class="button plain" href=${link("new", { use: row.key })}><${Icon} name="play" />${t("do.use")}</a>`}
    ${can.update && !over && html`<button type="button" class="plain red" onClick=${() => setAsking("cancel")}>${t("do.cancel")}</button>`}
    ${can.delete && over && html`<button type="button" class="plain red" onClick=${() => setAsking("delete")}>${t("do.delete")}</button>`}
    ${asking?.problem && html`<p class="note failed" role="alert">${asking.problem.message}</p>`}
    ${questions[asking] && html`<${Confirm} title=${t(`ask.${asking}`, { name: row.name })} text=${t(`ask.${asking}Text`)} verb=${t(`do.${asking}`)} ...${questions[asking]} close=${() => setAsking("")} />`}
  </div>`;
}

function Summary({ row, detail, results, seen }) {
  const state = stateOf(row), status = detail?.status;
  return html`<div class="columns detail"><div>
    ${state !== "waiting" && (row.percent != null) && html`<section class="panel"><div class="panel-head"><h2>${t("field.progress")}</h2><p class="muted">${[steps(row), row.speed && t("running.speed", { n: row.speed })].filter(Boolean).join(" · ")}</p><b class="figures">${percent(row.percent)}</b></div>
      <div class="pad"><${Bar} value=${row.percent} state=${state} label=${t("field.progress")} /></div></section>`}
    ${state === "waiting" && html`<${Why} row=${row} why=${detail?.why} />`}
    ${state !== "waiting" && row.message && html`<section class="panel note-panel ${state}"><h2>${reasonOf(row.reason) || t(`state.${state}`)}</h2><p>${row.message}</p></section>`}
    ${row.type === "training" && (state !== "waiting" || results) && html`<section class="panel"><div class="panel-head"><h2>${t("curves.title")}</h2></div><${Curves} results=${results} seen=${seen} /></section>`}
    ${status?.failures?.length > 0 && html`<${Attempts} row=${row} failures=${status.failures} />`}
    </div><aside>
    ${status && html`<${Metrics} row=${row} status=${status} />`}
    <${Facts} row=${row} detail=${detail} />
    ${detail?.kubectl?.length > 0 && html`<section class="panel"><div class="panel-head"><h2>${t("job.terminal")}</h2></div><div class="pad stackv">${detail.kubectl.map((text) => html`<${Command} key=${text} text=${text} />`)}</div></section>`}
    </aside></div>`;
}

const WHY = { true: "ok", false: "open", null: "unknown" };
function Why({ row, why }) {
  return html`<section class="panel" aria-labelledby="why"><div class="panel-head"><h2 id="why">${t("why.title")}</h2></div>
    ${why?.length ? html`<ul class="checklist">${why.map((one) => html`<li key=${one.what} class=${WHY[one.ok]}><${Icon} name=${{ ok: "check", open: "cross", unknown: "more" }[WHY[one.ok]]} /><span class="unseen">${t(`why.${WHY[one.ok]}`)}</span><div><b>${one.what}</b>${one.detail && html`<p>${one.detail}</p>`}</div></li>`)}</ul>`
      : html`<div class="pad"><b>${reasonOf(row.reason)}</b><p>${row.message}</p></div>`}</section>`;
}

function Attempts({ row, failures }) {
  return html`<section class="panel" aria-labelledby="attempts"><div class="panel-head"><h2 id="attempts">${t("attempts.title")}</h2><p class="muted">${t("attempts.line", { n: row.attempt ?? failures.length, failures: failures.length })}</p></div>
    <ol class="attempts">${[...failures].reverse().map((one) => html`<li key=${`${one.attempt}-${one.pod}`}><div class="line"><b>${reasonOf(one.reason)}</b><span class="muted" title=${fullTime(one.finishedAt)}>${t("log.attempt", { n: one.attempt })} · ${ago(one.finishedAt)}${one.node && ` · ${one.node}`}${one.exitCode != null && ` · ${t("attempts.exit", { n: one.exitCode })}`}</span></div>
      ${one.message && html`<p class="mono">${one.message}</p>`}${one.advice && html`<p class="advice"><b>${t("attempts.advice")}</b> ${one.advice}</p>`}${one.counted === false && html`<p class="muted small">${t("attempts.uncounted")}</p>`}</li>`)}</ol></section>`;
}

const SHARES = /Accuracy|^top\d/;
function Metrics({ row, status }) {
  const all = [...Object.entries(status.metrics ?? {}).filter(([key, value]) => typeof value === "number" && has(`metric.${key}`)).map(([key, value]) => [t(`metric.${key}`), SHARES.test(key) ? share(value) : figure(value)]),
    ...(status.customMetrics ?? []).map((one) => [one.name, figure(one.value)])];
  if (all.length === 0) return null;
  return html`<section class="panel"><div class="panel-head"><h2>${t("metrics.title")}</h2></div><dl class="facts">${all.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd class="figures">${value}</dd></div>`)}</dl></section>`;
}

function Facts({ row, detail }) {
  const spec = detail?.manifest?.spec ?? {}, status = detail?.status ?? {};
  const time = (iso) => iso && html`<time datetime=${iso} title=${fullTime(iso)}>${ago(iso)}</time>`;
  const facts = [["field.type", t(`kind.${row.type}`)], ["field.model", row.model], ["field.pool", row.pool], ["field.gpus", row.gpus ?? null], ["field.nodes", row.nodes?.join(", ")],
    ["field.priority", row.priorityClass ? `${row.priorityClass}${row.priority != null ? ` (${number(row.priority)})` : ""}` : row.priority != null ? number(row.priority) : null], ["field.user", person(row.user)],
    ["field.created", time(row.created)], ["field.started", time(row.started)], ["field.finished", time(row.finished)], ["field.attempt", row.attempt || null],
    ["field.data", spec.dataset?.train?.uri ?? spec.input?.uri], ["field.output", spec.output?.uri],
    ["field.source", spec.model?.fromTrainingJob && html`<a href=${jobLink(`training/${row.namespace}/${spec.model.fromTrainingJob}`)}>${spec.model.fromTrainingJob}</a>`],
    ["field.checkpoint", status.checkpoint?.uri && html`<span title=${status.checkpoint.uri}>${status.checkpoint.epoch != null ? t("running.epochOnly", { n: status.checkpoint.epoch }) : status.checkpoint.uri}</span>`]];
  const outputs = Object.entries(status.outputs ?? {});
  return html`<section class="panel"><div class="panel-head"><h2>${t("job.details")}</h2></div><dl class="facts">${facts.filter(([, value]) => value != null && value !== "").map(([key, value]) => html`<div key=${key}><dt>${t(key)}</dt><dd>${value}</dd></div>`)}
    ${outputs.map(([name, uri]) => html`<div key=${name}><dt>${has(`output.${name}`) ? t(`output.${name}`) : name}</dt><dd class="uri">${uri}<${Copy} text=${uri} /></dd></div>`)}</dl></section>`;
}

function Results({ row, results, detail }) {
  const metrics = detail?.status.metrics;
  if (!results?.confusion?.length && !results?.bySNR?.length) {
    return html`<${Empty} title=${t("results.none")} text=${t(isOver(row) ? "results.noneOver" : "results.noneYet")} />`;
  }
  const right = results.confusion?.filter(([a, b]) => a === b).reduce((sum, [, , n]) => sum + n, 0), all = results.confusion?.reduce((sum, [, , n]) => sum + n, 0);
  return html`<div class="stackv">${all > 0 && html`<div class="tiles few"><section class="tile"><h2>${t("metric.accuracy")}</h2><p class="big">${share(right / all)}</p><p class="muted">${t("results.of", { right, n: all })}</p></section>
    ${metrics?.macroF1 != null && html`<section class="tile"><h2>${t("metric.macroF1")}</h2><p class="big">${figure(metrics.macroF1)}</p><p class="muted">${t("results.classes", { n: results.classes.length })}</p></section>`}</div>`}
    ${results.confusion?.length > 0 && html`<${Confusion} classes=${results.classes} confusion=${results.confusion} />`}
    ${results.bySNR?.length > 0 && html`<${ByNoise} bySNR=${results.bySNR} />`}
    ${results.truncated && html`<p class="muted">${t("results.truncated")}</p>`}</div>`;
}

function Events({ events }) {
  const list = Array.isArray(events) ? events : events?.events;
  if (!list?.length) return html`<${Empty} title=${t("events.none")} text=${t("events.noneText")} />`;
  return html`<section class="panel"><table class="list events"><thead><tr><th>${t("field.time")}</th><th>${t("events.reason")}</th><th>${t("events.message")}</th><th class="wide">${t("events.about")}</th></tr></thead>
    <tbody>${list.map((one, at) => html`<tr key=${at}><td class="muted" title=${fullTime(one.time)}>${ago(one.time)}</td><td class=${one.type === "Warning" ? "state waiting" : ""}>${one.type === "Warning" && html`<i></i>`}${one.reason}${one.count > 1 && html`<span class="count">×${one.count}</span>`}</td><td>${one.message}</td><td class="wide muted">${one.object}</td></tr>`)}</tbody></table></section>`;
}

function Manifest({ detail }) {
  const text = useMemo(() => (detail ? yaml(detail.manifest) : ""), [detail]);
  return html`<section class="panel"><div class="panel-head"><h2>${t("yaml.title")}</h2><${Copy} text=${text} label=${t("do.copyYaml")} /></div><pre class="code" tabindex="0">${text}</pre></section>`;
}
