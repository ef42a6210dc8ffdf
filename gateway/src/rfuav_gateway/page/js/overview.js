// The cluster at a glance: how full the pools are and with whose jobs, what runs, what waits for what, and who may use how much.
import { ask } from "./api.js";
import { ahead, duration, figure, fullTime, inQueue, isOnGpu, now, percent, person, reasonOf, since, stateOf } from "./format.js";
import { number, t } from "./i18n.js";
import { html, useEffect, useMemo, useState } from "./lib.js";
import { Bar, Empty, Icon, Select, Spark, State } from "./parts.js";
import { go, jobLink, link } from "./route.js";
import { live, useLive, useTick } from "./store.js";

const FEW = 8; // rows of a list before "show all"
const HOLDERS = 4; // teams of a pool that are named
const DAY = 86400;

export function Overview({ session, query }) {
  const version = useLive();
  useTick(15000);
  const team = query.get("team") ?? "";
  const seen = useMemo(() => {
    const rows = [...live.rows.values()].filter((row) => !team || row.namespace === team);
    return {
      running: rows.filter(isOnGpu).sort((a, b) => (b.percent ?? -1) - (a.percent ?? -1) || (a.key < b.key ? -1 : 1)),
      waiting: rows.filter(inQueue).sort((a, b) => (a.pool < b.pool ? -1 : a.pool > b.pool ? 1 : (a.position ?? 1e9) - (b.position ?? 1e9))),
      failed: rows.filter((row) => stateOf(row) === "failed" && row.finished && since(row.finished) < DAY),
      any: rows.length > 0,
    };
  }, [version, team]);
  const teams = session.namespaces.map((one) => one.name);
  const usage = useUsage();
  return html`<div class="head overview-head"><h1>${t("nav.overview")}</h1>
    <div class="row">${teams.length > 1 && html`<${Select} label=${t("field.team")} value=${team} set=${(value) => go(link("", { team: value }), true)}
      options=${[["", t("jobs.allTeams")], ...teams.map((name) => [name, name])]} />`}
      ${session.namespaces.some((one) => one.create) && html`<a class="button main" href="#/new"><${Icon} name="plus" />${t("nav.create")}</a>`}</div></div>
    ${!live.loaded ? html`<p class="muted" role="status">${t("live.loading")}</p>` : html`
    <${Tiles} seen=${seen} usage=${usage} team=${team} />
    <div class="pools">${live.pools.map((pool) => html`<${Pool} key=${pool.name} pool=${pool} />`)}</div>
    ${session.pools && live.pools.length === 0 && html`<${Empty} title=${t("pools.none")} text=${t("pools.noneText")} command="kubectl apply -f examples/gpupool.yaml" />`}
    <div class="columns"><div>
      <${Running} rows=${seen.running} any=${seen.any} team=${team} />
      <${Queue} rows=${seen.waiting} team=${team} pools=${live.pools.length} /></div>
      <${Quotas} team=${team} /></div>`}`;
}

/** GPU-hours of a week by namespace; null where the gateway does not have them. */
function useUsage() {
  const [usage, set] = useState(null);
  useEffect(() => {
    let alive = true;
    const load = () => ask("GET", `api/v2/usage?by=namespace&from=${new Date(now() - 7 * DAY * 1000).toISOString().slice(0, 19)}`).then((found) => alive && set(found), () => {});
    load();
    const timer = setInterval(load, 120000);
    return () => { alive = false; clearInterval(timer); };
  }, []);
  return usage;
}

