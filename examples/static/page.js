/** The chat page: a form, a conversation, and the client in between. */

import { ChatClient, ProxyError } from "./chat.js";

const form = document.querySelector("#ask");
const model = document.querySelector("#model");
const question = document.querySelector("#question");
const send = document.querySelector("#send");
const stop = document.querySelector("#stop");
const talk = document.querySelector("#talk");
const trouble = document.querySelector("#trouble");

const client = new ChatClient({
  // As seen from this page, so that the app may live under a path of its site.
  baseUrls: form.dataset.baseUrls.split(" ").map((url) => new URL(url, document.baseURI).href),
});
const messages = [];
let running = null; // the AbortController of the answer under way

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (running === null) ask(question.value.trim());
});

question.addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  form.requestSubmit();
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});

stop.addEventListener("click", () => running?.abort());

suggestModels();

async function ask(text) {
  if (text === "") return;
  begin();
  messages.push({ role: "user", content: text });
  add("user", "You").data = text;
  question.value = "";
  question.focus();
  const answer = add("assistant", model.value);
  try {
    await receive(answer);
  } catch (error) {
    if (!running.signal.aborted) complain(error);
  } finally {
    remember(text, answer.data);
    end();
  }
}

async function receive(answer) {
  const call = { model: model.value, messages, signal: running.signal };
  for await (const chunk of client.stream(call)) {
    const follow = isAtEnd();
    answer.appendData(chunk?.choices?.[0]?.delta?.content ?? "");
    if (follow) scrollToEnd();
  }
}

/** What was said so far stays; a question without an answer goes back to be sent again. */
function remember(text, answer) {
  if (answer !== "") {
    messages.push({ role: "assistant", content: answer });
    return;
  }
  messages.pop();
  talk.lastElementChild.remove();
  talk.lastElementChild.remove();
  if (question.value === "") question.value = text;
}

function begin() {
  running = new AbortController();
  trouble.replaceChildren();
  talk.setAttribute("aria-busy", "true"); // an answer is read out when it is whole
  send.disabled = true;
  stop.disabled = false;
}

function end() {
  running = null;
  talk.setAttribute("aria-busy", "false");
  send.disabled = false;
  if (document.activeElement === stop) question.focus();
  stop.disabled = true;
}

/** A new turn of the conversation; gives the text that it holds. */
function add(role, name) {
  const turn = document.createElement("article");
  turn.className = role;
  const heading = document.createElement("h2");
  heading.textContent = name;
  const paragraph = document.createElement("p");
  const text = document.createTextNode("");
  paragraph.append(text);
  turn.append(heading, paragraph);
  talk.append(turn);
  scrollToEnd();
  return text;
}

function complain(error) {
  trouble.textContent = inWords(error);
  if (error.status === 401) {
    const link = document.createElement("a");
    link.href = "login";
    link.textContent = "Sign in again";
    trouble.append(" ", link);
  }
  scrollToEnd();
}

function inWords(error) {
  if (!(error instanceof ProxyError)) return `The page has a fault: ${error.message}`;
  const words = [error.message];
  if (error.retryAfter !== null) words.push(`Try again in ${error.retryAfter} s.`);
  if (error.requestId !== null) words.push(`(Request ${error.requestId})`);
  return words.join(" ");
}

function isAtEnd() {
  const page = document.documentElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 40;
}

function scrollToEnd() {
  document.documentElement.scrollTop = document.documentElement.scrollHeight;
}

/** The names are a help in writing: without them the field works as well. */
async function suggestModels() {
  let names;
  try {
    names = await client.models();
  } catch (error) {
    complain(error);
    return;
  }
  const options = names.map((name) => {
    const option = document.createElement("option");
    option.value = name;
    return option;
  });
  document.querySelector("#models").replaceChildren(...options);
  if (model.value === "" && names.length > 0) model.value = names[0];
}
