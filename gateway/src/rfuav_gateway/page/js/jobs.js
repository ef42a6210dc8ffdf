// All jobs: search, filters that live in the address, and a list that draws only the rows in sight.
import { ago, ahead, clock, duration, fullTime, isOnGpu, isOver, percent, person, stateOf, storyOf } from "./format.js";
import { number, t } from "./i18n.js";
import { html, useLayoutEffect, useMemo, useRef, useState } from "./lib.js";
import { Bar, Choice, Empty, Icon, Select, State } from "./parts.js";
import { go, jobLink, link } from "./route.js";
import { steps } from "./overview.js";
import { live, useLive, useTick } from "./store.js";

const SPARE = 8; // rows drawn above and below those in sight
const STATES = ["running", "waiting", "suspended", "failed", "succeeded", "cancelled"];
const RANK = { running: 0, starting: 1, waiting: 2, suspended: 3, failed: 4, succeeded: 5, cancelled: 6 };
const text = (key) => (a, b) => ((a[key] ?? "") < (b[key] ?? "") ? -1 : (a[key] ?? "") > (b[key] ?? "") ? 1 : 0);
const amount = (key) => (a, b) => (a[key] ?? Infinity) - (b[key] ?? Infinity);
const SORTS = { name: text("name"), state: (a, b) => RANK[stateOf(a)] - RANK[stateOf(b)] || -text("created")(a, b), team: text("namespace"), model: text("model"),
  progress: (a, b) => (b.percent ?? -1) - (a.percent ?? -1), position: amount("position"), created: (a, b) => -text("created")(a, b), gpus: (a, b) => (b.gpus ?? 0) - (a.gpus ?? 0) };
const lines = new WeakMap();
/** What a search looks at; a row never changes, an update brings another. */
function lineOf(row) {
  let line = lines.get(row);
  if (line === undefined) lines.set(row, (line = `${row.name} ${row.namespace} ${row.user} ${row.model} ${row.reason} ${row.id} ${row.pool}`.toLowerCase()));
  return line;
}
const group = (row) => (stateOf(row) === "starting" ? "running" : stateOf(row));

