// The address says what is shown: #/jobs?state=running. Filters live in it, so every view can be sent as a link.
import { useEffect, useState } from "./lib.js";

export function route() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  return { path: path.split("/").map(decodeURIComponent), query: new URLSearchParams(query ?? "") };
}

export const link = (path, query) => {
  const text = new URLSearchParams(Object.entries(query ?? {}).filter(([, value]) => value)).toString();
  return `#/${path}${text ? `?${text}` : ""}`;
};
export const jobLink = (key, query) => link(`jobs/${key.split("/").map(encodeURIComponent).join("/")}`, query);

/** Go to a place; `replace` leaves no trace in the history, for filters that change with each letter. */
export function go(target, replace = false) {
  if (replace) { history.replaceState(null, "", target); dispatchEvent(new HashChangeEvent("hashchange")); } else location.hash = target;
}

export function useRoute() {
  const [place, set] = useState(route);
  useEffect(() => {
    const update = () => set(route());
    addEventListener("hashchange", update);
    return () => removeEventListener("hashchange", update);
  }, []);
  return place;
}
