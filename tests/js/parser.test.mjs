import assert from "node:assert/strict";
import { test } from "node:test";

import { EventParser } from "../../examples/static/chat.js";

const encode = (text) => new TextEncoder().encode(text);

const SAMPLE = encode(
  "\ufeff: hello\n" +
    "data: one\n\n" +
    "event: named\r\ndata: two\r\ndata:\r\ndata:  grün 😀\r\n\r\n" +
    "data\r\r" +
    ": a comment alone\n\n" +
    "id: 7\nretry: 10\nevent: without data\n\n" +
    'data: {"a": "b:c"}\r\n\n' +
    "data: never ended\n",
);
const EVENTS = [
  { name: "message", data: "one" },
  { name: "named", data: "two\n\n grün 😀" },
  { name: "message", data: "" },
  { name: "message", data: '{"a": "b:c"}' },
];

function parse(pieces, options) {
  const parser = new EventParser(options);
  return pieces.flatMap((piece) => parser.push(piece));
}

test("gives every event, whatever ends its lines", () => {
  assert.deepEqual(parse([SAMPLE]), EVENTS);
});

test("gives the same wherever the bytes are cut", () => {
  for (let cut = 0; cut <= SAMPLE.length; cut++) {
    assert.deepEqual(parse([SAMPLE.slice(0, cut), SAMPLE.slice(cut)]), EVENTS, `cut at ${cut}`);
  }
});

test("gives the same byte by byte, with empty pieces in between", () => {
  const pieces = [...SAMPLE].flatMap((byte) => [Uint8Array.of(byte), new Uint8Array()]);
  assert.deepEqual(parse(pieces), EVENTS);
});

test("gives an event as soon as its blank line has come", () => {
  const parser = new EventParser();
  assert.deepEqual(parser.push(encode("data: x\r")), []);
  assert.deepEqual(parser.push(encode("\n\r")), [{ name: "message", data: "x" }]);
  assert.deepEqual(parser.push(encode("\ndata: y\n\n")), [{ name: "message", data: "y" }]);
});

test("two carriage returns are two line ends", () => {
  assert.deepEqual(parse([encode("data: x\r"), encode("\rdata: y\n\n")]), [
    { name: "message", data: "x" },
    { name: "message", data: "y" },
  ]);
});

test("a name holds for one event only", () => {
  assert.deepEqual(parse([encode("event: a\ndata: 1\n\ndata: 2\n\n")]), [
    { name: "a", data: "1" },
    { name: "message", data: "2" },
  ]);
});

test("refuses an event that is too long, in one line or in many", () => {
  for (const text of ["data: 0123456789", "data:0\ndata:1\ndata:2\n", ":0123456789012345"]) {
    assert.throws(() => parse([encode(text)], { maxEvent: 15 }), RangeError, text);
    const bytes = [...encode(text)].map((byte) => Uint8Array.of(byte));
    assert.throws(() => parse(bytes, { maxEvent: 15 }), RangeError, text);
  }
});

test("many events and comments are not too long", () => {
  const text = ":01234567\n".repeat(100) + "data: 1234\n\n".repeat(100);
  assert.equal(parse([encode(text)], { maxEvent: 15 }).length, 100);
});
