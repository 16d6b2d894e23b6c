/**
 * A client for OpenAI-compatible chat endpoints, for browsers and Node: no build step, no
 * dependency.
 *
 *     const client = new ChatClient({ baseUrls: ["/v1"] });
 *     for await (const chunk of client.stream({ model, messages, signal })) {
 *       show(chunk.choices[0]?.delta?.content ?? "");
 *     }
 *
 * Whatever goes wrong is a ProxyError, except that an aborted signal throws its own reason.
 */

const MAX_EVENT = 1024 * 1024; // characters
const MAX_ANSWER = 32 * 1024 * 1024;
const MAX_REFUSAL = 64 * 1024;

/** Answers after which another base URL may do better. */
const UNAVAILABLE = new Set([502, 503, 504]);

/**
 * `status` is the HTTP status, 0 when no answer came. `type`, `code` and `param` are those of the
 * server's error object. The codes of the client itself, with the type "client_error", are
 * "unreachable", "timeout", "broken_off" (in mid-answer) and "bad_response". `retryAfter` is in
 * seconds.
 */
export class ProxyError extends Error {
  constructor(
    message,
    {
      status = 0,
      type = "client_error",
      code = null,
      param = null,
      requestId = null,
      retryAfter = null,
      cause = undefined,
    } = {},
  ) {
    super(message, { cause });
    this.name = "ProxyError";
    this.status = status;
    this.type = type;
    this.code = code;
    this.param = param;
    this.requestId = requestId;
    this.retryAfter = retryAfter;
  }
}

/**
 * Server-sent events (WHATWG HTML, section 9.2.6), bytes in, events out, however they are cut.
 *
 * An event without its blank line is never given out. One longer than `maxEvent` characters is a
 * RangeError, so that a server cannot fill the memory.
 */
export class EventParser {
  #decoder = new TextDecoder(); // drops a byte order mark, and keeps half a character for later
  #maxEvent;
  #afterReturn = false;
  #line = "";
  #name = "";
  #data = [];
  #size = 0;

  constructor({ maxEvent = MAX_EVENT } = {}) {
    this.#maxEvent = maxEvent;
  }

  /** The events that `bytes` completes, as `{ name, data }`. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (this.#afterReturn && text !== "") {
      // A line feed that belongs to the carriage return before it ends no second line.
      if (text[0] === "\n") text = text.slice(1);
      this.#afterReturn = false;
    }
    const events = [];
    let start = 0;
    for (const found of text.matchAll(/\r\n|\r|\n/g)) {
      this.#extend(text.slice(start, found.index));
      this.#endLine(events);
      start = found.index + found[0].length;
    }
    this.#extend(text.slice(start));
    if (text.endsWith("\r")) this.#afterReturn = true;
    return events;
  }

  #extend(text) {
    this.#size += text.length;
    if (this.#size > this.#maxEvent) {
      throw new RangeError(`An event is longer than ${this.#maxEvent} characters.`);
    }
    this.#line += text;
  }

  #endLine(events) {
    const line = this.#line;
    this.#line = "";
    if (line === "") {
      this.#endEvent(events);
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") {
      this.#data.push(value);
    } else {
      // What is not kept does not count: a comment every few seconds may go on for hours.
      this.#size -= line.length;
      if (field === "event") this.#name = value;
    }
  }

  #endEvent(events) {
    if (this.#data.length > 0) {
      events.push({ name: this.#name || "message", data: this.#data.join("\n") });
    }
    this.#name = "";
    this.#data = [];
    this.#size = 0;
  }
}

/**
 * `baseUrls` are tried in their order: the next one when a server cannot be reached or answers
 * 502, 503 or 504, never once an answer has begun, and never after a timeout, because what was
 * asked may be on its way and would be paid for twice. `timeout` is in milliseconds: how long to
 * wait for the head of the answer, and then for each further piece of it.
 */
export class ChatClient {
  #baseUrls;
  #timeout;
  #headers;
  #fetch;

  constructor({
    baseUrls = ["/v1"],
    timeout = 60_000,
    headers = {},
    fetch = globalThis.fetch,
  } = {}) {
    if (!Array.isArray(baseUrls) || baseUrls.length === 0) {
      throw new TypeError("baseUrls: give at least one");
    }
    if (!(timeout > 0)) {
      throw new TypeError("timeout: give milliseconds above 0");
    }
    this.#baseUrls = baseUrls.map((url) => String(url).replace(/\/+$/, ""));
    this.#timeout = timeout;
    this.#headers = headers;
    this.#fetch = (url, init) => fetch(url, init); // browsers refuse it as a method of ours
  }

  /** Each chunk of a streamed chat completion as it comes. Leaving the loop ends the request. */
  async *stream({ signal, ...call }) {
    const exchange = await this.#open("/chat/completions", { ...call, stream: true }, signal);
    try {
      yield* exchange.chunks();
    } finally {
      exchange.close();
    }
  }

  /** A whole chat completion. */
  async complete({ signal, ...call }) {
    return this.#json("/chat/completions", { ...call, stream: false }, signal);
  }

  /** The ids of the models that the server offers. */
  async models({ signal } = {}) {
    const list = await this.#json("/models", null, signal);
    return (list?.data ?? []).map((model) => model.id);
  }

  async #json(path, call, signal) {
    const exchange = await this.#open(path, call, signal);
    try {
      return await exchange.json();
    } finally {
      exchange.close();
    }
  }

