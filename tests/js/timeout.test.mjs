/**
 * When patience ends, by a clock moved by hand. Node's own fetch would take that clock for its
 * connections, so the answers here come from streams.
 */

import assert from "node:assert/strict";
import { test } from "node:test";

import { ChatClient } from "../../examples/static/chat.js";
import { chunk, event } from "./server.mjs";

const CALL = { model: "m", messages: [] };

/** A fetch whose head comes when `head` says so, and whose body is written by hand. */
function byHand(head = Promise.resolve()) {
  const encoder = new TextEncoder();
  const answer = {
    calls: 0,
    fetch: (url, { signal }) => {
      answer.calls += 1;
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => reject(signal.reason));
        const body = new ReadableStream({
          start(controller) {
            answer.write = (text) => controller.enqueue(encoder.encode(text));
            signal.addEventListener("abort", () => controller.error(signal.reason));
          },
        });
        const headers = { "content-type": "text/event-stream" };
        head.then(() => resolve(new Response(body, { headers })));
      });
    },
  };
  return answer;
}

/** Lets everything happen that can without time passing. */
const settle = () => new Promise(setImmediate);

/** Whether the promise is still open. */
async function isOpen(promise) {
  await settle();
  const open = Symbol("open");
  return (await Promise.race([promise.catch(() => null), open])) === open;
}

test("the head may take as long as the timeout, and no longer", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { fetch } = byHand(new Promise(() => {}));
  const next = new ChatClient({ fetch, timeout: 1000 }).stream(CALL).next();
  t.mock.timers.tick(999);
  assert.ok(await isOpen(next));
  t.mock.timers.tick(1);
  await assert.rejects(next, { name: "ProxyError", code: "timeout", status: 0 });
});

test("each piece has the whole timeout again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const answer = byHand();
  const stream = new ChatClient({ fetch: answer.fetch, timeout: 1000 }).stream(CALL);
  for (const text of ["a", "b", "c"]) {
    const next = stream.next();
    await settle();
    t.mock.timers.tick(999);
    assert.ok(await isOpen(next), text);
    answer.write(event(chunk(text)));
    assert.equal((await next).value.choices[0].delta.content, text);
  }
  const last = stream.next();
  await settle();
  t.mock.timers.tick(1000);
  await assert.rejects(last, { name: "ProxyError", code: "timeout", status: 200 });
});

test("bytes that are no event yet show that the server is alive", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const answer = byHand();
  const next = new ChatClient({ fetch: answer.fetch, timeout: 1000 }).stream(CALL).next();
  for (let i = 0; i < 3; i++) {
    await settle();
    t.mock.timers.tick(999);
    answer.write(": still there\n");
  }
  assert.ok(await isOpen(next));
  answer.write(event(chunk("a")));
  assert.equal((await next).value.choices[0].delta.content, "a");
});

test("the reader's own time is not counted", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const answer = byHand();
  const stream = new ChatClient({ fetch: answer.fetch, timeout: 1000 }).stream(CALL);
  const next = stream.next();
  await settle();
  answer.write(event(chunk("a")));
  await next;
  t.mock.timers.tick(5000);
  answer.write(event(chunk("b")));
  assert.equal((await stream.next()).value.choices[0].delta.content, "b");
});

test("no other server is asked after a timeout", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const answer = byHand(new Promise(() => {}));
  const client = new ChatClient({ baseUrls: ["/a", "/b"], fetch: answer.fetch, timeout: 1000 });
  const next = client.stream(CALL).next();
  await settle();
  t.mock.timers.tick(1000);
  await assert.rejects(next, { code: "timeout" });
  assert.equal(answer.calls, 1);
});
