// Requests to the gateway. Every address is relative, so that the page works below any path.
export const address = (path, namespace) => new URL((namespace ? `ns/${namespace}/` : "") + path, document.baseURI).href;

/** An answer from 400 on. `fields` has what is wrong by path, such as spec.dataset.train.uri. */
export class Problem extends Error {
  constructor(status, body, retryAfter) {
    const entries = Array.isArray(body?.detail) ? body.detail : [];
    super(entries.length ? entries.map((one) => one.msg).join("; ") : String(body?.detail ?? body?.title ?? status));
    this.status = status;
    this.retryAfter = retryAfter;
    this.fields = {};
    for (const { loc, msg } of entries) {
      const path = loc.filter((step) => !["body", "manifest"].includes(step)).join(".");
      this.fields[path] ??= msg;
    }
    if (!entries.length) Object.assign(this.fields, refusals(this.message));
  }
}

/** What the API server refuses, by field: it lists them in one sentence, each with its path, the kind of fault and the value. */
export function refusals(text) {
  const found = {};
  const list = text.match(/ is invalid: \[?(.*?)\]?$/s)?.[1] ?? "";
  for (const one of list.split(/, (?=(?:spec|metadata|<nil>)[\w.[\]]*: )/)) {
    const [, path, words] = one.match(/^((?:spec|metadata)[\w.]*)[^:]*: (?:[A-Z][a-z]+(?: [a-z]+)*: )?(?:(?:"(?:[^"\\]|\\.)*"|null|true|false|-?[\d.]+): )?(.*)$/s) ?? [];
    if (path) found[path] ??= words.replace(/^[\w.]+ in body /, "");
  }
  return found;
}

/** Ask, and return the answer's content. */
export async function ask(method, path, { namespace, body, signal } = {}) {
  let answer;
  try {
    answer = await fetch(address(path, namespace), {
      method, signal, credentials: "same-origin",
      headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { detail: "" });
  }
  const text = await answer.text();
  let content = null;
  try { content = text ? JSON.parse(text) : null; } catch { content = { detail: text.slice(0, 300) }; }
  if (!answer.ok) throw new Problem(answer.status, content, Number(answer.headers.get("retry-after")) || 0);
  return content;
}