function Tiles({ seen, usage, team }) {
  const gpus = live.pools.reduce((sum, pool) => sum + pool.gpus, 0);
  const held = live.pools.reduce((sum, pool) => sum + pool.heldGpus, 0);
  const trainings = seen.running.filter((row) => row.type === "training").length;
  const starts = seen.waiting.map((row) => row.estimatedStart).filter(Boolean).sort();
  const hours = (usage?.usage ?? []).filter((one) => !team || one.name === team).reduce((sum, one) => sum + one.gpu_hours, 0);
  const at = (path, query) => link(path, { ...query, team });
  return html`<div class="tiles">
    ${gpus > 0 && html`<section class="tile"><h2>${t("tile.gpus")}</h2><p class="big">${number(held, 1)}<small> / ${number(gpus)}</small></p>
      <${Bar} value=${held / gpus * 100} state="running" label=${t("tile.gpus")} /><p class="muted">${t("tile.free", { n: Math.round((gpus - held) * 10) / 10 })}</p></section>`}
    <a class="tile" href=${at("jobs", { state: "running" })}><h2>${t("state.running")}</h2><p class="big">${number(seen.running.length)}</p>
      <p class="muted">${`${t("tile.trainings", { n: trainings })}, ${t("tile.inferences", { n: seen.running.length - trainings })}`}</p></a>
    <a class="tile" href=${at("jobs", { state: "waiting" })}><h2>${t("state.waiting")}</h2><p class="big">${number(seen.waiting.length)}</p>
      <p class="muted">${starts.length ? t("tile.next", { time: ahead(starts[0]) }) : seen.waiting.length ? t("tile.noEstimate") : t("tile.noQueue")}</p></a>
    <a class="tile" href=${at("jobs", { state: "failed" })}><h2>${t("tile.failed")}</h2><p class="big ${seen.failed.length ? "failed" : ""}">${number(seen.failed.length)}</p>
      <p class="muted">${t("tile.day")}</p></a>
    ${usage && html`<section class="tile"><h2>${t("tile.hours")}</h2><p class="big">${number(hours, hours < 100 ? 1 : 0)}</p><p class="muted" title=${usage.complete ? "" : t("tile.existing")}>${t("tile.week")}</p></section>`}
  </div>`;
}

function Pool({ pool }) {
  const [open, setOpen] = useState("");
  const slots = typeof pool.slots === "object" ? pool.slots : { training: pool.slots, inference: pool.slots };
  const holders = new Map();
  let hidden = 0;
  for (const node of pool.nodes) {
    for (const key of node.jobs) {
      const row = typeof key === "string" ? live.rows.get(key) : null;
      if (!row) { if (typeof key !== "string") hidden++; continue; }
      const mine = holders.get(row.namespace) ?? { training: 0, inference: 0, keys: new Set() };
      if (!mine.keys.has(key)) { mine.keys.add(key); mine[row.type] += row.gpus || 1; }
      holders.set(row.namespace, mine);
    }
  }
  const most = Math.max(1, ...[...holders.values()].map((one) => one.training + one.inference));
  const shown = pool.nodes.find((node) => node.name === open);
  return html`<section class="panel pool" aria-labelledby=${`pool-${pool.name}`}>
    <div class="panel-head"><h2 id=${`pool-${pool.name}`}>${pool.name}</h2><p class="muted">${t("pool.line", { gpus: pool.gpus, nodes: pool.nodes.length + (pool.nodesMore ?? 0) })}${products(pool)}</p>
      ${pool.waiting.training + pool.waiting.inference > 0 && html`<a class="state waiting" href=${link("jobs", { state: "waiting", q: live.pools.length > 1 ? pool.name : "" })}><i></i>${t("pool.waiting", { n: pool.waiting.training + pool.waiting.inference })}</a>`}
      ${!pool.ready && html`<span class="state failed"><i></i>${pool.message || t("pool.notReady")}</span>`}
      <p class="kinds">${["training", "inference"].map((kind) => html`<span key=${kind} class="kind"><i class="cell ${kind}"></i>${t(`kind.${kind}`)} <b>${number(pool.held[kind])}</b>
        <span class="muted">/ ${number(slots[kind] ?? 0)}</span></span>`)}</p></div>
    <div class="pool-body"><div>
      <ul class="nodes" aria-label=${t("pool.nodes")}>${pool.nodes.map((node) => html`<li key=${node.name}><button type="button" class="node ${node.open ? "" : "closed"}" aria-expanded=${open === node.name}
          title=${node.why || node.product} onClick=${() => setOpen(open === node.name ? "" : node.name)}>
        <span class="name">${node.name}</span><${Cells} node=${node} /><span class="unseen">${t("pool.node", { free: Math.max(0, Math.round((node.gpus - node.heldGpus) * 10) / 10), gpus: node.gpus })}${node.why}</span></button></li>`)}</ul>
      ${pool.nodesMore > 0 && html`<p class="muted">${t("pool.more", { n: pool.nodesMore })}</p>`}
      ${shown && html`<${Node} node=${shown} />`}</div>
      ${holders.size > 0 && html`<div class="holders"><h3>${t("pool.holders")}</h3><ul>${[...holders].sort((a, b) => b[1].training + b[1].inference - a[1].training - a[1].inference).slice(0, HOLDERS).map(([name, one]) => html`
        <li key=${name}><a href=${link("jobs", { team: name, state: "running" })}>${name}</a><span class="stack" aria-hidden="true"><i class="training" style=${{ width: `${one.training / most * 100}%` }}></i><i class="inference" style=${{ width: `${one.inference / most * 100}%` }}></i></span>
        <b>${number(one.training + one.inference)}</b></li>`)}${holders.size > HOLDERS && html`<li class="muted">${t("pool.moreTeams", { n: holders.size - HOLDERS })}</li>`}${hidden > 0 && html`<li class="muted">${t("pool.hidden", { n: hidden })}</li>`}</ul></div>`}
    </div></section>`;
}

