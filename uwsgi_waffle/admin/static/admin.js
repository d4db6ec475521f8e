// The page works without this. It adds: a table of processes that is alive, a filter, and what is edited but not saved.
"use strict";

const INTERVAL = 1000; // milliseconds between two looks at the processes

const page = document.body.dataset;
const form = document.getElementById("form");
const variables = [...form.querySelectorAll(".variable")];

// What is edited

const inputsOf = (variable) => [...variable.querySelectorAll("[name^=value-], [name^=reset-]")];

function differs(input) {
  if ("edited" in input.dataset) return true;
  if (input.type === "checkbox") return input.checked !== input.defaultChecked;
  if (input.tagName === "SELECT") return [...input.options].some((option) => option.selected !== option.defaultSelected && [...input.options].some((o) => o.defaultSelected));
  return input.value !== input.defaultValue;
}

function count() {
  let edited = 0;
  for (const variable of variables) {
    const dirty = inputsOf(variable).some(differs);
    variable.classList.toggle("edited", dirty);
    edited += dirty;
  }
  document.getElementById("count").textContent = edited ? ` ${edited} ${edited === 1 ? "change" : "changes"}` : "";
  return edited;
}

let saving = false;
form.addEventListener("input", (event) => {
  delete event.target.dataset.edited;
  count();
});
form.addEventListener("submit", () => (saving = true));
window.addEventListener("beforeunload", (event) => {
  if (!saving && count()) event.preventDefault();
});
window.addEventListener("pageshow", () => {
  saving = false;
  count();
});

// The filter

const filter = document.getElementById("filter");
if (variables.length > 8) filter.hidden = false;
filter.addEventListener("input", () => {
  const wanted = filter.querySelector("input").value.trim().toLowerCase();
  let shown = 0;
  for (const variable of variables) {
    variable.hidden = !variable.dataset.name.toLowerCase().includes(wanted);
    shown += !variable.hidden;
  }
  document.getElementById("none").hidden = shown > 0;
});

// The processes

const rows = document.querySelector("#table tbody");
const summary = document.getElementById("summary");
document.getElementById("again").hidden = true;

function say(text) {
  if (summary.textContent !== text) summary.textContent = text; // it is read aloud, so only when it is another
}

function row(process) {
  const found = rows.querySelector(`[data-pid="${process.pid}"]`);
  if (found) return found;
  const made = rows.appendChild(document.createElement("tr"));
  made.dataset.pid = process.pid;
  made.append(...["th", "td", "td", "td", "td"].map((name) => document.createElement(name)));
  made.firstChild.scope = "row";
  return made;
}

function show(told) {
  const seen = new Set();
  let behind = 0;
  for (const process of told.processes.sort((a, b) => a.kind.localeCompare(b.kind, "en", { numeric: true }))) {
    const shown = row(process);
    const cells = [process.kind, process.pid, process.revision, `${Math.round(process.age)} s`, process.error];
    shown.classList.toggle("arrived", shown.children[2].textContent !== String(process.revision));
    cells.forEach((cell, at) => (shown.children[at].textContent = cell));
    const late = process.revision !== told.revision;
    shown.classList.toggle("behind", late);
    behind += late;
    seen.add(shown.dataset.pid);
    rows.append(shown);
  }
  for (const shown of [...rows.children]) if (!seen.has(shown.dataset.pid)) shown.remove();
  document.getElementById("newer").hidden = String(told.revision) === page.revision;
  say(`${seen.size - behind} of ${seen.size} serve revision ${told.revision}.` + (told.trouble ? ` ${told.trouble}` : ""));
}

async function look() {
  if (document.visibilityState === "visible") {
    try {
      const answer = await fetch(page.processes, { headers: { Accept: "application/json" } });
      if (answer.ok && !answer.redirected) show(await answer.json());
      else say("The server doesn’t let you see this any more: sign in again.");
    } catch (error) {
      say("The server doesn’t answer.");
    }
  }
  setTimeout(look, INTERVAL);
}

look();
