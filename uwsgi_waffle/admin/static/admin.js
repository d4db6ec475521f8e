// The page works without this. It adds a live table of processes, a filter, and the number of unsaved changes.
"use strict";

const INTERVAL = 1000; // milliseconds between two requests
const TIMEOUT = 10000; // milliseconds

const page = document.body.dataset;
const form = document.getElementById("form");
const variables = [...form.querySelectorAll(".variable")];

// What is edited

const inputOf = (variable) => variable.querySelector("[name^=value-]");

function isEdited(variable) {
  const input = inputOf(variable);
  const original = variable.querySelector("[name^=original-]");
  if (variable.querySelector("[name^=reset-]:checked")) return true;
  if (!input) return false; // not editable here
  const value = input.type === "checkbox" ? String(input.checked) : input.value;
  return input.validity.badInput || value !== (original ? original.value : "");
}

function count() {
  let edited = 0;
  for (const variable of variables) {
    const dirty = isEdited(variable);
    variable.classList.toggle("edited", dirty);
    edited += dirty;
  }
  const text = edited ? ` ${edited} ${edited === 1 ? "change" : "changes"}` : "";
  document.getElementById("count").textContent = text;
  return edited;
}

let saving = false;
form.addEventListener("input", count);
form.addEventListener("submit", (event) => {
  // The browser would send an empty text instead of what isn't a number.
  const invalid = variables.map(inputOf).find((input) => input?.validity.badInput);
  if (invalid) {
    event.preventDefault();
    invalid.closest(".variable").hidden = false;
    invalid.reportValidity();
  } else saving = true;
});
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
  const text = filter.querySelector("input").value.trim().toLowerCase();
  let shown = 0;
  for (const variable of variables) {
    variable.hidden = !variable.dataset.name.toLowerCase().includes(text);
    shown += !variable.hidden;
  }
  document.getElementById("none").hidden = shown > 0;
});

// The processes

const rows = document.querySelector("#table tbody");
const summary = document.getElementById("summary");
document.getElementById("again").hidden = true;

function setText(element, text) {
  // A screen reader reads each change aloud.
  if (element.textContent !== text) element.textContent = text;
}

function rowOf(process) {
  const present = rows.querySelector(`[data-pid="${process.pid}"]`);
  if (present) return present;
  const row = rows.appendChild(document.createElement("tr"));
  row.dataset.pid = process.pid;
  row.append(...["th", "td", "td", "td", "td"].map((name) => document.createElement(name)));
  row.firstChild.scope = "row";
  return row;
}

const byName = (a, b) => a.kind.localeCompare(b.kind, "en", { numeric: true });

function show({ revision, processes, error }) {
  const pids = new Set();
  let behind = 0;
  for (const process of processes.sort(byName)) {
    const row = rowOf(process);
    const age = `${Math.round(process.age)} s`;
    const cells = [process.kind, process.pid, process.revision, age, process.error];
    row.classList.toggle("arrived", row.children[2].textContent !== String(process.revision));
    cells.forEach((cell, index) => setText(row.children[index], String(cell)));
    row.classList.toggle("behind", process.behind);
    behind += process.behind;
    // Move a row only if necessary: somebody may be reading it.
    if (rows.children[pids.size] !== row) rows.insertBefore(row, rows.children[pids.size]);
    pids.add(row.dataset.pid);
  }
  for (const row of [...rows.children]) if (!pids.has(row.dataset.pid)) row.remove();
  document.getElementById("newer").hidden = String(revision) === page.revision;
  const serving = `${pids.size - behind} of ${pids.size} serve revision ${revision}.`;
  setText(summary, error ? `${serving} ${error}` : serving);
}

async function refresh() {
  if (document.visibilityState === "visible") {
    try {
      const response = await fetch(page.processes, {
        headers: { Accept: "application/json" },
        redirect: "manual", // the login may be on another host
        signal: AbortSignal.timeout(TIMEOUT),
      });
      if (response.ok) show(await response.json());
      else if (response.status < 500) setText(summary, "The server doesn’t let you see this any more: sign in again.");
      else setText(summary, `The server has a problem (${response.status}).`);
    } catch (error) {
      setText(summary, "The server doesn’t answer.");
    }
  }
  setTimeout(refresh, INTERVAL);
}

refresh();