const products = (pool) => { const names = [...new Set(pool.nodes.map((node) => node.product?.replace(/^NVIDIA[- ]/, "")).filter(Boolean))]; return names.length ? ` · ${names.slice(0, 3).join(", ")}` : ""; };

/** The GPUs of a node, those of trainings first, then those of inferences, then the free ones. */
function Cells({ node }) {
  const jobs = node.jobs.map((key) => (typeof key === "string" ? live.rows.get(key) : key)).filter(Boolean);
  const used = Math.ceil(node.heldGpus - 1e-9);
  const wanted = jobs.filter((job) => job.type === "training").reduce((sum, job) => sum + Math.max(1, (job.gpus || 1) / (job.nodes?.length || 1)), 0);
  const trainings = jobs.some((job) => job.type === "inference") && wanted >= used ? Math.max(used - 1, used ? 1 : 0) : Math.min(used, wanted);
  return html`<span class="cells" aria-hidden="true">${Array.from({ length: Math.min(node.gpus, 16) }, (_, at) => html`<i key=${at} class="cell ${at < trainings ? "training" : at < used ? "inference" : ""}"></i>`)}</span>`;
}

const Node = ({ node }) => html`<div class="node-jobs"><h3>${node.name} <span class="muted">${node.product}</span></h3>${node.why && html`<p class="note">${node.why}</p>`}
  ${node.jobs.length === 0 ? html`<p class="muted">${t("pool.noJobs")}</p>` : html`<ul>${node.jobs.map((key, at) => {
    const row = typeof key === "string" ? live.rows.get(key) : null;
    return html`<li key=${row?.key ?? at}>${row ? html`<i class="cell ${row.type}"></i><a data-item href=${jobLink(row.key)}>${row.name}</a> <span class="muted">${row.namespace}${row.user && ` · ${person(row.user)}`}</span> <b>${percent(row.percent)}</b>`
      : html`<i class="cell ${key.type ?? ""}"></i><span class="muted">${t("pool.someone")}</span>`}</li>`; })}</ul>`}</div>`;

const Name = ({ row }) => html`<a class="job" data-item href=${jobLink(row.key)}>${row.name}</a><span class="sub">${row.namespace}${row.user && row.user !== row.namespace ? ` · ${person(row.user)}` : ""}</span>`;

const All = ({ rows, query }) => rows.length > FEW && html`<a class="all" href=${link("jobs", query)}>${t("do.showAll", { n: rows.length })}</a>`;

