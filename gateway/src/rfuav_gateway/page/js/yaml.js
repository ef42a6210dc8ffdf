// JSON as YAML that kubectl reads back to the same: block style, strings quoted where they would be read as something else.
const PLAIN = /^[A-Za-z0-9_./*][A-Za-z0-9_./*:@+ -]*$/;
const OTHER = /^(?:[-+.\d][\d_.,eE+:-]*|0[xob][\da-f]+|true|false|yes|no|on|off|null|y|n|~|\..*inf|\.nan)$/i;

function scalar(value) {
  if (typeof value !== "string") return JSON.stringify(value);
  const plain = PLAIN.test(value) && !OTHER.test(value) && !/[:*] |: |:$| #| $|^\*/.test(value);
  return plain ? value : JSON.stringify(value);
}

const isEmpty = (value) => (Array.isArray(value) ? value.length === 0 : Object.keys(value).length === 0);

export function yaml(value, indent = "") {
  if (value === null || typeof value !== "object") return `${indent}${scalar(value)}\n`;
  if (Array.isArray(value)) {
    return value.map((item) => (item !== null && typeof item === "object" && !isEmpty(item)
      ? `${indent}- ${yaml(item, `${indent}  `).slice(indent.length + 2)}`
      : `${indent}- ${inline(item)}\n`)).join("");
  }
  return Object.entries(value).filter(([, item]) => item !== undefined).map(([key, item]) => (item !== null && typeof item === "object" && !isEmpty(item)
    ? `${indent}${scalar(key)}:\n${yaml(item, `${indent}  `)}`
    : `${indent}${scalar(key)}: ${inline(item)}\n`)).join("");
}

const inline = (value) => (value !== null && typeof value === "object" ? (Array.isArray(value) ? "[]" : "{}") : scalar(value));
