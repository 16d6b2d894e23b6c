// How numbers, money and times are said. Money comes in micro-dollars, times in seconds.
const UNKNOWN = "unknown";
const NONE = "–";

const whole = new Intl.NumberFormat();
const compact = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const cents = new Intl.NumberFormat(undefined, { style: "currency", currency: "USD" });
const small = new Intl.NumberFormat(undefined, {
  style: "currency", currency: "USD", minimumFractionDigits: 2, maximumSignificantDigits: 2,
});
const large = new Intl.NumberFormat(undefined, {
  style: "currency", currency: "USD", notation: "compact", maximumFractionDigits: 1,
});
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
// The parts of 30 days are those of UTC.
const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric", timeZone: "UTC" });

const count = (number) => (number < 10_000 ? whole : compact).format(number);

function money(micro) {
  if (micro === null) return UNKNOWN;
  const dollars = micro / 1e6;
  if (dollars >= 100_000) return large.format(dollars);
  return (dollars && dollars < 0.1 ? small : cents).format(dollars);
}

// What some calls have cost together, of which some may have no known price.
const sumOfMoney = (row) => (row.unpriced && !row.cost ? UNKNOWN : money(row.cost));
const sumOfSavings = (row) => (row.saved_unpriced && !row.saved ? UNKNOWN : money(row.saved));

function span(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.9995) return `${whole.format(Math.round(seconds * 1000))} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const all = Math.round(seconds);
  if (all < 3600) return `${Math.floor(all / 60)} min ${all % 60} s`;
  if (all < 172_800) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.round(all / 86_400)} days`;
}

// A time to wait, which nobody needs to the millisecond.
const wait = (seconds) => (seconds < 60 ? `${Math.max(1, Math.ceil(seconds))} s` : span(Math.ceil(seconds)));

// The same units for all of a scale.
const scale = (seconds) => `${Number(seconds.toFixed(3))} s`;

const some = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;
const moment = (time) => new Date(time * 1000);
const partOf = (window) => (time) => (window === "30d" ? day : minute).format(moment(time));
const tokens = (row) => row.input_tokens + row.output_tokens;
