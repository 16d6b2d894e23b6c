import assert from "node:assert/strict";
import { test } from "node:test";

import { ChatClient, ProxyError } from "../../examples/static/chat.js";
import { chunk, event, json, serve, startStream, unreachable } from "./server.mjs";

const CALL = { model: "m", messages: [] };

function good(t) {
  return serve(t, (request, response) => {
    startStream(response);
    response.end(event(chunk("second", "stop")));
  });
}

async function firstContent(client) {
  for await (const part of client.stream(CALL)) return part.choices[0].delta.content;
  return undefined;
}

test("falls back when the first server cannot be reached", async (t) => {
  const second = await good(t);
  const client = new ChatClient({ baseUrls: [await unreachable(t), second.url] });
  assert.equal(await firstContent(client), "second");
});

for (const status of [502, 503, 504]) {
  test(`falls back after ${status}`, async (t) => {
    const first = await serve(t, (request, response) => json(response, status, {}));
    const second = await good(t);
    const client = new ChatClient({ baseUrls: [first.url, second.url] });
    assert.equal(await firstContent(client), "second");
    assert.equal(first.requests.length, 1);
    assert.equal(second.requests[0].body, first.requests[0].body);
  });
}

for (const status of [400, 401, 404, 429, 500]) {
  test(`does not fall back after ${status}`, async (t) => {
    // Nor for a code that looks like one of the client's own.
    const error = { message: "No.", code: "unreachable" };
    const first = await serve(t, (request, response) => json(response, status, { error }));
    const second = await good(t);
    const client = new ChatClient({ baseUrls: [first.url, second.url] });
    await assert.rejects(firstContent(client), { name: "ProxyError", status });
    assert.equal(second.requests.length, 0);
  });
}

test("does not fall back once an answer has begun", async (t) => {
  const error = { message: "Gone.", type: "upstream_error", code: "unreachable" };
  const endings = [
    (response) => response.destroy(),
    (response) => response.end(`event: error\n${event({ error })}`),
    (response) => response.write(event(chunk("first")), () => response.destroy()),
  ];
  const first = await serve(t, (request, response) => {
    startStream(response);
    endings[first.requests.length - 1](response);
  });
  const second = await good(t);
  const client = new ChatClient({ baseUrls: [first.url, second.url] });
  for (const _ of endings) {
    const read = async () => {
      for await (const part of client.stream(CALL)) {
        assert.equal(part.choices[0].delta.content, "first");
      }
    };
    await assert.rejects(read, ProxyError);
  }
  assert.equal(first.requests.length, endings.length);
  assert.equal(second.requests.length, 0);
});

test("tells of the last server when none is available", async (t) => {
  const second = await serve(t, (request, response) =>
    json(response, 503, { error: { message: "Closed." } }, { "retry-after": "3" }),
  );
  const client = new ChatClient({ baseUrls: [await unreachable(t), second.url] });
  await assert.rejects(firstContent(client), { status: 503, message: "Closed.", retryAfter: 3 });
  const alone = new ChatClient({ baseUrls: [await unreachable(t)] });
  await assert.rejects(firstContent(alone), { status: 0, code: "unreachable" });
});
