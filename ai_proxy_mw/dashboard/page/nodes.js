// Builds what is shown. Text is only ever put in as text.
const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name === "text") node.textContent = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}

const el = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

const chip = (text, kind) => el("span", { class: `chip ${kind}`, text });
const empty = (text) => el("p", { class: "empty", text });

// A bar as a part of 1. Its width is set by script, since the policy allows no style in markup.
function bar(part, kind = "") {
  const inner = el("span", { class: kind });
  inner.style.width = `${Math.max(0, Math.min(1, part)) * 100}%`;
  return el("span", { class: "bar", "aria-hidden": "true" }, inner);
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch { /* kept until the page is closed, then */ }
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
