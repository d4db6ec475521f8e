// The page works without this. It shows what a save will change while you type, filters at once, and keeps
// the table of processes up to date.
"use strict";

const INTERVAL = 1000; // milliseconds between two requests
const TIMEOUT = 10000; // milliseconds
const NO_VALUE = "\u2400";
const MAX_SHOWN = 80; // characters of a value in the list of changes

const page = document.body.dataset;
const byId = (id) => document.getElementById(id);
const form = byId("form");

function setText(element, text) {
  // A screen reader reads each change aloud.
  if (element.textContent !== text) element.textContent = text;
}

function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

// One variable: its inputs, and what they say

class Variable {
  constructor(element) {
    this.element = element;
    this.input = element.querySelector("[name^=value-]");
    this.items = [...element.querySelectorAll("[name^=item-]")];
    this.none = element.querySelector("[name^=none-]");
    this.reset = element.querySelector("[name^=reset-]");
    this.original = element.querySelector("[name^=original-]")?.value ?? "";
    this.name = (this.input ?? this.items[0] ?? this.reset)?.name.replace(/^[a-z]+-/, "");
    this.group = element.closest(".group");
    this.editable = Boolean(this.input ?? this.items[0]) && !(this.input ?? this.items[0]).disabled;
  }

  get text() {
    if (this.none?.checked) return NO_VALUE;
    if (!this.input) return `[${this.items.filter((item) => item.checked).map((item) => item.value)}]`;
    return this.input.type === "checkbox" ? String(this.input.checked) : this.input.value;
  }

  get isInvalid() {
    return Boolean(this.input?.validity.badInput);
  }

  get isEdited() {
    if (this.reset?.checked) return true;
    return this.editable && (this.isInvalid || this.text !== this.original);
  }

  get isShown() {
    return !this.element.hidden;
  }

  inWords(text) {
    if (this.element.dataset.kind === "secret") return "********";
    if (text === NO_VALUE) return "no value";
    if (this.input?.type === "checkbox") return text === "true" ? "on" : "off";
    if (this.items.length) {
      const ticked = JSON.parse(text).map((one) => JSON.stringify(one));
      const labels = this.items.filter((item) => ticked.includes(JSON.stringify(JSON.parse(item.value)))).map(labelOf);
      return labels.join(", ") || "none";
    }
    const option = [...(this.input.options ?? [])].find((option) => option.value === text);
    const words = option ? option.textContent : text || "(empty)";
    return words.length > MAX_SHOWN ? `${words.slice(0, MAX_SHOWN)}…` : words;
  }

  get change() {
    if (this.reset?.checked) {
      const value = this.reset.parentElement.querySelector("code")?.textContent;
      const before = this.editable ? this.inWords(this.original) : "a long value";
      return [before, value ? `${value} (default)` : "its default"];
    }
    if (this.element.dataset.kind === "secret") return ["********", "another value"];
    if (this.isInvalid) return [this.inWords(this.original), "not a value yet"];
    return [this.inWords(this.original), this.inWords(this.text)];
  }
}

const labelOf = (item) => item.parentElement.textContent.trim();

const variables = [...form.querySelectorAll(".variable")].map((element) => new Variable(element));
const groups = [...form.querySelectorAll(".group")];

// What a save will change

const save = byId("save");
save.removeAttribute("name"); // no step in between: what will change is shown right here

