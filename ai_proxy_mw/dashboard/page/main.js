// Asks for the numbers again and again, and says so when there are none.
const EVERY = 3000;
const LONGEST = 30_000;

// The page is served with and without a slash at its end, so links are made from its path.
const root = location.pathname.replace(/\/+$/, "");
const at = (name, query = {}) => {
  const said = new URLSearchParams(query).toString();
  return `${root}/${name}${said ? `?${said}` : ""}`;
};

class Trouble extends Error {
  constructor(words, { over = false } = {}) {
    super(words);
    this.over = over; // whether asking again is in vain
  }
}

async function ask(name, query) {
  let answer;
  try {
    answer = await fetch(at(name, query), { cache: "no-store", credentials: "same-origin", redirect: "error" });
  } catch {
    throw new Trouble("The server cannot be reached. Trying again…");
  }
  if (answer.status === 401) throw new Trouble("Your session has ended. Sign in again, then load this page again.", { over: true });
  if (answer.status === 403) throw new Trouble("You may not see this page.", { over: true });
  if (answer.status === 503) throw new Trouble("The store does not answer. Trying again…");
  if (!answer.ok) throw new Trouble(`The server answered with an error (${answer.status}). Trying again…`);
  try {
    return await answer.json();
  } catch {
    throw new Trouble("The server's answer cannot be read. Trying again…");
  }
}

const page = {
  window: "1h",
  on: true,
  failures: 0,
  timer: 0,
  round: 0,
};

function trouble(words) {
  const box = byId("trouble");
  if (!box.hidden && words === box.firstElementChild.textContent) return; // told already
  box.hidden = words === null;
  box.firstElementChild.textContent = words ?? "";
}

function state(words, kind) {
  byId("pulse").className = `dot ${kind}`;
  byId("state").textContent = words;
}

function schedule() {
  clearTimeout(page.timer);
  if (!page.on || document.hidden) return;
  page.timer = setTimeout(refresh, Math.min(LONGEST, EVERY * 2 ** Math.min(page.failures, 4)));
}

async function refresh() {
  clearTimeout(page.timer);
  const round = ++page.round; // an answer to what was asked before the last choice is dropped
  const { window } = page;
  const second = tops[1].by === tops[0].by ? null : tops[1].by;
  try {
    const [told, other] = await Promise.all([
      ask("data", { window, by: tops[0].by }),
      second && ask("stats", { window, by: second }).catch((error) => {
        if (error.over) throw error;
        return null; // the first has no report then, either, which is told
      }),
    ]);
    if (round !== page.round) return;
    show(told, second ? other : told.report);
    page.failures = told.report === null ? page.failures + 1 : 0;
  } catch (error) {
    if (round !== page.round) return;
    if (!(error instanceof Trouble)) throw error;
    page.failures += 1;
    trouble(error.message);
    state("No news", "fault");
    document.body.classList.add("old");
    if (error.over) return;
  }
  schedule();
}

function show(told, other) {
  upstreams(told.upstreams);
  limits(told.limits);
  if (told.recent) tail.show(told.recent);
  if (told.report) {
    tiles(told.report);
    for (const chart of charts) chart.show(told.report);
    tops[0].show(told.report);
  }
  if (other) tops[1].show(other);
  const silent = told.report === null || told.recent === null;
  trouble(silent ? "The store of the numbers does not answer. What you see may be old." : null);
  document.body.classList.toggle("old", silent);
  state(`${page.on ? "Live" : "As of"} ${clock.format(new Date())}`, silent ? "warn" : page.on ? "ok" : "calm");
}

const THEMES = ["auto", "light", "dark"];

function theme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  byId("theme").lastElementChild.textContent = `Theme: ${name}`;
  remember("ai-theme", name);
}

byId("charts").append(...charts.map((chart) => chart.node));
byId("calls-csv").href = at("calls.csv");
const tops = [new Top("top-1", "model", refresh), new Top("top-2", "subject", refresh)];
const tail = new Tail();

theme(document.documentElement.dataset.theme ?? "auto");
byId("theme").addEventListener("click", () => {
  const now = document.documentElement.dataset.theme ?? "auto";
  theme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
});

for (const choice of byId("windows").querySelectorAll("input")) {
  choice.checked = choice.value === (remembered("ai-window") ?? "1h");
  if (choice.checked) page.window = choice.value;
  choice.addEventListener("change", () => {
    page.window = choice.value;
    remember("ai-window", choice.value);
    refresh();
  });
}

byId("refresh").addEventListener("click", () => {
  page.on = !page.on;
  byId("refresh").setAttribute("aria-pressed", String(page.on));
  if (page.on) refresh();
  else {
    schedule();
    state(`As of ${clock.format(new Date())}`, "calm");
  }
});

byId("trouble").lastElementChild.addEventListener("click", () => location.reload());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) clearTimeout(page.timer);
  else if (page.on) refresh();
});
refresh();
