import assert from "node:assert/strict";
import { test } from "node:test";

import { ChatClient, ProxyError } from "../../examples/static/chat.js";
import { chunk, event, json, later, serve, startStream } from "./server.mjs";

const CALL = { model: "m", messages: [{ role: "user", content: "Hi" }] };

async function collect(stream) {
  const contents = [];
  for await (const part of stream) contents.push(part.choices[0]?.delta.content);
  return contents;
}

function refusal(expected) {
  return (error) => {
    assert.ok(error instanceof ProxyError, String(error));
    for (const [name, value] of Object.entries(expected)) assert.equal(error[name], value, name);
    return true;
  };
}

test("streams each chunk as it comes, and sends what it was given", async (t) => {
  const goOn = later();
  const server = await serve(t, async (request, response) => {
    startStream(response);
    response.write(event(chunk("Hel")));
    await goOn.promise; // the first chunk must arrive while the second is not yet written
    response.end(event(chunk("lo")) + "data: [DONE]\n\n");
  });
  const client = new ChatClient({ baseUrls: [`${server.url}//`], headers: { "x-team": "red" } });
  const stream = client.stream({ ...CALL, temperature: 0 });

  assert.equal((await stream.next()).value.choices[0].delta.content, "Hel");
  goOn.resolve();
  assert.deepEqual(await collect(stream), ["lo"]);

  const [request] = server.requests;
  assert.equal(`${request.method} ${request.url}`, "POST /v1/chat/completions");
  assert.equal(request.headers["content-type"], "application/json");
  assert.equal(request.headers["x-team"], "red");
  assert.deepEqual(JSON.parse(request.body), { ...CALL, temperature: 0, stream: true });
});

test("completes in one piece", async (t) => {
  const answer = { choices: [{ message: { role: "assistant", content: "grün" } }] };
  const server = await serve(t, (request, response) => json(response, 200, answer));
  const client = new ChatClient({ baseUrls: [server.url] });
  assert.deepEqual(await client.complete(CALL), answer);
  assert.deepEqual(JSON.parse(server.requests[0].body), { ...CALL, stream: false });
});

test("lists the models", async (t) => {
  const list = { data: [{ id: "a" }] };
  const server = await serve(t, (request, response) => json(response, 200, list));
  assert.deepEqual(await new ChatClient({ baseUrls: [server.url] }).models(), ["a"]);
  assert.equal(`${server.requests[0].method} ${server.requests[0].url}`, "GET /v1/models");
});

test("uses the fetch it is given, without a this", async () => {
  const urls = [];
  async function fetch(url) {
    assert.equal(this, undefined);
    urls.push(url);
    return Response.json({ ok: true });
  }
  assert.deepEqual(await new ChatClient({ fetch }).complete(CALL), { ok: true });
  assert.deepEqual(urls, ["/v1/chat/completions"]);
});

test("an error answer becomes a ProxyError with all it says", async (t) => {
  const error = { message: "No.", type: "t", code: "c", param: "messages[0]" };
  const server = await serve(t, (request, response) =>
    json(response, 429, { error }, { "x-request-id": "req_1", "retry-after": "7" }),
  );
  const client = new ChatClient({ baseUrls: [server.url] });
  const expected = { ...error, status: 429, requestId: "req_1", retryAfter: 7, name: "ProxyError" };
  await assert.rejects(client.complete(CALL), refusal(expected));
  await assert.rejects(collect(client.stream(CALL)), refusal(expected));
});

test("reads Retry-After as a date, and nothing where it is neither", async (t) => {
  const soon = new Date(Date.now() + 60_000).toUTCString();
  const answers = [soon, "Mon, 01 Jan 2001 00:00:00 GMT", "1.5"];
  const server = await serve(t, (request, response) =>
    json(response, 429, {}, { "retry-after": answers[server.requests.length - 1] }),
  );
  const client = new ChatClient({ baseUrls: [server.url] });
  const waits = [];
  for (const _ of answers) {
    await client.complete(CALL).catch((error) => waits.push(error.retryAfter));
  }
  assert.ok(waits[0] > 30 && waits[0] <= 60, String(waits[0]));
  assert.deepEqual(waits.slice(1), [0, null]);
});

