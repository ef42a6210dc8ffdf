// Curves as SVG: the style sheet colours them, and the pointer reads their values.
import { html, useEffect, useRef, useState } from "./lib.js";

const LEFT = 46, RIGHT = 10, TOP = 8, BOTTOM = 24;

/** Round values that divide a range into about so many steps. */
function ticks(low, high, about, least = 0) {
  const rough = (high - low || 1) / about, size = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(least, size * [1, 2, 2.5, 5, 10].find((one) => one * size >= rough));
  return Array.from({ length: Math.floor((high - low) / step + 1e-9) + 2 }, (_, at) => (Math.ceil(low / step - 1e-9) + at) * step).filter((value) => value <= high + 1e-9);
}

/**
 * Lines over a common x.
 *
 * title: of the chart; describe: the same in words, for those who do not see it; data: [x, ...series], null where there
 * is no value; series: [{label, strong}]; show: a value as text; tick: the same on the axis; x: the label of the axis; range: of y, else that of the data.
 */
export function Chart({ title, describe, data, series, show, tick = show, x, range, height = 190 }) {
  const place = useRef();
  const [width, setWidth] = useState(0);
  const [at, setAt] = useState(-1);
  useEffect(() => {
    const watcher = new ResizeObserver(() => setWidth(place.current?.clientWidth ?? 0));
    watcher.observe(place.current);
    return () => watcher.disconnect();
  }, []);
  const [xs, ...lines] = data;
  const values = lines.flat().filter((value) => value != null);
  let [low, high] = range ?? [Math.min(...values), Math.max(...values)];
  if (!range) { const room = (high - low || Math.abs(high) || 1) * 0.06; [low, high] = [low - room < 0 && low >= 0 ? 0 : low - room, high + room]; }
  const first = xs[0], last = xs[xs.length - 1];
  const toX = (value) => LEFT + (value - first) / (last - first || 1) * (width - LEFT - RIGHT), toY = (value) => height - BOTTOM - (value - low) / (high - low) * (height - TOP - BOTTOM);
  const trace = (line) => { const parts = []; line.forEach((value, n) => { if (value != null) parts.push(`${toX(xs[n]).toFixed(1)},${toY(value).toFixed(1)}`); }); return parts.join(" "); };
  const move = (event) => {
    const wanted = first + (event.clientX - place.current.getBoundingClientRect().left - LEFT) / (width - LEFT - RIGHT) * (last - first);
    setAt(xs.reduce((best, value, n) => (Math.abs(value - wanted) < Math.abs(xs[best] - wanted) ? n : best), 0));
  };
  const shown = (line) => { for (let n = at < 0 ? line.length - 1 : at; n >= 0; n--) if (line[n] != null) return show(line[n]); return "–"; };
  return html`<figure class="chart"><figcaption><b>${title}</b>${series.map((one, n) => html`<span key=${one.label} class=${one.strong ? "strong" : ""}><i></i>${one.label} <span class="value">${shown(lines[n])}</span></span>`)}
    ${at >= 0 && html`<span class="muted">${x} ${xs[at]}</span>`}</figcaption>
    <div ref=${place} onPointerMove=${move} onPointerLeave=${() => setAt(-1)} style=${{ height: `${height}px` }}>${width > 0 && html`<svg width=${width} height=${height} role="img" aria-label=${describe}>
      ${ticks(low, high, 5).map((value) => html`<g key=${value}><line class="rule" x1=${LEFT} x2=${width - RIGHT} y1=${toY(value)} y2=${toY(value)} /><text x=${LEFT - 8} y=${toY(value) + 4} text-anchor="end">${tick(value)}</text></g>`)}
      ${ticks(first, last, Math.min(8, width / 60), 1).map((value) => html`<text key=${value} x=${toX(value)} y=${height - 6} text-anchor="middle">${value}</text>`)}
      ${lines.map((line, n) => html`<polyline key=${n} class=${series[n].strong ? "strong" : ""} points=${trace(line)} />`)}
      ${at >= 0 && html`<line class="cursor" x1=${toX(xs[at])} x2=${toX(xs[at])} y1=${TOP} y2=${height - BOTTOM} />`}
      ${lines.map((line, n) => { const here = at < 0 ? line.findLastIndex((value) => value != null) : at; return line[here] != null && html`<circle key=${n} class=${series[n].strong ? "strong" : ""} cx=${toX(xs[here])} cy=${toY(line[here])} r="3" />`; })}</svg>`}</div></figure>`;
}