export function Jobs({ session, query }) {
  const version = useLive();
  useTick(30000);
  const asked = Object.fromEntries(query);
  const { q = "", state = "", type = "", team = "", user = "", sort = "created" } = asked;
  const set = (changes, replace = true) => go(link("jobs", { ...asked, ...changes }), replace);
  const users = useMemo(() => [...new Set([...live.rows.values()].map((row) => row.user).filter(Boolean))].sort(), [version]);
  const { rows, counts, all } = useMemo(() => {
    const words = q.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = {}, rows = [];
    let all = 0;
    for (const row of live.rows.values()) {
      if ((type && row.type !== type) || (team && row.namespace !== team) || (user && row.user !== user)) continue;
      if (words.length) {
        const line = lineOf(row);
        if (!words.every((word) => line.includes(word))) continue;
      }
      const mine = group(row);
      counts[mine] = (counts[mine] ?? 0) + 1;
      all++;
      if (!state || mine === state) rows.push(row);
    }
    const back = sort.startsWith("-"), order = SORTS[back ? sort.slice(1) : sort] ?? SORTS.created;
    rows.sort(back ? (a, b) => order(b, a) : order);
    return { rows, counts, all };
  }, [version, q, state, type, team, user, sort]);
  const teams = session.namespaces.map((one) => one.name);
  const filtered = q || state || type || team || user;
  return html`<div class="head"><h1>${t("nav.jobs")}</h1>${session.namespaces.some((one) => one.create) && html`<a class="button main" href="#/new"><${Icon} name="plus" />${t("nav.create")}</a>`}</div>
  <div class="filters"><label class="search"><${Icon} name="search" /><input type="search" data-search aria-label=${t("jobs.search")} placeholder=${t("jobs.search")} value=${q} onInput=${(event) => set({ q: event.target.value })} /><kbd aria-hidden="true">/</kbd></label>
    <${Select} label=${t("field.type")} value=${type} set=${(value) => set({ type: value })} options=${[["", t("jobs.allTypes")], ["training", t("kind.training")], ["inference", t("kind.inference")]]} />
    ${teams.length > 1 && html`<${Select} label=${t("field.team")} value=${team} set=${(value) => set({ team: value })} options=${[["", t("jobs.allTeams")], ...teams.map((name) => [name, name])]} />`}
    ${users.length > 1 && html`<${Select} label=${t("field.user")} value=${user} set=${(value) => set({ user: value })} options=${[["", t("jobs.allUsers")], ...users.map((name) => [name, person(name)])]} />`}</div>
  <${Choice} label=${t("field.state")} value=${state} set=${(value) => set({ state: value })} options=${[["", t("jobs.all"), number(all)], ...STATES.map((one) => [one, t(`state.${one}`), number(counts[one] ?? 0)])]} />
  ${!live.loaded ? html`<p class="muted" role="status">${t("live.loading")}</p>` : rows.length === 0
    ? filtered ? html`<${Empty} title=${t("jobs.noMatch")} text=${t("jobs.noMatchText")}><button type="button" class="plain" onClick=${() => go("#/jobs")}>${t("jobs.clear")}</button><//>`
      : html`<${Empty} title=${t("jobs.none")} text=${t("running.noneText")} command="kubectl apply -f examples/training-job.yaml" />`
    : html`<${List} rows=${rows} sort=${sort} set=${set} />`}
  <p class="unseen" role="status">${live.loaded ? t("jobs.found", { n: rows.length }) : ""}</p>`;
}

const COLUMNS = [["name", "field.job"], ["state", "field.state"], ["progress", "field.progress"], ["model", "field.model"], ["gpus", "field.gpus", "num"], ["created", "field.created", "num"]];

function List({ rows, sort, set }) {
  const list = useRef();
  const [view, setView] = useState({ first: 0, count: 40, height: 52 });
  const chosen = useRef(-1);
  const scroller = () => list.current.closest("main");
  useLayoutEffect(() => {
    const main = scroller();
    const measure = () => {
      const height = parseFloat(getComputedStyle(list.current).getPropertyValue("--row"));
      const above = main.getBoundingClientRect().top - list.current.getBoundingClientRect().top;
      const first = Math.max(0, Math.floor(above / height) - SPARE), count = Math.ceil(main.clientHeight / height) + 2 * SPARE;
      setView((old) => (old.first === first && old.count === count && old.height === height ? old : { first, count, height }));
    };
    measure();
    main.addEventListener("scroll", measure, { passive: true });
    addEventListener("resize", measure);
    return () => { main.removeEventListener("scroll", measure); removeEventListener("resize", measure); };
  }, []);
  useLayoutEffect(() => {
    const node = list.current;
    const step = (event) => {
      const at = chosen.current < 0 ? (event.detail > 0 ? 0 : -1) : chosen.current + event.detail;
      if (at < 0 || at >= rows.length) return;
      chosen.current = at;
      const main = scroller(), top = node.getBoundingClientRect().top - main.getBoundingClientRect().top + at * view.height;
      if (top < 60) main.scrollBy(0, top - 60);
      if (top > main.clientHeight - view.height * 2) main.scrollBy(0, top - main.clientHeight + view.height * 2);
      const focus = (left) => { // keys may come faster than rows are drawn
        if (chosen.current !== at) return;
        const item = node.querySelector(`[data-at="${at}"]`);
        if (item) item.focus({ preventScroll: true }); else if (left) requestAnimationFrame(() => focus(left - 1));
      };
      focus(60);
    };
    const choose = (event) => { chosen.current = Number(event.target.dataset.at); };
    node.addEventListener("step", step);
    node.addEventListener("focusin", choose);
    return () => { node.removeEventListener("step", step); node.removeEventListener("focusin", choose); };
  }, [rows, view.height]);
  const from = Math.min(view.first, Math.max(0, rows.length - view.count));
  const drawn = rows.slice(from, from + view.count);
  const [back, by] = [sort.startsWith("-"), sort.replace("-", "")];
  return html`<div class="grid" role="table" aria-label=${t("nav.jobs")} aria-rowcount=${rows.length + 1}>
    <div class="grid-head" role="row" aria-rowindex="1">${COLUMNS.map(([key, label, kind]) => html`<span key=${key} role="columnheader" class="${key} ${kind ?? ""}" aria-sort=${by === key ? (back ? "descending" : "ascending") : "none"}>
      <button type="button" onClick=${() => set({ sort: by === key && !back ? `-${key}` : key })}>${t(label)}${by === key && html`<${Icon} name="down" />`}</button></span>`)}</div>
    <div role="rowgroup" class="virtual" data-virtual ref=${list} style=${{ height: `calc(var(--row) * ${rows.length})` }}>
      <div class="window" style=${{ transform: `translateY(calc(var(--row) * ${from}))` }}>${drawn.map((row, at) => html`<${Line} key=${row.key} row=${row} at=${from + at} />`)}</div></div></div>`;
}

function Line({ row, at }) {
  const state = stateOf(row);
  return html`<div class="grid-row" role="row" aria-rowindex=${at + 2}>
    <span role="cell" class="name"><a class="job" data-at=${at} href=${jobLink(row.key)}>${row.name}</a><span class="sub">${row.namespace}${row.user && ` · ${person(row.user)}`}</span></span>
    <span role="cell" class="state-cell"><${State} row=${row} /></span>
    <span role="cell" class="progress">${isOnGpu(row) && state === "running" ? html`<${Bar} value=${row.percent} state="running" label=${t("field.progress")} /><span class="sub">${steps(row)}${row.remaining != null ? ` · ${t("running.left", { time: duration(row.remaining) })}` : ""}</span>`
      : html`<span class="story">${storyOf(row)}${isOver(row) && row.finished && state === "succeeded" ? t("jobs.took", { time: duration((Date.parse(row.finished) - Date.parse(row.started ?? row.created)) / 1000) }) : ""}</span>
        <span class="sub">${state === "waiting" ? [row.position && t("job.place", { n: row.position, of: row.of ?? row.position }), row.estimatedStart && ahead(row.estimatedStart)].filter(Boolean).join(" · ") : row.finished ? clock(row.finished) : percent(row.percent)}</span>`}</span>
    <span role="cell" class="model">${row.model}<span class="sub">${t(`kind.${row.type}`)}</span></span>
    <span role="cell" class="gpus num">${row.gpus ?? "–"}</span>
    <span role="cell" class="created num" title=${fullTime(row.created)}>${ago(row.created)}</span></div>`;
}
