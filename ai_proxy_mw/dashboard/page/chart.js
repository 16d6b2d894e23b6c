// Charts over time: bars on top of each other, and lines. Each can be read moment by moment with
// the pointer or the arrow keys, and as a table.
const HEIGHT = 176;
const EDGE = { top: 10, right: 8, bottom: 24 };

// The ends of the grid: a few round numbers from 0 to above the most.
function grid(most) {
  if (!most) return [0];
  const step = nice(most / 3);
  const ticks = [];
  for (let tick = 0; tick < most + step * 0.999; tick += step) ticks.push(tick);
  return ticks;
}

function nice(rough) {
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999) * power;
}

class Chart {
  // series: {name, kind: "bar" | "line", tone, value: (row) => number | null}
  constructor({ title, series, format, note, axis = format, whole = false }) {
    Object.assign(this, { title, series, format, axis, whole });
    this.points = [];
    this.at = null;
    this.note = el("span", { class: "quiet" });
    this.say = note;
    this.plot = el("div", { class: "plot", role: "slider", tabindex: "0", "aria-label": `${title} over time` });
    this.tip = el("div", { class: "tip", hidden: true });
    this.table = el("table", { class: "small" });
    this.details = el("details", {},
      el("summary", { text: "As a table" }),
      el("div", { class: "scroll short", tabindex: "0", role: "region", "aria-label": `${title}: table` }, this.table));
    const legend = el("ul", { class: "legend" },
      ...series.map((each) => el("li", {}, el("span", { class: `swatch ${each.tone}` }), each.name)));
    this.node = el("section", { class: "card chart", "aria-label": title },
      el("div", { class: "head" }, el("h3", { text: title }), this.note, legend),
      el("div", { class: "stage" }, this.plot, this.tip), this.details);
    this.listen();
  }

  listen() {
    new ResizeObserver(() => this.draw()).observe(this.plot);
    this.plot.addEventListener("pointermove", (event) => this.point(event));
    this.plot.addEventListener("pointerdown", (event) => this.point(event));
    this.plot.addEventListener("pointerleave", () => this.look(null));
    this.plot.addEventListener("focus", () => this.look(this.at ?? this.points.length - 1));
    this.plot.addEventListener("blur", () => this.look(null));
    this.plot.addEventListener("keydown", (event) => this.key(event));
    this.details.addEventListener("toggle", () => this.tabulate());
  }

  show(report) {
    this.points = report.series;
    this.when = partOf(report.window);
    this.note.textContent = this.say(report.total);
    this.plot.setAttribute("aria-valuemin", 0);
    this.plot.setAttribute("aria-valuemax", Math.max(0, this.points.length - 1));
    this.draw();
    this.tabulate();
    this.look(this.at);
  }

  draw() {
    const width = this.plot.clientWidth;
    if (!width) return;
    const bars = this.series.filter((each) => each.kind === "bar");
    const lines = this.series.filter((each) => each.kind === "line");
    const most = Math.max(0, ...this.points.map((row) => bars.reduce((sum, each) => sum + (each.value(row) ?? 0), 0)),
      ...lines.flatMap((each) => this.points.map((row) => each.value(row) ?? 0)));
    let ticks = grid(most);
    if (this.whole) ticks = ticks.filter(Number.isInteger);
    const top = ticks.at(-1) || 1;
    const labels = ticks.map((tick) => this.axis(tick));
    const left = 10 + Math.max(...labels.map((label) => label.length)) * 6.4;
    const step = (width - left - EDGE.right) / Math.max(1, this.points.length);
    const floor = HEIGHT - EDGE.bottom;
    this.x = (index) => left + (index + 0.5) * step;
    this.step = step;
    this.left = left;
    const y = (value) => floor - (value / top) * (floor - EDGE.top);
    const nodes = ticks.flatMap((tick, index) => [
      svg("line", { class: index ? "grid" : "axis", x1: left, x2: width - EDGE.right, y1: y(tick), y2: y(tick) }),
      svg("text", { class: "label", x: left - 8, y: y(tick) + 4, "text-anchor": "end", text: labels[index] }),
    ]);
    this.band = svg("rect", { class: "band", y: EDGE.top, width: step, height: floor - EDGE.top, visibility: "hidden" });
    nodes.push(this.band, ...this.times(width));
    if (most) {
      nodes.push(...this.bars(bars, y, step), ...lines.flatMap((each) => this.line(each, y, floor)));
    } else {
      nodes.push(svg("text", { class: "nothing", x: (left + width) / 2, y: HEIGHT / 2 - 4, "text-anchor": "middle", text: "No calls in this time" }));
    }
    this.plot.replaceChildren(svg("svg", { width, height: HEIGHT, role: "img", "aria-label": this.summary() }, ...nodes));
  }

