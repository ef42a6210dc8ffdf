// Times, shares and states as people read them.
import { has, language, number, t } from "./i18n.js";

let skew = 0; // ms, of the server's clock against this machine's
export const setServerTime = (iso) => { skew = Date.parse(iso) - Date.now(); };
export const now = () => Date.now() + skew;

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
/** Seconds in one unit, or in two where the first is small: "45 s", "12 min", "3 h 20 min". */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => whole >= size);
  if (first < 0) return t("unit.s", { n: 0 });
  const [unit, size] = UNITS[first];
  const count = Math.floor(whole / size), next = UNITS[first + 1];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  const main = t(`unit.${unit}`, { n: count });
  return next && rest && count < 10 && unit !== "min" ? `${main} ${t(`unit.${next[0]}`, { n: rest })}` : main;
}

export const since = (iso) => (now() - Date.parse(iso)) / 1000;
export const ago = (iso) => (iso ? t("time.ago", { time: duration(since(iso)) }) : "");
/** When something is expected, from now on. */
export function ahead(iso) {
  const seconds = -since(iso);
  return seconds < 45 ? t("time.soon") : t("time.about", { time: duration(Math.round(seconds / 60) * 60) });
}

export function clock(iso) {
  if (!iso) return "";
  const day = new Date(iso), today = new Date();
  const options = day.toDateString() === today.toDateString()
    ? { hour: "2-digit", minute: "2-digit" }
    : { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" };
  return day.toLocaleString(language, { ...options, hourCycle: "h23" });
}
export const fullTime = (iso) => (iso ? new Date(iso).toLocaleString(language, { dateStyle: "medium", timeStyle: "long", hourCycle: "h23" }) : "");

export const share = (value, digits = 1) => (value == null ? "–" : `${number(value * 100, digits, digits)}%`);
export const percent = (value) => (value == null ? "–" : `${number(value)}%`);
/** A loss or learning rate: three figures that count. */
export function figure(value) {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e6)) return value.toExponential(1);
  return number(value, size < 1 ? 4 : size < 100 ? 2 : 0, size < 1 ? 3 : size < 100 ? 2 : 0);
}

const STATES = { Queued: "waiting", Admitted: "starting", Running: "running", Suspended: "suspended",
  Succeeded: "succeeded", Failed: "failed", Cancelled: "cancelled" };
/** A user without what all service accounts have in common. */
export const person = (user) => (user ?? "").replace(/^system:serviceaccount:/, "");
export const stateOf = (row) => STATES[row.phase] ?? "waiting";
export const isOver = (row) => ["succeeded", "failed", "cancelled"].includes(stateOf(row));
export const inQueue = (row) => stateOf(row) === "waiting";
export const isOnGpu = (row) => ["running", "starting"].includes(stateOf(row));
/** A reason in words; one without an entry keeps its own, spaced. */
export const reasonOf = (word) => (!word ? "" : has(`reason.${word}`) ? t(`reason.${word}`) : word.replace(/([a-z])([A-Z])/g, (_, a, b) => `${a} ${b.toLowerCase()}`));

/** What a job does now, in one line of a list. */
export function storyOf(row) {
  const state = stateOf(row);
  if (state === "waiting") return row.reason ? reasonOf(row.reason) : t("state.waiting");
  if (state === "failed" || row.reason) return reasonOf(row.reason) || row.message || "";
  return "";
}
