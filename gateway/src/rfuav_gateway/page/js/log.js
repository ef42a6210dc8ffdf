// The log of a job as its pods write it: searched, and followed as long as the reader is at its end.
import { address } from "./api.js";
import { t } from "./i18n.js";
import { html, useEffect, useMemo, useRef, useState } from "./lib.js";
import { Icon } from "./parts.js";

const MOST = 2000; // lines that are kept, as many as the gateway keeps

export function Log({ row }) {
  const [lines, setLines] = useState([]);
  const [state, setState] = useState("loading");
  const [q, setQ] = useState("");
  const [following, setFollowing] = useState(true);
  const box = useRef();
  useEffect(() => {
    const id = row.id.split("/").map(encodeURIComponent).join("/");
    const source = new EventSource(address(`api/v2/tasks/${id}/logs?tail=${MOST}`, row.namespace));
    let kept = [], number = 0, timer = 0, tries = 0;
    const show = () => { timer = 0; setLines(kept); };
    source.onopen = () => { setState("live"); tries = 0; };
    const take = (event) => {
      const entry = JSON.parse(event.data);
      if (entry.status) { source.close(); setState("ended"); } // how the job ended: the last event
      if (!entry.message) return;
      kept = kept.concat({ ...entry, number: number++ }).slice(-MOST);
      timer ||= setTimeout(show, 120);
    };
    source.onmessage = take;
    for (const notice of ["missed", "denied"]) source.addEventListener(notice, take);
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) setState((old) => (old === "loading" ? "none" : "ended"));
      else if (++tries > 2) setState((old) => (old === "live" ? "lost" : old));
    };
    return () => { clearTimeout(timer); source.close(); };
  }, [row.id, row.namespace]);
  const found = useMemo(() => {
    const wanted = q.toLowerCase();
    return wanted ? lines.filter((line) => line.message?.toLowerCase().includes(wanted)) : lines;
  }, [lines, q]);
  useEffect(() => { if (following && box.current) box.current.scrollTop = box.current.scrollHeight; }, [found, following]);
  const onScroll = () => { if (!box.current) return; const { scrollTop, scrollHeight, clientHeight } = box.current; setFollowing(scrollHeight - scrollTop - clientHeight < 30); };
  const several = useMemo(() => new Set(lines.map((line) => line.attempt)).size > 1, [lines]);
  const status = { loading: t("live.loading"), live: t("log.live"), lost: t("live.lost"), ended: t("log.ended"), none: t("log.none") }[state];
  return html`<section class="panel log"><div class="panel-head"><label class="search"><${Icon} name="search" /><input type="search" data-search aria-label=${t("log.search")} placeholder=${t("log.search")} value=${q} onInput=${(event) => setQ(event.target.value)} /></label>
    <p class="muted" role="status">${q ? t("log.found", { n: found.length }) : status}</p>
    <label class="check"><input type="checkbox" checked=${following} onChange=${(event) => setFollowing(event.target.checked)} />${t("log.follow")}</label></div>
    ${lines.length === 0 ? html`<p class="muted pad">${state === "live" || state === "loading" ? t("log.waiting") : t("log.none")}</p>` : html`
    <div class="lines" ref=${box} onScroll=${onScroll} tabindex="0" role="log" aria-live="off" aria-label=${t("tab.log")}>${found.map((line) => html`<${Line} key=${line.number} line=${line} q=${q} several=${several} />`)}</div>`}</section>`;
}

function Line({ line, q, several }) {
  const stamp = line.timestamp ? new Date(/Z|[+-]\d\d:\d\d$/.test(line.timestamp) ? line.timestamp : `${line.timestamp}Z`) : null;
  const part = [several && line.attempt && t("log.attempt", { n: line.attempt }), line.shard != null && t("log.shard", { n: line.shard }), line.rank != null && t("log.rank", { n: line.rank })].filter(Boolean).join(" ");
  return html`<div class="entry ${line.level}"><time>${stamp ? stamp.toLocaleTimeString([], { hourCycle: "h23" }) : ""}</time>${part && html`<span class="muted">${part}</span>`}<span class="message">${marked(line.message ?? "", q)}</span></div>`;
}

function marked(text, q) {
  if (!q) return text;
  const parts = [], lower = text.toLowerCase(), wanted = q.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + wanted.length)}</mark>`);
    from = at + wanted.length;
  }
  return [...parts, text.slice(from)];
}
