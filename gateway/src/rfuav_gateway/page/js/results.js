// What a job found: its curves, which classes it takes for which, and how its accuracy depends on the noise.
import { Chart } from "./chart.js";
import { figure, share } from "./format.js";
import { number, t } from "./i18n.js";
import { html, useMemo } from "./lib.js";

/** Curves of what the trainer recorded, continued by the values seen since. `row` is the newest. */
export function Curves({ results, seen }) {
  const data = useMemo(() => {
    const history = results?.history ?? {};
    const byEpoch = new Map((history.epochs ?? []).map((epoch, at) => [epoch, { trainLoss: history.trainLoss?.[at], valLoss: history.valLoss?.[at],
      trainAccuracy: history.trainAccuracy?.[at], valAccuracy: history.valAccuracy?.[at] }]));
    for (const { epoch, ...values } of seen) if (epoch != null) byEpoch.set(epoch, { ...values, ...dropEmpty(byEpoch.get(epoch)) });
    const epochs = [...byEpoch.keys()].sort((a, b) => a - b);
    const column = (name) => epochs.map((epoch) => byEpoch.get(epoch)[name] ?? null);
    return { epochs, loss: [epochs, column("trainLoss"), column("valLoss")], accuracy: [epochs, column("trainAccuracy"), column("valAccuracy")] };
  }, [results, seen]);
  if (data.epochs.length < 2) return html`<p class="muted pad">${t("curves.none")}</p>`;
  const last = (column) => [...column].reverse().find((value) => value != null);
  const series = [{ label: t("curves.train") }, { label: t("curves.validation"), strong: true }];
  const describe = (what, [epochs, train, validation], show) => t("curves.describe", { what, n: epochs.length, train: show(last(train)), validation: show(last(validation)) });
  return html`<div class="charts">
    <${Chart} title=${t("metric.loss")} describe=${describe(t("metric.loss"), data.loss, figure)} data=${data.loss} series=${series} show=${figure} tick=${(value) => number(value, 3, 1)} x=${t("curves.epoch")} />
    <${Chart} title=${t("metric.accuracy")} describe=${describe(t("metric.accuracy"), data.accuracy, share)} data=${data.accuracy} series=${series} show=${(value) => share(value, 0)} x=${t("curves.epoch")} /></div>`;
}

const dropEmpty = (values = {}) => Object.fromEntries(Object.entries(values).filter(([, value]) => value != null));

/** The confusion matrix as a table: a row for each true class, a column for each guess. */
export function Confusion({ classes, confusion }) {
  const { cells, sums } = useMemo(() => {
    const cells = new Map(confusion.map(([row, column, count]) => [`${row},${column}`, count]));
    const sums = classes.map((_, row) => confusion.filter(([r]) => r === row).reduce((sum, [, , count]) => sum + count, 0));
    return { cells, sums };
  }, [confusion]);
  const small = classes.length > 16;
  return html`<section class="panel"><div class="panel-head"><h2>${t("confusion.title")}</h2><p class="muted">${t("confusion.text")}</p></div>
    <div class="scroll" tabindex="0" role="region" aria-label=${t("confusion.title")}><table class="confusion ${small ? "small" : ""}"><thead><tr><th scope="col"><span class="unseen">${t("confusion.true")}</span></th>
    ${classes.map((name, at) => html`<th key=${at} scope="col" title=${name}><span>${name}</span></th>`)}<th scope="col" class="num">${t("confusion.samples")}</th></tr></thead>
    <tbody>${classes.map((name, row) => html`<tr key=${row}><th scope="row" title=${name}>${name}</th>${classes.map((guess, column) => {
      const count = cells.get(`${row},${column}`) ?? 0, part = sums[row] ? count / sums[row] : 0;
      return html`<td key=${column} class=${count ? (row === column ? "right" : "wrong") : ""} title=${t("confusion.cell", { true: name, guess, n: count, share: share(part) })} style=${{ "--part": part }}>${small ? html`<span class="unseen">${number(count)}</span>` : count || ""}</td>`; })}
      <td class="num muted">${number(sums[row])}</td></tr>`)}</tbody></table></div></section>`;
}

/** Accuracy by signal-to-noise ratio, as a curve and as its numbers. */
export function ByNoise({ bySNR }) {
  const rows = useMemo(() => [...bySNR].sort((a, b) => a[0] - b[0]), [bySNR]);
  const data = useMemo(() => [rows.map((row) => row[0]), rows.map((row) => row[2])], [rows]);
  return html`<section class="panel"><div class="panel-head"><h2>${t("noise.title")}</h2></div><div class="noise">
    ${rows.length > 1 && html`<${Chart} title=${t("metric.accuracy")} describe=${t("noise.title")} data=${data} series=${[{ label: t("metric.accuracy"), strong: true }]} show=${(value) => share(value, 0)} x=${t("noise.axis")} range=${[0, 1.02]} height=${230} />`}
    <table class="list tight"><thead><tr><th class="num">${t("noise.axis")}</th><th class="num">${t("confusion.samples")}</th><th class="num">${t("metric.accuracy")}</th></tr></thead>
    <tbody>${rows.map(([snr, n, accuracy]) => html`<tr key=${snr}><td class="num">${number(snr, 1)}</td><td class="num">${number(n)}</td><td class="num">${share(accuracy)}</td></tr>`)}</tbody></table></div></section>`;
}
