// The page: who is signed in, which view is shown, and the keys that work everywhere.
import { ask } from "./api.js";
import { person } from "./format.js";
import { language, LANGUAGES, speak, t } from "./i18n.js";
import { Create } from "./create.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { Overview } from "./overview.js";
import { Dialog, Icon } from "./parts.js";
import { html, render, useEffect, useLayoutEffect, useState } from "./lib.js";
import { go, useRoute } from "./route.js";
import { SignIn } from "./signin.js";
import { close, follow, live, useLive } from "./store.js";

const THEMES = ["auto", "light", "dark"];
const kept = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
const keep = (key, value) => { try { localStorage.setItem(key, value); } catch { /* private windows may not */ } };

function useTheme() {
  const [theme, set] = useState(THEMES.includes(kept("rfuav.theme")) ? kept("rfuav.theme") : "auto");
  useEffect(() => { document.documentElement.dataset.theme = theme; keep("rfuav.theme", theme); dispatchEvent(new Event("theme")); }, [theme]);
  return [theme, () => set(THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length])];
}

const KEYS = [["j / k", "keys.move"], ["Enter", "keys.open"], ["/", "keys.search"], ["g o", "keys.overview"], ["g j", "keys.jobs"],
  ["c", "keys.create"], ["t", "keys.theme"], ["Esc", "keys.back"], ["?", "keys.help"]];

const Help = ({ close }) => html`<${Dialog} title=${t("keys.title")} close=${close}><dl class="keys">${KEYS.map(([key, text]) => html`
  <div key=${key}><dt>${key.split(" ").map((one) => (one === "/" && key !== "/" ? " / " : html`<kbd>${one}</kbd>`))}</dt><dd>${t(text)}</dd></div>`)}</dl>
  <div class="row end"><button type="button" class="plain" onClick=${close}>${t("do.close")}</button></div><//>`;

let before = ""; // the key before, for g o and g j
function onKey(event, { setHelp, nextTheme, mayCreate }) {
  const typing = event.target.closest?.("input, textarea, select");
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (typing) event.target.blur(); else if (location.hash.split("/").length > 2) go("#/jobs");
    return;
  }
  if (typing || event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
  const did = { "g o": () => go("#/"), "g j": () => go("#/jobs") }[`${before} ${event.key}`] ?? {
    "?": () => setHelp(true),
    c: () => mayCreate && go("#/new"),
    t: nextTheme,
    "/": () => {
      const search = document.querySelector("[data-search]");
      if (search) search.focus(); else { go("#/jobs"); setTimeout(() => document.querySelector("[data-search]")?.focus(), 60); }
    },
    j: () => step(1), k: () => step(-1),
  }[event.key];
  before = event.key === "g" ? "g" : "";
  if (did) { event.preventDefault(); did(); }
}

/** The next or previous job of a list takes the focus. A virtual list scrolls by itself and hears the event. */
function step(by) {
  const list = document.querySelector("[data-virtual]");
  if (list) { list.dispatchEvent(new CustomEvent("step", { detail: by })); return; }
  const all = [...document.querySelectorAll("[data-item]")];
  const at = all.indexOf(document.activeElement);
  all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))]?.focus();
}

function Connection() {
  useLive();
  if (live.state !== "lost") return null;
  return html`<p class="lost" role="status">${t("live.lost")}</p>`;
}

const VIEWS = { "": ["overview", Overview], jobs: ["jobs", Jobs], new: ["create", Create] };

