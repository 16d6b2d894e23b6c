// Tables. On a narrow screen those of `cards` put each row's cells below each other; what they are
// is then said by roles, since some readers take a table apart that is not laid out as one.
function table(caption, columns, rows, { kind = "" } = {}) {
  const head = el("tr", { role: "row" }, ...columns.map((each) =>
    el("th", { scope: "col", role: "columnheader", class: each.class, text: each.name })));
  return el("table", { class: kind, role: "table" },
    el("caption", { class: "unseen", text: caption }),
    el("thead", { role: "rowgroup" }, head),
    el("tbody", { role: "rowgroup" }, ...rows.map((row) => line(columns, row))));
}

function line(columns, row) {
  const node = el("tr", { role: "row", title: row.request_id ?? null });
  for (const each of columns) {
    const told = each.cell(row);
    const parts = Array.isArray(told) ? told : [told];
    node.append(each.heads
      ? el("th", { scope: "row", role: "rowheader", class: each.class }, ...parts)
      : el("td", { role: "cell", class: each.class }, ...parts));
  }
  return node;
}

const named = (text, none) => (text ? el("span", { class: "name", text, title: text }) : el("span", { class: "quiet", text: none }));

function topTable(report, caption) {
  const most = Math.max(1, ...report.rows.map((row) => row.requests));
  const rows = report.rows.slice(0, 8);
  return table(caption, [
    { name: "Name", heads: true, class: "wide", cell: (row) => [named(row.name, "not named"), bar(row.requests / most)] },
    { name: "Requests", class: "number", cell: (row) => count(row.requests) },
    { name: "Errors", class: "number", cell: (row) => (row.errors ? el("span", { class: "bad", text: percent.format(row.error_rate) }) : NONE) },
    { name: "p95", class: "number roomy", cell: (row) => span(row.p95) },
    { name: "Tokens", class: "number roomy", cell: (row) => count(tokens(row)) },
    { name: "Cost", class: "number", cell: (row) => priced(row) },
    { name: "Saved", class: "number roomy", cell: (row) => (row.saved || row.saved_unpriced ? el("span", { class: row.saved ? "good" : "partly", text: sumOfSavings(row) }) : NONE) },
  ], rows, { kind: "ranks" });
}

function priced(row) {
  const title = row.unpriced ? `${some(row.unpriced, "call", "calls")} at an unknown price` : null;
  return el("span", { class: row.unpriced ? "partly" : null, title, text: sumOfMoney(row) + (row.unpriced && row.cost ? " +" : "") });
}

const OUTCOMES = { complete: "ok", refused: "warn", cancelled: "calm", failed: "fault", cut: "fault", stopped: "fault" };
const CACHE = { hit: "ok", stale: "ok", collapsed: "ok", miss: "calm", bypass: "calm" };

function status(call) {
  const kind = call.status >= 500 ? "fault" : (OUTCOMES[call.outcome] ?? "calm");
  const words = call.error ?? (call.outcome === "complete" ? null : call.outcome);
  return [chip(call.status ? String(call.status) : NONE, kind), words ? el("span", { class: "why", text: words, title: words }) : ""];
}

function model(call) {
  const used = call.model_used && call.model_used !== call.model ? call.model_used : null;
  return [named(call.model, NONE), used ? el("span", { class: "quiet name", text: `→ ${used}`, title: used }) : ""];
}

function tailTable(calls) {
  return table("The calls that have ended last, the newest first", [
    { name: "Status", class: "c-status", cell: status },
    { name: "Time", class: "c-time", cell: (call) => clock.format(moment(call.time)) },
    { name: "Subject", class: "c-who", cell: (call) => named(call.subject, NONE) },
    { name: "Model", class: "c-model", heads: true, cell: model },
    { name: "Upstream", class: "c-up", cell: (call) => [named(call.upstream, NONE), call.attempts > 1 ? chip(`${count(call.attempts)} tries`, "warn") : ""] },
    { name: "Cache", class: "c-cache", cell: (call) => (call.cache ? chip(call.cache, CACHE[call.cache] ?? "calm") : NONE) },
    { name: "Tokens", class: "c-tokens number", cell: inAndOut },
    { name: "Cost", class: "c-cost number", cell: (call) => (call.cost === null ? el("span", { class: "partly", text: UNKNOWN }) : call.cost ? money(call.cost) : NONE) },
    { name: "Took", class: "c-took number", cell: (call) => span(call.total) },
  ], calls, { kind: "calls" });
}

function inAndOut(call) {
  if (!tokens(call)) return NONE;
  const guess = call.measured === false ? "≈ " : "";
  return el("span", { title: guess ? "estimated" : null, "aria-label": `${guess}${count(call.input_tokens)} in, ${count(call.output_tokens)} out`, text: `${guess}${count(call.input_tokens)} → ${count(call.output_tokens)}` });
}

const STATES = {
  closed: ["healthy", "ok"],
  half_open: ["being tried", "warn"],
  cooling: ["cooling down", "warn"],
  open: ["left alone", "fault"],
};

function upstreamTable(upstreams) {
  return table("Upstreams, as the process that answered sees them", [
    { name: "Name", heads: true, class: "wide", cell: (each) => named(each.name, NONE) },
    { name: "Circuit", cell: circuit },
    { name: "Calls", class: "number", cell: (each) => count(each.calls) },
    { name: "Failed", class: "number", cell: (each) => (each.failures ? el("span", { class: "bad", text: count(each.failures) }) : NONE) },
    { name: "Under way", class: "number roomy", cell: (each) => count(each.in_flight) },
    { name: "Opened", class: "number roomy", cell: (each) => count(each.opened) },
  ], upstreams);
}

function circuit(each) {
  const [words, kind] = STATES[each.state] ?? [each.state, "calm"];
  return chip(each.wait > 0 ? `${words}, ${wait(each.wait)}` : words, kind);
}

const UNITS = { requests: "requests", tokens: "tokens", input_tokens: "input tokens", output_tokens: "output tokens", usd: "", concurrent: "at once" };

function limitTable(limits) {
  const amount = (each, number) => (each.of === "usd" ? money(number) : count(number));
  return table("Limits that are close to exhaustion", [
    { name: "Who", heads: true, class: "wide", cell: (each) => [named(each.who, each.per === "other" ? "somebody" : "not named"), bar(1 - each.remaining / each.amount, each.remaining ? "warn" : "fault")] },
    { name: "Limit", cell: (each) => (each.of === "usd" ? `$${each.limit}` : `${each.limit} ${UNITS[each.of] ?? each.of}`) },
    { name: "Left", class: "number", cell: (each) => el("span", { class: each.remaining ? null : "bad", text: amount(each, each.remaining) }) },
    { name: "Resets in", class: "number", cell: (each) => (each.resets === null ? NONE : wait(each.resets - Date.now() / 1000)) },
  ], limits.slice(0, 12), { kind: "limits" });
}