function entryOf(variable) {
  const entry = document.createElement("li");
  const link = entry.appendChild(document.createElement("a"));
  const [before, after] = variable.change;
  link.href = `#value-${variable.name}`;
  link.textContent = variable.element.querySelector(".label").textContent.trim();
  entry.append(": ", code("old", before), hidden(" becomes "), arrow(), code("new", after));
  return entry;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

const code = (className, text) => element("code", className, text);
const hidden = (text) => element("span", "hidden", text);

function arrow() {
  const made = element("span", "", " → ");
  made.ariaHidden = "true";
  return made;
}

function count() {
  const edited = variables.filter((variable) => variable.isEdited);
  for (const variable of variables) variable.element.classList.toggle("edited", edited.includes(variable));
  for (const group of groups) {
    const inside = edited.filter((variable) => variable.group === group).length;
    setText(group.querySelector(".unsaved"), inside ? `${inside} not saved` : "");
  }
  byId("preview").hidden = edited.length === 0;
  byId("changes").replaceChildren(...edited.map(entryOf));
  const time = byId("time").value.trim();
  setText(save, edited.length ? `Save ${plural(edited.length, "change")}${time && ` for ${time}`}` : "Save");
  // What has the focus stays above the bar, however much is in it.
  document.documentElement.style.scrollPaddingBottom = `${save.parentElement.offsetHeight + 16}px`;
  return edited.length;
}

let saving = false;
form.addEventListener("input", ({ target }) => {
  const variable = variables.find(({ element }) => element.contains(target));
  if (variable?.none) {
    if (target === variable.none && target.checked) variable.input.value = "";
    if (target === variable.input) variable.none.checked = false;
  }
  if (variable || target.name === "note" || target.name === "time") count();
});
form.addEventListener("submit", (event) => {
  // The browser would send an empty text instead of what isn't a number or a date.
  const invalid = variables.find((variable) => variable.isInvalid);
  if (invalid) {
    event.preventDefault();
    if (invalid.group) invalid.group.open = true;
    invalid.input.reportValidity();
  } else saving = true;
});
window.addEventListener("beforeunload", (event) => {
  if (!saving && count()) event.preventDefault();
});
window.addEventListener("pageshow", () => {
  saving = false;
  count();
  form.querySelector("[autofocus]")?.closest(".variable, .save").scrollIntoView({ block: "nearest" });
});

// The filter

const filter = byId("filter");

function applyFilter() {
  const text = filter.querySelector("[name=q]").value.trim().toLowerCase();
  const onlyChanged = filter.querySelector("[name=changed]").checked;
  for (const variable of variables) {
    const { element } = variable;
    const value = element.dataset.kind === "secret" || !variable.editable ? "" : variable.inWords(variable.text).toLowerCase();
    const found = element.dataset.name.toLowerCase().includes(text) || value.includes(text);
    element.hidden = !(variable.isEdited || (found && (!onlyChanged || "changed" in element.dataset)));
  }
  const active = text !== "" || onlyChanged;
  for (const group of groups) {
    group.hidden = !variables.some((variable) => variable.group === group && variable.isShown);
    if (active && !group.hidden) group.open = true;
  }
  const shown = variables.filter((variable) => variable.isShown).length;
  byId("none").hidden = shown > 0;
  setText(byId("shown"), active ? `${shown} of ${variables.length}` : "");
}

if (filter) {
  filter.querySelector("[form=filtering]:not(input)").hidden = true;
  filter.addEventListener("input", applyFilter);
  byId("filtering").addEventListener("submit", (event) => event.preventDefault());
}

// The groups: those that are open stay so when the page is loaded again

const all = byId("all");

function remember(open) {
  try {
    sessionStorage.setItem("waffle-open", JSON.stringify(open));
  } catch {} // this browser keeps nothing for us
}

function remembered() {
  try {
    return JSON.parse(sessionStorage.getItem("waffle-open") ?? "[]");
  } catch {
    return [];
  }
}

function showGroups() {
  const open = groups.filter((group) => group.open).map((group) => group.id);
  remember(open);
  if (all) setText(all, open.length === groups.length ? "Close all groups" : "Open all groups");
}

for (const id of remembered()) {
  if (groups.includes(byId(id))) byId(id).open = true;
}
for (const group of groups) group.addEventListener("toggle", showGroups);
if (all) {
  all.hidden = false;
  all.addEventListener("click", () => {
    const open = groups.some((group) => !group.open);
    for (const group of groups) group.open = open;
  });
  showGroups();
}

// The processes

const rows = document.querySelector("#table tbody");
const summary = byId("summary");
byId("again").hidden = true;

function newRow() {
  const row = document.createElement("tr");
  row.append(...["th", "td", "td", "td", "td"].map((name) => document.createElement(name)));
  row.firstChild.scope = "row";
  return row;
}

const byName = (a, b) => a.kind.localeCompare(b.kind, "en", { numeric: true });

function showProcesses({ revision, processes, error }) {
  while (rows.children.length > processes.length) rows.lastElementChild.remove();
  while (rows.children.length < processes.length) rows.append(newRow());
  processes.sort(byName).forEach((process, index) => {
    const row = rows.children[index];
    const cells = [process.kind, process.pid, process.revision, `${Math.round(process.age)} s`, process.error];
    cells.forEach((cell, index) => setText(row.children[index], String(cell)));
    row.dataset.pid = process.pid;
    row.classList.toggle("behind", process.behind);
  });
  byId("newer").hidden = String(revision) === page.revision;
  const serving = processes.filter((process) => !process.behind).length;
  setText(summary, `${serving} of ${processes.length} serve revision ${revision}. ${error}`.trim());
}

async function refresh() {
  if (document.visibilityState === "visible") {
    try {
      const response = await fetch(page.processes, {
        headers: { Accept: "application/json" },
        redirect: "manual", // the login may be on another host
        signal: AbortSignal.timeout(TIMEOUT),
      });
      if (response.ok) showProcesses(await response.json());
      else if (response.status < 500) setText(summary, "The server doesn’t let you see this any more: sign in again.");
      else setText(summary, `The server has a problem (${response.status}).`);
    } catch (error) {
      setText(summary, "The server doesn’t answer.");
    }
  }
  setTimeout(refresh, INTERVAL);
}

refresh();
