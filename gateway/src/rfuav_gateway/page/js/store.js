// What the page knows of the cluster: one stream of events keeps it, and components that use it are drawn again.
import { address, ask } from "./api.js";
import { setServerTime } from "./format.js";
import { useEffect, useState } from "./lib.js";

const MOST = 20_000; // rows that are kept; the jobs that ended first go first
const SEEN = 60; // values of a loss that are kept for a sparkline

export const live = {
  rows: new Map(), pools: [], quotas: [],
  /** key -> [{epoch, loss, accuracy}], of the values seen while the page is open. */
  history: new Map(),
  loaded: false, state: "connecting", version: 0,
};

const listeners = new Set();
let planned = 0;
function changed() {
  live.version++;
  if (!planned) planned = setTimeout(() => { planned = 0; listeners.forEach((tell) => tell(live.version)); }, 30);
}

/** Draw the component again whenever the cluster has changed; returns the version of what is known. */
export function useLive() {
  const [version, set] = useState(live.version);
  useEffect(() => { listeners.add(set); set(live.version); return () => listeners.delete(set); }, []);
  return version;
}

/** Draw again every so many milliseconds: times pass. */
export function useTick(milliseconds) {
  const [, set] = useState(0);
  useEffect(() => { const timer = setInterval(() => set((n) => n + 1), milliseconds); return () => clearInterval(timer); }, [milliseconds]);
}

let source = null, retry = 0, wait = 1000, fresh = null, onSignedOut = () => {}, onScope = () => {};

/** Follow the cluster until `close`. `signedOut` is called when the gateway no longer knows the caller, `scope` when their rights have changed. */
export function follow(signedOut, scope) {
  [onSignedOut, onScope] = [signedOut, scope];
  connect();
}

export function close() {
  clearTimeout(retry);
  source?.close();
  source = null;
  Object.assign(live, { rows: new Map(), pools: [], quotas: [], history: new Map(), loaded: false, state: "connecting" });
  changed();
}

function connect() {
  source?.close();
  source = new EventSource(address("api/v2/live"));
  const on = (name, handle) => source.addEventListener(name, (event) => { handle(JSON.parse(event.data)); changed(); });
  on("start", (data) => {
    setServerTime(data.now);
    fresh = new Set();
    wait = 1000;
    live.state = "live";
  });
  on("jobs", ({ rows, gone, more }) => {
    for (const row of rows) {
      live.rows.set(row.key, row);
      fresh?.add(row.key);
      remember(row);
    }
    if (live.rows.size > MOST) forget();
    for (const key of gone) { live.rows.delete(key); live.history.delete(key); }
    if (fresh && !more) { // all that there is has come: what has not is gone
      for (const key of live.rows.keys()) if (!fresh.has(key)) live.rows.delete(key);
      fresh = null;
      live.loaded = true;
    }
  });
  on("pools", ({ pools }) => { live.pools = pools; });
  on("quotas", ({ quotas }) => { live.quotas = quotas; });
  on("scope", () => onScope()); // rights have changed
  on("bye", () => later()); // stopping, or signed out: the session says
  source.onerror = () => { if (source) later(); };
}

/** Connect again after a pause, unless the session is over. */
async function later() {
  source?.close();
  live.state = "lost";
  changed();
  clearTimeout(retry);
  retry = setTimeout(async () => {
    try {
      const session = await ask("GET", "api/v2/session");
      if (session.user === null && session.signIn === "token") { close(); onSignedOut(); return; }
      connect();
    } catch (problem) {
      if (problem.status === 401) { close(); onSignedOut(); return; }
      later();
    }
  }, wait + Math.random() * 500);
  wait = Math.min(wait * 2, 15000);
}

function forget() {
  const ended = [...live.rows.values()].filter((row) => row.finished).sort((a, b) => (a.finished < b.finished ? -1 : 1));
  for (const { key } of ended.slice(0, live.rows.size - MOST)) { live.rows.delete(key); live.history.delete(key); }
}

function remember(row) {
  if (row.loss == null && row.accuracy == null) return;
  let seen = live.history.get(row.key);
  if (!seen) live.history.set(row.key, (seen = []));
  const last = seen[seen.length - 1];
  if (last && last.epoch === row.epoch && last.loss === row.loss && last.accuracy === row.accuracy) return;
  seen.push({ epoch: row.epoch, loss: row.loss, accuracy: row.accuracy });
  if (seen.length > SEEN) seen.shift();
}
