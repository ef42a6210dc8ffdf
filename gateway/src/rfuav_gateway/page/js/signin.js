// Sign in with a token, where no proxy does it.
import { ask } from "./api.js";
import { t } from "./i18n.js";
import { html, useState } from "./lib.js";
import { Command } from "./parts.js";

export function SignIn({ done }) {
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);
  const submit = async (event) => {
    event.preventDefault();
    const token = event.target.token.value.trim();
    if (!token) { setError(t("signIn.empty")); return; }
    setBusy(true);
    try {
      await ask("POST", "api/v2/session", { body: { token, path: new URL(".", document.baseURI).pathname } });
      await done();
    } catch (problem) {
      setError(problem.status === 401 ? t("signIn.refused") : problem.message || t("error.unreachable"));
    }
    setBusy(false);
  };
  return html`<main class="center" id="main"><form class="card signin" onSubmit=${submit} novalidate>
    <img src="page/icon.svg" alt="" width="40" height="40" />
    <h1>${t("signIn.title")}</h1>
    <p class="muted">${t("signIn.text")}</p>
    <label for="token">${t("signIn.token")}</label>
    <input id="token" name="token" type="password" autocomplete="current-password" spellcheck="false" autofocus aria-invalid=${!!error} aria-describedby="token-error" />
    <p id="token-error" class="error" role="alert">${error}</p>
    <button class="main" disabled=${busy}>${t("signIn.do")}</button>
    <p class="muted small">${t("signIn.how")}</p>
    <${Command} text="kubectl create token NAME --namespace NAMESPACE" />
  </form></main>`;
}