function Running({ rows, any, team }) {
  return html`<section class="panel" aria-labelledby="running"><div class="panel-head"><h2 id="running">${t("state.running")} <span class="count">${number(rows.length)}</span></h2><${All} rows=${rows} query=${{ state: "running", team }} /></div>
    ${rows.length === 0 ? html`<${Empty} title=${t(any ? "running.none" : "jobs.none")} text=${t("running.noneText")} command="kubectl apply -f examples/training-job.yaml" />` : html`
    <table class="list"><thead><tr><th>${t("field.job")}</th><th class="progress">${t("field.progress")}</th><th class="wide">${t("field.loss")}</th><th class="num">${t("field.left")}</th></tr></thead>
    <tbody>${rows.slice(0, FEW).map((row) => html`<tr key=${row.key}><td><${Name} row=${row} /></td>
      <td class="progress">${stateOf(row) === "starting" ? html`<${State} row=${row} />` : html`<${Bar} value=${row.percent} state="running" label=${row.name} /><span class="sub">${steps(row)}</span>`}</td>
      <td class="wide loss">${row.type === "training" && row.loss != null ? html`<${Spark} values=${(live.history.get(row.key) ?? []).map((one) => one.loss)} label=${t("running.loss", { value: figure(row.loss) })} /><span>${figure(row.loss)}</span>`
        : row.speed ? html`<span class="muted">${t("running.speed", { n: row.speed })}</span>` : ""}</td>
      <td class="num">${row.remaining != null ? duration(row.remaining) : "–"}</td></tr>`)}</tbody></table>`}</section>`;
}

export const steps = (row) => (row.epochs ? t("running.epoch", { epoch: row.epoch ?? 0, epochs: row.epochs }) : row.total ? t("running.done", { done: row.processed ?? 0, total: row.total }) : percent(row.percent));

function Queue({ rows, team, pools }) {
  return html`<section class="panel" aria-labelledby="queue"><div class="panel-head"><h2 id="queue">${t("queue.title")} <span class="count">${number(rows.length)}</span></h2><${All} rows=${rows} query=${{ state: "waiting", team, sort: "position" }} /></div>
    ${rows.length === 0 ? html`<p class="muted pad">${t("queue.none")}</p>` : html`<table class="list"><thead><tr><th class="place num"><abbr title=${t("field.position")}>#</abbr></th><th>${t("field.job")}</th><th class="why">${t("queue.why")}</th><th class="num">${t("queue.start")}</th></tr></thead>
    <tbody>${rows.slice(0, FEW).map((row) => html`<tr key=${row.key}><td class="place num">${row.position ?? "–"}</td><td><${Name} row=${row} />${pools > 1 && html`<span class="sub">${row.pool}</span>`}</td>
      <td class="why">${reasonOf(row.reason) || t("state.waiting")}<span class="sub two" title=${row.message}>${row.message}</span></td>
      <td class="num" title=${fullTime(row.estimatedStart)}>${row.estimatedStart ? ahead(row.estimatedStart) : html`<span class="muted">${t("queue.unknown")}</span>`}</td></tr>`)}</tbody></table>`}</section>`;
}

function Quotas({ team }) {
  const quotas = live.quotas.filter((one) => !team || one.namespace === team).sort((a, b) => b.used - a.used || (a.namespace < b.namespace ? -1 : 1));
  if (quotas.length === 0) return null;
  const most = Math.max(1, ...quotas.map((one) => Math.max(one.limit ?? 0, one.nominal ?? 0, one.used)));
  return html`<section class="panel" aria-labelledby="quotas"><div class="panel-head"><h2 id="quotas">${t("quotas.title")}</h2></div>
    <ul class="quotas">${quotas.map((one) => html`<li key=${one.namespace + one.pool}><div class="line"><a href=${link("jobs", { team: one.namespace })}>${one.namespace}</a>${live.pools.length > 1 && html`<span class="muted">${one.pool}</span>`}
      <span class="figures"><b>${number(one.used, 1)}</b>${one.nominal != null && html`<span class="muted"> / ${number(one.nominal)}</span>`}</span></div>
      <span class="quota" aria-hidden="true"><i class="own" style=${{ width: `${(one.used - one.borrowed) / most * 100}%` }}></i><i class="borrowed" style=${{ width: `${one.borrowed / most * 100}%` }}></i>
        ${one.nominal != null && html`<u style=${{ left: `${one.nominal / most * 100}%` }}></u>`}</span>
      <div class="line muted small">${one.borrowed > 0 && html`<span class="state waiting">${t("quotas.borrowed", { n: one.borrowed })}</span>`}
        <span>${one.limit != null ? t("quotas.limit", { n: one.limit }) : ""}</span></div></li>`)}</ul></section>`;
}
