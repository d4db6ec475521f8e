// The page works without this. It adds: a table of processes that is alive, a filter, and what is edited but not saved.
"use strict";

const INTERVAL = 1000; // milliseconds between two looks at the processes
const PATIENCE = 10000; // milliseconds that a look may take

const page = document.body.dataset;
const form = document.getElementById("form");
const variables = [...form.querySelectorAll(".variable")];

// What is edited

const inputsOf = (variable) => [...variable.querySelectorAll("[name^=value-], [name^=reset-]")];

function differs(input) {
  if ("edited" in input.dataset || input.validity.badInput) return true;
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
form.addEventListener("submit", (event) => {
  // What is no number the browser would send as nothing, and it would be lost.
  const unfit = variables.flatMap(inputsOf).find((input) => input.validity.badInput);
  if (unfit) {
    event.preventDefault();
    unfit.closest(".variable").hidden = false;
    unfit.reportValidity();
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

function say(element, text) {
  if (element.textContent !== text) element.textContent = text; // it may be read aloud, so only when it is another
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
    cells.forEach((cell, at) => say(shown.children[at], String(cell)));
    shown.classList.toggle("behind", process.behind);
    behind += process.behind;
    if (rows.children[seen.size] !== shown) rows.insertBefore(shown, rows.children[seen.size]); // moved only if it must be: it may be being read
    seen.add(shown.dataset.pid);
  }
  for (const shown of [...rows.children]) if (!seen.has(shown.dataset.pid)) shown.remove();
  document.getElementById("newer").hidden = String(told.revision) === page.revision;
  say(summary, `${seen.size - behind} of ${seen.size} serve revision ${told.revision}.` + (told.trouble ? ` ${told.trouble}` : ""));
}

async function look() {
  if (document.visibilityState === "visible") {
    try {
      const answer = await fetch(page.processes, {
        headers: { Accept: "application/json" },
        redirect: "manual", // to a login, which may be on another host
        signal: AbortSignal.timeout(PATIENCE),
      });
      if (answer.ok) show(await answer.json());
      else if (answer.status < 500) say(summary, "The server doesn’t let you see this any more: sign in again.");
      else say(summary, `The server has a problem (${answer.status}).`);
    } catch (error) {
      say(summary, "The server doesn’t answer.");
    }
  }
  setTimeout(look, INTERVAL);
}

look();
