// What the page does beside being morphed by htmx: tell whether it is live, say what became of orders, edit tiers.
"use strict";

const byId = id => document.getElementById(id);

function tell(state, text) {
  const shown = byId("connection");
  if (shown.dataset.state === state) return;
  shown.dataset.state = state;
  shown.textContent = text;
}

function say(text, fault = false) {
  const said = byId("said");
  said.textContent = text;
  said.classList.toggle("fault", fault);
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { said.textContent = ""; }, fault ? 12000 : 4000);
}

async function faultOf(response) {
  try {
    return (await response.json()).detail;
  } catch {
    return `The gateway answered ${response.status}.`;
  }
}

document.addEventListener("htmx:sse:after:message", () => tell("live", "live"));
document.addEventListener("htmx:sse:error", event => {
  if ([401, 403].includes(event.detail.status)) location.reload();
  tell("lost", "connection lost, trying again");
});
document.addEventListener("htmx:response:error", event => {
  if (event.detail.ctx.sourceElement !== document.querySelector("main")) return;
  tell("lost", "not connected, trying again"); // a first connection that is refused isn't tried again by itself
  setTimeout(() => location.reload(), 2000);
});
document.addEventListener("signed-out", () => location.reload());

document.addEventListener("htmx:after:request", async event => {
  const {ctx} = event.detail;
  const text = ctx.sourceElement?.dataset.said;
  if (!text) return;
  const response = ctx.response.raw;
  if (response.ok) say(text);
  else say(ctx.text ? JSON.parse(ctx.text).detail : `The gateway answered ${response.status}.`, true);
});

// A tier is edited as GET /admin/tiers shows it. What was changed is sent with the ETag of what was shown.
const editor = byId("tier-editor");
const form = editor.querySelector("form");
let edited = null;

const urlOf = name => `/admin/tiers/${encodeURIComponent(name)}`;
const within = (tier, path) => path.split(".").reduce((found, part) => found?.[part], tier);
const inWords = value => Array.isArray(value) ? value.map(inWords).join(", ") : String(value ?? "");
const isPlain = value => Array.isArray(value) ? value.every(isPlain) : typeof (value ?? "") !== "object";

function complain(text) {
  const fault = form.querySelector(".fault");
  fault.textContent = text;
  fault.hidden = !text;
}

async function show(name) {
  const response = await fetch(urlOf(name));
  if (!response.ok) throw new Error(await faultOf(response));
  const tier = await response.json();
  edited = {name, tag: response.headers.get("etag"), shown: {}};
  byId("tier-editor-heading").textContent = `Tier ${name}`;
  for (const field of form.querySelectorAll("input")) {
    const value = within(tier, field.name);
    field.value = edited.shown[field.name] = isPlain(value) ? inWords(value) : JSON.stringify(value);
    field.readOnly = !isPlain(value); // a burst and the like: over the API
  }
}

function valueOf(path, text) {
  if (text === "") return null;
  if (path === "weight" || path === "limits.concurrency") return Number.isNaN(Number(text)) ? text : Number(text);
  return path.startsWith("limits.") && text.includes(",") ? text.split(",").map(part => part.trim()) : text;
}

function changes() {
  const patch = {};
  for (const field of form.querySelectorAll("input")) {
    const text = field.value.trim();
    if (text === edited.shown[field.name]) continue;
    const [first, second] = field.name.split(".");
    if (second) (patch[first] ??= {})[second] = valueOf(field.name, text);
    else patch[first] = valueOf(field.name, text);
  }
  return patch;
}

async function save() {
  const response = await fetch(urlOf(edited.name), {
    method: "PATCH",
    headers: {"content-type": "application/merge-patch+json", "if-match": edited.tag},
    body: JSON.stringify(changes()),
  });
  if (response.ok) {
    editor.close();
    say(`The tier ${edited.name} is changed.`);
  } else if (response.status === 412) {
    await show(edited.name);
    complain("Somebody changed it meanwhile. This is how it is now.");
  } else {
    complain(await faultOf(response));
  }
}

document.addEventListener("click", async event => {
  const name = event.target.closest?.("[data-tier]")?.dataset.tier;
  if (name === undefined) return;
  try {
    await show(name);
    complain("");
    editor.showModal();
  } catch (error) {
    say(error.message, true);
  }
});

byId("cancel").addEventListener("click", () => editor.close());
form.addEventListener("submit", event => {
  event.preventDefault();
  save().catch(error => complain(error.message));
});