test("an error answer of another shape still has its status", async (t) => {
  const bodies = [
    "<h1>Oops</h1>",
    '{"error": "plain"}',
    "null",
    '{"error": {"message": 3}}',
    "x".repeat(99_999),
  ];
  const server = await serve(t, (request, response) => {
    response.writeHead(500, { "x-request-id": "req_2" });
    response.end(bodies[server.requests.length - 1]);
  });
  const client = new ChatClient({ baseUrls: [server.url] });
  for (const body of bodies) {
    await assert.rejects(
      client.complete(CALL),
      refusal({
        message: "The server answered with status 500.",
        status: 500,
        type: "server_error",
        code: null,
        requestId: "req_2",
        retryAfter: null,
      }),
      body,
    );
  }
});

test("an error event ends the stream after what came before it", async (t) => {
  const error = { message: "Broken.", type: "upstream_error", code: "upstream_disconnected" };
  const events = [`event: error\n${event({ error })}`, event({ error })];
  const server = await serve(t, (request, response) => {
    startStream(response, { "x-request-id": "req_3" });
    response.end(event(chunk("a")) + events[server.requests.length - 1] + event(chunk("b")));
  });
  const client = new ChatClient({ baseUrls: [server.url] });
  for (const _ of events) {
    const stream = client.stream(CALL);
    assert.equal((await stream.next()).value.choices[0].delta.content, "a");
    await assert.rejects(stream.next(), refusal({ ...error, status: 200, requestId: "req_3" }));
  }
});

test("a stream that just ends was broken off, unless the model had finished", async (t) => {
  const usage = { choices: [], usage: { total_tokens: 2 } };
  const endings = [event(chunk("a")), event(chunk("a", "stop")) + event(usage)];
  const server = await serve(t, (request, response) => {
    startStream(response);
    response.end(endings[server.requests.length - 1]);
  });
  const client = new ChatClient({ baseUrls: [server.url] });
  await assert.rejects(collect(client.stream(CALL)), refusal({ code: "broken_off", status: 200 }));
  assert.deepEqual(await collect(client.stream(CALL)), ["a", undefined]);
});

test("a connection that breaks in mid-answer is broken off, not unreachable", async (t) => {
  const goOn = later();
  const server = await serve(t, async (request, response) => {
    startStream(response);
    response.write(event(chunk("a")));
    await goOn.promise;
    response.destroy();
  });
  const stream = new ChatClient({ baseUrls: [server.url] }).stream(CALL);
  await stream.next();
  goOn.resolve();
  await assert.rejects(stream.next(), refusal({ code: "broken_off", status: 200 }));
});

test("what cannot be read is a bad response", async (t) => {
  const answers = [
    ["text/html", "<p>Sign in</p>"],
    ["text/event-stream", "data: {\n\n"],
    ["text/event-stream", `data: ${"x".repeat(1024 * 1024)}`],
  ];
  const server = await serve(t, (request, response) => {
    const [type, body] = answers[server.requests.length - 1];
    response.writeHead(200, { "content-type": type });
    response.end(body);
  });
  const client = new ChatClient({ baseUrls: [server.url] });
  for (const [type] of answers) {
    await assert.rejects(collect(client.stream(CALL)), refusal({ code: "bad_response" }), type);
  }
});

test("a whole answer that is no JSON is a bad response", async (t) => {
  const server = await serve(t, (request, response) => response.end("<p>Sign in</p>"));
  const client = new ChatClient({ baseUrls: [server.url] });
  await assert.rejects(client.complete(CALL), refusal({ code: "bad_response", status: 200 }));
});

test("silence before the answer gives the request up", async (t) => {
  const gone = later();
  const server = await serve(t, (request, response) => response.on("close", gone.resolve));
  const client = new ChatClient({ baseUrls: [server.url], timeout: 1000 });
  await assert.rejects(collect(client.stream(CALL)), refusal({ code: "timeout", status: 0 }));
  await gone.promise;
});

