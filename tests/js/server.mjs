/** A small HTTP server on a port of the system's choice, for one test. */

import { once } from "node:events";
import { createServer } from "node:http";

/** Serves until the test ends; `answer(request, response)` gets each request with its `body`. */
export async function serve(t, answer) {
  const requests = [];
  const server = createServer(async (request, response) => {
    request.body = "";
    for await (const piece of request.setEncoding("utf8")) request.body += piece;
    requests.push(request);
    answer(request, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${server.address().port}/v1`, requests };
}

/** A base URL that drops every connection. */
export async function unreachable(t) {
  return (await serve(t, (request) => request.socket.destroy())).url;
}

export function json(response, status, value, headers = {}) {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify(value));
}

export function startStream(response, headers = {}) {
  response.writeHead(200, { "content-type": "text/event-stream", ...headers });
  response.flushHeaders();
}

export function chunk(content, finish = null) {
  return { choices: [{ index: 0, delta: { content }, finish_reason: finish }] };
}

export function event(value) {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** A promise and what settles it. */
export function later() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
}