  /** Sends to one base URL after the other, until one takes it. */
  async #open(path, call, signal) {
    let failure;
    for (const baseUrl of this.#baseUrls) {
      signal?.throwIfAborted();
      const exchange = new Exchange(this.#timeout, signal);
      try {
        await exchange.send(this.#fetch, baseUrl + path, this.#request(call));
        return exchange;
      } catch (error) {
        exchange.close();
        if (!isUnavailable(error)) throw error;
        failure = error;
      }
    }
    throw failure;
  }

  #request(call) {
    if (call === null) return { method: "GET", headers: { ...this.#headers } };
    return {
      method: "POST",
      headers: { "content-type": "application/json", ...this.#headers },
      body: JSON.stringify(call),
    };
  }
}

function isUnavailable(error) {
  if (!(error instanceof ProxyError)) return false;
  return UNAVAILABLE.has(error.status) || (error.status === 0 && error.code === "unreachable");
}

/** One request and its answer, under a timeout and the caller's signal. */
class Exchange {
  #controller = new AbortController();
  #timeout;
  #signal;
  #leave;
  #response = null;

  constructor(timeout, signal) {
    this.#timeout = timeout;
    this.#signal = signal;
    this.#leave = () => this.#controller.abort(signal.reason);
    signal?.addEventListener("abort", this.#leave);
  }

  /** Lets go of the connection, wherever the exchange is. */
  close() {
    this.#signal?.removeEventListener("abort", this.#leave);
    this.#controller.abort();
  }

  async send(fetch, url, request) {
    const { signal } = this.#controller;
    this.#response = await this.#patiently(
      () => fetch(url, { ...request, signal }),
      "The server could not be reached.",
      "unreachable",
    );
    if (!this.#response.ok) throw await this.#refusal();
  }

  async json() {
    const text = await this.#text(MAX_ANSWER);
    return this.#decoded(() => JSON.parse(text));
  }

  async *chunks() {
    const type = this.#response.headers.get("content-type") ?? "";
    if (!type.startsWith("text/event-stream")) {
      throw this.#failure("The server did not answer with a stream.", "bad_response");
    }
    const parser = new EventParser();
    let finished = false;
    for await (const bytes of this.#pieces()) {
      for (const event of this.#decoded(() => parser.push(bytes))) {
        if (event.data === "[DONE]") return;
        if (event.name === "error") throw this.#told(event.data);
        const chunk = this.#decoded(() => JSON.parse(event.data));
        if (chunk?.error) throw this.#told(event.data);
        finished ||= Boolean(chunk?.choices?.some((choice) => choice.finish_reason));
        yield chunk;
      }
    }
    // Not every server says [DONE], but each says why it has finished.
    if (!finished) throw this.#failure("The answer was broken off.", "broken_off");
  }

  async *#pieces() {
    const reader = this.#response.body?.getReader();
    while (reader) {
      const { done, value } = await this.#patiently(
        () => reader.read(),
        "The answer was broken off.",
        "broken_off",
      );
      if (done) return;
      yield value;
    }
  }

  async #text(limit) {
    const decoder = new TextDecoder();
    let text = "";
    for await (const bytes of this.#pieces()) {
      text += decoder.decode(bytes, { stream: true });
      if (text.length > limit) throw this.#failure("The answer is too long.", "bad_response");
    }
    return text + decoder.decode();
  }

  /** Waits for one step. The time that the reader takes between two of them is not counted. */
  async #patiently(step, message, code) {
    const timer = setTimeout(() => {
      this.#controller.abort(this.#failure("The server did not answer in time.", "timeout"));
    }, this.#timeout);
    try {
      return await step();
    } catch (cause) {
      const { signal } = this.#controller;
      throw signal.aborted ? signal.reason : this.#failure(message, code, cause);
    } finally {
      clearTimeout(timer);
    }
  }

  #decoded(decode) {
    try {
      return decode();
    } catch (cause) {
      throw this.#failure("The server gave an answer that cannot be read.", "bad_response", cause);
    }
  }

  /** The error that an answer with an error status is; its body may be anything, or never come. */
  async #refusal() {
    try {
      return this.#told(await this.#text(MAX_REFUSAL));
    } catch {
      this.#signal?.throwIfAborted();
      return this.#told("");
    }
  }

  /** The error that an error object from the server is. */
  #told(text) {
    let told;
    try {
      told = JSON.parse(text)?.error;
    } catch {
      told = null;
    }
    const { message, type, code, param } = told && typeof told === "object" ? told : {};
    const place = this.#place();
    const known = typeof message === "string" && message !== "";
    return new ProxyError(known ? message : `The server answered with status ${place.status}.`, {
      type: type ?? "server_error",
      code: code ?? null,
      param: param ?? null,
      ...place,
    });
  }

  /** An error that the client itself found. */
  #failure(message, code, cause) {
    return new ProxyError(message, { code, cause, ...this.#place() });
  }

  #place() {
    const headers = this.#response?.headers;
    return {
      status: this.#response?.status ?? 0,
      requestId: headers?.get("x-request-id") ?? null,
      retryAfter: seconds(headers?.get("retry-after") ?? ""),
    };
  }
}

/** What `Retry-After` says, a number of seconds or a date (RFC 9110, section 10.2.3). */
function seconds(retryAfter) {
  if (/^\d+$/.test(retryAfter)) return Number(retryAfter);
  const date = retryAfter.endsWith(" GMT") ? Date.parse(retryAfter) : NaN;
  return Number.isNaN(date) ? null : Math.max(0, Math.ceil((date - Date.now()) / 1000));
}