test("silence in mid-answer gives the request up", async (t) => {
  const gone = later();
  const server = await serve(t, (request, response) => {
    response.on("close", gone.resolve);
    startStream(response, { "x-request-id": "req_4" });
    response.write(event(chunk("a")));
  });
  const stream = new ChatClient({ baseUrls: [server.url], timeout: 1000 }).stream(CALL);
  await stream.next();
  await assert.rejects(stream.next(), refusal({ code: "timeout", requestId: "req_4" }));
  await gone.promise;
});

test("a body of an error that never comes does not hide its status", async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(503);
    response.flushHeaders();
  });
  const client = new ChatClient({ baseUrls: [server.url], timeout: 1000 });
  await assert.rejects(client.complete(CALL), refusal({ status: 503 }));
});

test("a body of an error that never ends is given up", async (t) => {
  const gone = later();
  const server = await serve(t, (request, response) => {
    response.on("close", gone.resolve);
    response.writeHead(500);
    response.write("x".repeat(99_999));
  });
  const client = new ChatClient({ baseUrls: [server.url] });
  await assert.rejects(client.complete(CALL), refusal({ status: 500 }));
  await gone.promise;
});

test("an abort before the start sends nothing", async (t) => {
  const server = await serve(t, (request, response) => json(response, 200, {}));
  const client = new ChatClient({ baseUrls: [server.url] });
  const reason = new Error("not now");
  const call = client.complete({ ...CALL, signal: AbortSignal.abort(reason) });
  await assert.rejects(call, (error) => error === reason);
  assert.equal(server.requests.length, 0);
});

test("an abort before the answer ends the request with the signal's reason", async (t) => {
  const came = later();
  const gone = later();
  const server = await serve(t, (request, response) => {
    response.on("close", gone.resolve);
    came.resolve();
  });
  const controller = new AbortController();
  const client = new ChatClient({ baseUrls: [server.url, server.url] });
  const call = client.complete({ ...CALL, signal: controller.signal });
  const caught = assert.rejects(call, { name: "AbortError" });
  await came.promise;
  controller.abort();
  await caught;
  await gone.promise;
  assert.equal(server.requests.length, 1); // no second server is asked
});

test("an abort while the body of an error comes ends with the signal's reason", async (t) => {
  const server = await serve(t, (request, response) => {
    response.writeHead(500);
    response.write("{");
  });
  const answered = later();
  const watched = async (...args) => {
    const response = await fetch(...args);
    setImmediate(answered.resolve); // when the client reads the body
    return response;
  };
  const controller = new AbortController();
  const client = new ChatClient({ baseUrls: [server.url], fetch: watched });
  const caught = assert.rejects(client.complete({ ...CALL, signal: controller.signal }), {
    name: "AbortError",
  });
  await answered.promise;
  controller.abort();
  await caught;
});

test("an abort in mid-stream ends the request", async (t) => {
  const gone = later();
  const server = await serve(t, (request, response) => {
    response.on("close", gone.resolve);
    startStream(response);
    response.write(event(chunk("a")));
  });
  const controller = new AbortController();
  const client = new ChatClient({ baseUrls: [server.url] });
  const stream = client.stream({ ...CALL, signal: controller.signal });
  await stream.next();
  controller.abort();
  await assert.rejects(stream.next(), { name: "AbortError" });
  await gone.promise;
});

test("leaving the loop ends the request", async (t) => {
  const gone = later();
  const server = await serve(t, (request, response) => {
    response.on("close", gone.resolve);
    startStream(response);
    response.write(event(chunk("a")));
  });
  for await (const part of new ChatClient({ baseUrls: [server.url] }).stream(CALL)) {
    assert.equal(part.choices[0].delta.content, "a");
    break;
  }
  await gone.promise;
});

test("wrong arguments are refused", () => {
  assert.throws(() => new ChatClient({ baseUrls: [] }), TypeError);
  assert.throws(() => new ChatClient({ baseUrls: "/v1" }), TypeError);
  for (const timeout of [0, -1, NaN, "soon"]) {
    assert.throws(() => new ChatClient({ timeout }), TypeError);
  }
});
