// Small pieces that several views use.
import { percent, stateOf } from "./format.js";
import { t } from "./i18n.js";
import { html, useEffect, useRef, useState } from "./lib.js";

const ICONS = {
  overview: "M3 3h7v9H3zM14 3h7v5h-7zM14 12h7v9h-7zM3 16h7v5H3z",
  jobs: "M4 6h16M4 12h16M4 18h10",
  plus: "M12 5v14M5 12h14",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zM20 20l-4-4",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  check: "M5 13l4 4L19 7",
  cross: "M6 6l12 12M18 6L6 18",
  light: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.9 4.900l1.4 1.400M17.7 17.700l1.4 1.400M2 12h2M20 12h2M4.9 19.100l1.4-1.400M17.7 6.300l1.4-1.4",
  dark: "M20 14.500A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.500z",
  auto: "M3 5h18v12H3zM8 21h8M12 17v4",
  language: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM3 12h18M12 3c5 5 5 13 0 18M12 3c-5 5-5 13 0 18",
  out: "M15 4h4v16h-4M10 8l-4 4 4 4M6 12h9",
  keys: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M8 14h8",
  down: "M6 9l6 6 6-6",
  pause: "M9 5v14M15 5v14",
  play: "M7 5l12 7-12 7z",
  more: "M5 12h.01M12 12h.01M19 12h.01",
};

export const Icon = ({ name }) => html`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]} /></svg>`;

/** The state of a job: a dot with its word. */
export const State = ({ row, state = stateOf(row) }) => html`<span class="state ${state}"><i aria-hidden="true"></i>${t(`state.${state}`)}</span>`;

/** A share of 100 as a bar; `state` colours it. */
export const Bar = ({ value, state = "", label }) => html`<span class="bar ${state}" role="progressbar" aria-label=${label}
  aria-valuenow=${Math.round(value ?? 0)} aria-valuemin="0" aria-valuemax="100" aria-valuetext=${percent(value)}><i style=${{ width: `${Math.min(100, value ?? 0)}%` }}></i></span>`;

/** Values as a small line, the newest at the right. */
export function Spark({ values, label }) {
  const W = 84, H = 22;
  const numbers = values.filter((value) => value != null);
  if (numbers.length < 2) return html`<span class="spark none" aria-hidden="true"></span>`;
  const low = Math.min(...numbers), span = Math.max(...numbers) - low || 1;
  const points = numbers.map((value, at) => `${(2 + at / (numbers.length - 1) * (W - 6)).toFixed(1)},${(H - 3 - (value - low) / span * (H - 6)).toFixed(1)}`);
  const [x, y] = points[points.length - 1].split(",");
  return html`<svg class="spark" viewBox="0 0 ${W} ${H}" role="img" aria-label=${label}><polyline points=${points.join(" ")} /><circle cx=${x} cy=${y} r="2" /></svg>`;
}

/** A button that copies a text and says so. */
export function Copy({ text, label = t("do.copy") }) {
  const [done, set] = useState(false);
  useEffect(() => { if (done) { const timer = setTimeout(() => set(false), 1500); return () => clearTimeout(timer); } }, [done]);
  const copy = async () => { await copyText(text); set(true); };
  return html`<button type="button" class="quiet small copy" onClick=${copy} aria-label=${label} title=${label}>
    <${Icon} name=${done ? "check" : "copy"} /><span aria-live="polite" class="unseen">${done ? t("do.copied") : ""}</span></button>`;
}

async function copyText(text) {
  if (navigator.clipboard) { try { await navigator.clipboard.writeText(text); return; } catch { /* refused: the old way */ } }
  const area = Object.assign(document.createElement("textarea"), { value: text });
  document.body.append(area);
  area.select();
  document.execCommand("copy"); // plain HTTP has no clipboard of its own
  area.remove();
}

/** A command to run, with its button. */
export const Command = ({ text }) => html`<div class="command"><code tabindex="0">${text}</code><${Copy} text=${text} label=${t("do.copyCommand")} /></div>`;

/** A dialog over the page, open as long as it is drawn. Esc and the ground behind it close it. */
export function Dialog({ title, close, children, wide }) {
  const place = useRef();
  useEffect(() => { const before = document.activeElement; place.current.showModal(); return () => before?.focus?.(); }, []);
  return html`<dialog ref=${place} class=${wide ? "wide" : ""} aria-labelledby="dialog-title" onCancel=${(event) => { event.preventDefault(); close(); }}
    onClick=${(event) => event.target === place.current && close()}>
    <div class="dialog"><h2 id="dialog-title">${title}</h2>${children}</div></dialog>`;
}

/** A question before something is done; what the doing refuses is shown in it. */
export function Confirm({ title, text, act, verb, danger, close }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState("");
  const doIt = async (event) => {
    event.preventDefault();
    setBusy(true);
    try { await act(); close(); } catch (problem) { setError(problem.message || t("error.unreachable")); setBusy(false); }
  };
  return html`<${Dialog} title=${title} close=${close}><form onSubmit=${doIt}><p>${text}</p>
    ${error && html`<p class="note failed" role="alert">${error}</p>`}
    <div class="row end"><button type="button" class="plain" onClick=${close}>${t("do.back")}</button>
    <button class=${danger ? "danger" : "main"} disabled=${busy} autofocus>${verb}</button></div></form><//>`;
}

/** Nothing to show: what to do about it. */
export const Empty = ({ title, text, command, children }) => html`<div class="empty"><h3>${title}</h3>${text && html`<p>${text}</p>`}
  ${command && html`<${Command} text=${command} />`}${children}</div>`;

/** Some exclusive choices; the chosen one is known by `value`. */
export const Choice = ({ label, value, options, set }) => html`<div class="choice" role="group" aria-label=${label}>${options.map(([key, text, count]) => html`
  <button type="button" key=${key} class=${key} aria-pressed=${value === key} onClick=${() => set(key)}>${text}${count != null && html`<span class="count">${count}</span>`}</button>`)}</div>`;

export const Select = ({ label, value, options, set, ...rest }) => html`<select aria-label=${label} value=${value} onChange=${(event) => set(event.target.value)} ...${rest}>
  ${options.map(([key, text]) => html`<option key=${key} value=${key} selected=${key === value}>${text}</option>`)}</select>`;