  times(width) {
    const rough = this.points.length / Math.max(2, Math.floor(width / 84));
    const every = [1, 2, 3, 5, 6, 10, 15, 30].find((each) => each >= rough) ?? 30;
    const length = this.points.length > 1 ? this.points[1].time - this.points[0].time : 1;
    const nodes = [];
    for (let index = 0; index < this.points.length; index += 1) {
      if (Math.round(this.points[index].time / length) % every) continue;
      const x = this.x(index);
      if (x > width - 20 || x < this.left + 8) continue;
      nodes.push(svg("text", { class: "label", x, y: HEIGHT - 6, "text-anchor": "middle", text: this.when(this.points[index].time) }));
    }
    return nodes;
  }

  bars(series, y, step) {
    const wide = Math.max(1, Math.min(22, step * 0.72));
    return this.points.flatMap((row, index) => {
      let under = 0;
      return series.map((each) => {
        const value = each.value(row) ?? 0;
        const from = y(under);
        under += value;
        if (!value) return null;
        const high = Math.max(1.5, from - y(under));
        return svg("rect", { class: `fill ${each.tone}`, x: this.x(index) - wide / 2, y: from - high, width: wide, height: high, rx: Math.min(2.5, wide / 4) });
      }).filter((node) => node !== null);
    });
  }

  // A line with gaps where there were no calls; what stands alone is a dot.
  line(each, y, floor) {
    const runs = [[]];
    this.points.forEach((row, index) => {
      const value = each.value(row);
      if (value === null || value === undefined) runs.push([]);
      else runs.at(-1).push([this.x(index), y(value)]);
    });
    return runs.filter((run) => run.length).flatMap((run) => {
      if (run.length === 1) return [svg("circle", { class: `fill ${each.tone}`, cx: run[0][0], cy: run[0][1], r: 2.5 })];
      const path = run.map(([x, at]) => `${x.toFixed(1)} ${at.toFixed(1)}`).join("L");
      const nodes = [svg("path", { class: `stroke ${each.tone}`, d: `M${path}` })];
      if (each.area) {
        nodes.unshift(svg("path", { class: `area ${each.tone}`, d: `M${run[0][0]} ${floor}L${path}L${run.at(-1)[0]} ${floor}Z` }));
      }
      return nodes;
    });
  }

  summary() {
    return `${this.title}: ${this.note.textContent || "no calls"}. The arrow keys go through the moments; a table follows.`;
  }

  words(row) {
    return this.series.map((each) => `${each.name} ${this.told(each, row)}`).join(", ");
  }

  told(each, row) {
    const value = each.value(row);
    return value === null || value === undefined ? NONE : (each.format ?? this.format)(value, row);
  }

  point(event) {
    const x = event.clientX - this.plot.getBoundingClientRect().left;
    const index = Math.floor((x - this.left) / this.step);
    this.look(index >= 0 && index < this.points.length ? index : null);
  }

  key(event) {
    const last = this.points.length - 1;
    const at = this.at ?? last;
    const to = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, Home: 0, End: last, Escape: null }[event.key];
    if (to === undefined || last < 0) return;
    event.preventDefault();
    this.look(to === null ? null : Math.max(0, Math.min(last, to)));
  }

  look(index) {
    this.at = index;
    const row = index === null ? undefined : this.points[index];
    this.tip.hidden = !row;
    this.band?.setAttribute("visibility", row ? "visible" : "hidden");
    const near = row ?? this.points.at(-1);
    this.plot.setAttribute("aria-valuenow", row ? index : Math.max(0, this.points.length - 1));
    this.plot.setAttribute("aria-valuetext", near ? `${this.when(near.time)}: ${this.words(near)}` : "no calls");
    if (!row || !this.x) return;
    this.band.setAttribute("x", this.x(index) - this.step / 2);
    this.tip.replaceChildren(el("b", { text: this.when(row.time) }),
      ...this.series.map((each) => el("div", {}, el("span", { class: `swatch ${each.tone}` }), `${each.name} `, el("b", { text: this.told(each, row) }))));
    const room = this.plot.clientWidth - this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(room, this.x(index) - this.tip.offsetWidth / 2))}px`;
  }

  tabulate() {
    if (!this.details.open) return;
    const head = el("tr", {}, el("th", { scope: "col", text: "Time" }), ...this.series.map((each) => el("th", { scope: "col", class: "number", text: each.name })));
    const rows = [...this.points].reverse().map((row) => el("tr", {}, el("th", { scope: "row", text: this.when(row.time) }),
      ...this.series.map((each) => el("td", { class: "number", text: this.told(each, row) }))));
    this.table.replaceChildren(el("caption", { class: "unseen", text: `${this.title} over time` }), el("thead", {}, head), el("tbody", {}, ...rows));
  }
}

// A small line of how something went, for those who see it; the number beside it tells the rest.
function spark(values, tone) {
  const most = Math.max(...values, 0);
  if (!most || values.length < 2) return null;
  const path = values.map((value, index) => `${((index / (values.length - 1)) * 100).toFixed(2)} ${(23 - (value / most) * 21).toFixed(2)}`).join("L");
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { class: `area ${tone}`, d: `M0 24L${path}L100 24Z` }),
    svg("path", { class: `stroke ${tone}`, d: `M${path}`, "vector-effect": "non-scaling-stroke" }));
}