function Shell({ session, leave }) {
  const place = useRoute();
  const [theme, nextTheme] = useTheme();
  const [help, setHelp] = useState(false);
  const [, setLanguage] = useState(language);
  const mayCreate = session.namespaces.some((one) => one.create);
  useLayoutEffect(() => {
    const handle = (event) => onKey(event, { setHelp, nextTheme, mayCreate });
    addEventListener("keydown", handle);
    return () => removeEventListener("keydown", handle);
  }, [theme, mayCreate]);
  const say = async () => { const next = language === "en" ? "zh" : "en"; await speak(next); keep("rfuav.language", next); setLanguage(next); };
  const [first] = place.path;
  const isJob = first === "jobs" && place.path.length === 4;
  const [name, View] = isJob ? ["job", Job] : VIEWS[first] ?? VIEWS[""];
  const key = isJob ? place.path.slice(1).join("/") : name;
  useEffect(() => {
    document.title = `${isJob ? place.path[3] : t(`nav.${name}`)} · RFUAV`;
    document.querySelector("main")?.scrollTo(0, 0);
  }, [key, language]);
  const here = (which) => (which === (isJob ? "jobs" : name) ? "page" : undefined);
  return html`<a class="skip" href="#main" onClick=${(event) => { event.preventDefault(); document.querySelector("main").focus(); }}>${t("nav.skip")}</a>
  <header class="side">
    <a class="brand" href="#/"><img src="page/icon.svg" alt="" width="22" height="22" /><span class="text">RFUAV</span></a>
    <nav aria-label=${t("nav.main")}>
      <a href="#/" aria-current=${here("overview")}><${Icon} name="overview" /><span class="text">${t("nav.overview")}</span></a>
      <a href="#/jobs" aria-current=${here("jobs")}><${Icon} name="jobs" /><span class="text">${t("nav.jobs")}</span></a>
      ${mayCreate && html`<a href="#/new" aria-current=${here("create")}><${Icon} name="plus" /><span class="text">${t("nav.create")}</span></a>`}
    </nav>
    <div class="tools">
      <button type="button" class="quiet" onClick=${nextTheme} title=${t("do.theme")} aria-label=${`${t("do.theme")}: ${t(`theme.${theme}`)}`}><${Icon} name=${theme} /><span class="text">${t(`theme.${theme}`)}</span></button>
      <button type="button" class="quiet" onClick=${say} title=${t("do.language")} aria-label=${LANGUAGES[language === "en" ? "zh" : "en"]} lang=${language === "en" ? "zh-Hans" : "en"}><${Icon} name="language" /><span class="text">${LANGUAGES[language === "en" ? "zh" : "en"]}</span></button>
      <button type="button" class="quiet keyboard" onClick=${() => setHelp(true)} title=${t("keys.title")} aria-label=${t("keys.title")}><${Icon} name="keys" /><span class="text">${t("keys.short")}</span></button>
      ${session.signIn === "token" && html`<button type="button" class="quiet" onClick=${leave} title=${t("do.signOut")} aria-label=${t("do.signOut")}><${Icon} name="out" /><span class="text">${t("do.signOut")}</span></button>`}
      <p class="who" title=${`${session.user ?? ""} ${session.version}`}>${(person(session.user) || t("session.nobody"))}</p>
    </div>
  </header>
  <main id="main" tabindex="-1">
    ${session.compat && html`<p class="banner" role="note">${t("session.compat", { namespace: session.namespace })}</p>`}
    <${Connection} />
    <${View} key=${key + language} session=${session} path=${place.path} query=${place.query} />
  </main>
  ${help && html`<${Help} close=${() => setHelp(false)} />`}`;
}

function App() {
  const [session, set] = useState(null);
  const [error, setError] = useState("");
  const load = async () => {
    try {
      const found = await ask("GET", "api/v2/session");
      setError("");
      set(found);
    } catch (problem) {
      if (problem.status === 401) { set({ user: null, signIn: "token" }); return; }
      setError(problem.message || t("error.unreachable"));
      setTimeout(load, 3000);
    }
  };
  useEffect(() => { load(); }, []);
  const signedOut = session !== null && session.user === null && session.signIn === "token";
  useEffect(() => { if (session && !signedOut) follow(() => set({ ...session, user: null, signIn: "token" }), load); }, [session === null, signedOut]);
  const leave = async () => { await ask("DELETE", `api/v2/session?path=${encodeURIComponent(new URL(".", document.baseURI).pathname)}`).catch(() => {}); close(); set({ ...session, user: null }); };
  if (session === null) return html`<main class="center"><p role="status">${error ? `${error} ${t("live.retry")}` : t("live.loading")}</p></main>`;
  return signedOut ? html`<${SignIn} done=${load} />` : html`<${Shell} session=${session} leave=${leave} />`;
}

document.documentElement.dataset.theme = kept("rfuav.theme") ?? "auto";
await speak(new URLSearchParams(location.search).get("lang") ?? kept("rfuav.language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
render(html`<${App} />`, document.getElementById("app"));
