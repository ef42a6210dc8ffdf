// The words of the page: one dictionary for each language, loaded when it is chosen.
const LOADERS = { en: () => import("../i18n/en.js"), zh: () => import("../i18n/zh.js") };
export const LANGUAGES = { en: "English", zh: "中文" };
export let language = "en";
let words = {};

/** Load a language and make it the one of the page. */
export async function speak(wanted) {
  const chosen = LOADERS[wanted] ? wanted : "en";
  words = (await LOADERS[chosen]()).default;
  language = chosen;
  document.documentElement.lang = chosen === "zh" ? "zh-Hans" : "en";
}

/** Whether there are words under this key. */
export const has = (key) => key in words;

/** The words of a key with its values; a pair is [for one, for any other number] by the value n. */
export function t(key, values = {}) {
  let text = words[key] ?? key;
  if (Array.isArray(text)) text = text[values.n === 1 ? 0 : 1];
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return typeof value === "number" ? number(value) : (value ?? "");
  });
}

const numbers = {};
/** A number with at most so many digits after the point, grouped as the language groups it. */
export function number(value, digits = 0, least = 0) {
  const key = `${language}${digits}${least}`;
  numbers[key] ??= new Intl.NumberFormat(language, { maximumFractionDigits: digits, minimumFractionDigits: least });
  return numbers[key].format(value);
}
