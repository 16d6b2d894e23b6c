// The parts of the page, each of which takes what it shows.
function tile(name, value, note, { series = null, tone = "", wide = false, bad = false } = {}) {
  const values = Array.isArray(value)
    ? el("dd", { class: "triple" }, ...value.map(([label, each]) => el("span", {}, el("small", { text: label }), " ", el("span", { text: each }))))
    : el("dd", { class: bad ? "bad" : null, text: value });
  return el("div", { class: `card tile${wide ? " double" : ""}` },
    el("dt", { text: name }), values, el("dd", { class: "quiet", text: note }), series && spark(series, tone));
}

function tiles({ total, series }) {
  const asked = total.hits + total.misses;
  const over = (value) => series.map((point) => value(point) ?? 0);
  byId("tiles").replaceChildren(
    tile("Requests", count(total.requests), `${some(total.refused, "refused", "refused")} · ${some(total.cancelled, "cancelled", "cancelled")}`,
      { series: over((row) => row.requests), tone: "t-requests" }),
    tile("Error rate", percent.format(total.error_rate), some(total.errors, "error", "errors"),
      { series: over((row) => row.errors), tone: "t-errors", bad: total.error_rate >= 0.05 }),
    tile("Latency", [["p50", span(total.p50)], ["p95", span(total.p95)], ["p99", span(total.p99)]], total.mean === null ? "no complete calls" : `mean ${span(total.mean)}, of complete calls`,
      { series: over((row) => row.mean), tone: "t-latency", wide: true }),
    tile("Cost", sumOfMoney(total), total.unpriced ? `and ${some(total.unpriced, "call", "calls")} at an unknown price` : "all prices known",
      { series: over((row) => row.cost), tone: "t-cost" }),
    tile("Saved by the cache", sumOfSavings(total), some(total.saved_tokens, "token", "tokens") + (total.saved_unpriced ? `, ${some(total.saved_unpriced, "hit", "hits")} at an unknown price` : ""),
      { series: over((row) => row.saved), tone: "t-saved" }),
    tile("Cache hits", asked ? percent.format(total.hit_rate) : NONE, asked ? `${count(total.hits)} of ${count(asked)}` : "the cache was not asked",
      { series: over((row) => row.hit_rate), tone: "t-saved" }),
    tile("Tokens", count(tokens(total)), `${count(total.input_tokens)} in · ${count(total.output_tokens)} out`,
      { series: over(tokens), tone: "t-requests" }),
  );
}

const charts = [
  new Chart({
    title: "Requests", format: count, whole: true,
    series: [
      { name: "no error", kind: "bar", tone: "t-requests", value: (row) => row.requests - row.errors },
      { name: "errors", kind: "bar", tone: "t-errors", value: (row) => row.errors },
    ],
    note: (total) => `${some(total.requests, "call", "calls")}, ${some(total.errors, "error", "errors")}`,
  }),
  new Chart({
    title: "Latency", format: span, axis: scale,
    series: [
      { name: "p95", kind: "line", tone: "t-p95", value: (row) => row.p95 },
      { name: "mean", kind: "line", area: true, tone: "t-latency", value: (row) => row.mean },
    ],
    note: (total) => `mean ${span(total.mean)}`,
  }),
  new Chart({
    title: "Cost", format: money,
    series: [
      { name: "spent", kind: "bar", tone: "t-cost", value: (row) => row.cost, format: (_, row) => sumOfMoney(row) },
      { name: "saved", kind: "bar", tone: "t-saved", value: (row) => row.saved, format: (_, row) => sumOfSavings(row) },
    ],
    note: (total) => `${sumOfMoney(total)} spent, ${sumOfSavings(total)} saved`,
  }),
];

const DIMENSIONS = { model: "Models", subject: "Subjects", endpoint: "Endpoints", upstream: "Upstreams" };

// A table of who or what most calls are of, with a choice of what that is.
class Top {
  constructor(id, by, changed) {
    this.by = by;
    const title = `h-${id}`;
    this.title = el("h2", { id: title });
    this.note = el("span", { class: "quiet" });
    this.select = el("select", { "aria-label": "Show the top" },
      ...Object.entries(DIMENSIONS).map(([value, text]) => el("option", { value, text, selected: value === by })));
    this.sheet = el("a", { class: "button", download: true }, "CSV", el("span", { class: "unseen", text: " of all of them" }));
    this.body = el("div", { class: "scroll" });
    const node = byId(id);
    node.setAttribute("aria-labelledby", title);
    node.append(el("div", { class: "head" }, this.title, this.note, this.select, this.sheet), this.body);
    this.select.addEventListener("change", () => {
      this.by = this.select.value;
      changed();
    });
    this.name();
  }

  name() {
    this.title.textContent = `Top ${DIMENSIONS[this.by].toLowerCase()}`;
  }

  show(report) {
    this.name();
    this.sheet.href = at("stats.csv", { window: report.window, by: report.by });
    const more = report.rows.length + report.rows_left_out - 8;
    const others = report.other ? `${some(report.other.requests, "call", "calls")} of yet others` : null;
    this.note.textContent = [more > 0 ? `and ${count(more)} more` : null, others].filter(Boolean).join(", ");
    this.body.replaceChildren(report.rows.length ? topTable(report, this.title.textContent) : empty("No calls in this time."));
  }
}

class Tail {
  constructor() {
    this.paused = false;
    this.seen = new Set();
    this.newest = null;
    byId("pause").addEventListener("click", () => this.turn());
  }

  turn() {
    this.paused = !this.paused;
    const button = byId("pause");
    button.setAttribute("aria-pressed", String(this.paused));
    button.textContent = this.paused ? "Go on" : "Pause";
    if (!this.paused && this.waiting) this.show(this.waiting);
    this.tell(0);
  }

  tell(fresh) {
    byId("tail-state").textContent = this.paused ? `paused${fresh ? `, ${count(fresh)} new` : ""}` : "";
  }

  show(calls) {
    const keys = calls.map((call) => `${call.request_id} ${call.time} ${call.background}`);
    if (this.paused) {
      this.waiting = calls;
      this.tell(keys.filter((key) => !this.seen.has(key)).length);
      return;
    }
    this.waiting = null;
    const now = keys.join("\n");
    if (now === this.newest) return; // so that what somebody has selected stays so
    const first = this.newest === null;
    this.newest = now;
    const node = calls.length ? tailTable(calls) : empty("No calls yet. They appear here as they end.");
    if (!first && calls.length) {
      node.querySelectorAll("tbody tr").forEach((row, index) => {
        if (!this.seen.has(keys[index])) row.classList.add("fresh");
      });
    }
    this.seen = new Set(keys);
    byId("tail").replaceChildren(node);
  }
}

function upstreams(list) {
  byId("upstreams").replaceChildren(list.length ? upstreamTable(list) : empty("No upstream has been asked."));
}

function limits(list) {
  byId("limits").replaceChildren(list.length ? limitTable(list) : empty("Nobody is close to a limit."));
}
