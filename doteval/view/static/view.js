// What pages do beyond HTML: local times, keys, copying, and parts that are live. Everything else works without it.
"use strict";

// Times are written in UTC. They are shown in the reader's zone, which the foot of the page names.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const short = new Intl.DateTimeFormat("sv-SE", { dateStyle: "short", timeStyle: "short" });
const long = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long" });

function localTimes(part) {
  for (const element of part.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    element.textContent = short.format(moment);
    element.title = long.format(moment);
  }
}

// Tables: a button below each copies it with tabs between the cells, as spreadsheets take it.
function cellText(cell) {
  const copy = cell.cloneNode(true);
  for (const each of copy.querySelectorAll(".quiet, svg, [aria-hidden=true], button")) each.remove();
  return copy.textContent.replace(/\s+/g, " ").trim();
}

function tsv(table) {
  return [...table.rows].map(row => [...row.cells].map(cellText).join("\t")).join("\n") + "\n";
}

async function copy(text, button) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "copied";
  } catch {
    // A page that is not of this machine and has no TLS may not use the clipboard.
    button.textContent = "the browser does not allow it";
  }
  setTimeout(() => { button.textContent = before; }, 1500);
}

function copyButton(label, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = label;
  button.addEventListener("click", () => copy(text(), button));
  return button;
}

function copyButtons(part) {
  for (const region of part.querySelectorAll("[data-copy]")) {
    region.after(copyButton("copy as TSV", () => tsv(region.querySelector("table"))));
  }
  for (const command of part.querySelectorAll("[data-command]")) {
    command.after(" ", copyButton("copy", () => command.textContent));
  }
}

// What each part gets, once it is there.
function complete(part) {
  localTimes(part);
  copyButtons(part);
  const foot = document.querySelector("[data-zone]");
  if (foot) foot.textContent = document.querySelector("time") ? ` · times are in ${zone}` : "";
}

// Live parts: the page is fetched again, and the elements with data-live are replaced by their newest form.
function replace(part, newest) {
  const selection = document.getSelection();
  if (!selection.isCollapsed && part.contains(selection.anchorNode)) return;
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const checked = new Set([...part.querySelectorAll("input:checked")].map(each => each.value));
  const opened = new Set([...part.querySelectorAll("details[open][id]")].map(each => each.id));
  part.replaceChildren(...document.adoptNode(newest).childNodes);
  complete(part);
  for (const each of part.querySelectorAll("input[type=checkbox]")) each.checked = checked.has(each.value);
  for (const each of part.querySelectorAll("details[id]")) if (opened.has(each.id)) each.open = true;
  if (!focused) return;
  const address = focused.getAttribute("href");
  const same = [...part.querySelectorAll("a[href], input")]
    .find(each => address ? each.getAttribute("href") === address : each.value === focused.value);
  if (same) same.focus({ preventScroll: true });
}

const live = Number(document.body.dataset.liveSeconds || 0);
let known = null;
let waiting = null;
let looking = false;

// The answer says when to look again: the more pages are open, and the longer they take, the later.
async function look() {
  waiting = null;
  // A tab that nobody sees looks again when it is shown.
  if (document.hidden || looking) return;
  looking = true;
  let next = live;
  try {
    const headers = { "Accept": "text/html", "Doteval-Look": "1" };
    if (known) headers["If-None-Match"] = known;
    const answer = await fetch(location.href, { cache: "no-store", headers });
    next = Number(answer.headers.get("Doteval-Look-Again")) || live;
    document.querySelector("[data-looks]").textContent = ` · read again every ${Math.round(next)} s`;
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      known = answer.headers.get("ETag");
      for (const part of document.querySelectorAll("[data-live][id]")) {
        const newest = page.getElementById(part.id);
        if (newest) replace(part, newest);
      }
    }
  } catch {
    // The view has ended, or restarts. The page stays as it is, and is asked for again.
  }
  looking = false;
  waiting = setTimeout(look, next * 1000);
}

if (live) {
  waiting = setTimeout(look, live * 1000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && waiting === null) look(); });
}

// Keys.
const help = document.getElementById("help");

function lines() {
  return [...document.querySelectorAll("main table.lines tbody tr")].map(row => row.querySelector("a.open")).filter(Boolean);
}

function move(step) {
  const all = lines();
  if (!all.length) return;
  const row = document.activeElement.closest && document.activeElement.closest("tr");
  const now = all.findIndex(each => each.closest("tr") === row);
  const target = all[now < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, now + step))];
  target.focus();
  target.closest("tr").scrollIntoView({ block: "nearest" });
}

function follow(relation) {
  const found = document.querySelector(`main a[rel=${relation}]`);
  if (found) found.click();
}

function press(selector) {
  const found = document.querySelector(selector);
  if (found) found.click();
}

const actions = {
  j: () => move(1),
  k: () => move(-1),
  "[": () => follow("prev"),
  "]": () => follow("next"),
  u: () => follow("up"),
  r: () => press("[data-right]"),
  w: () => press("[data-wrong]"),
  n: () => { const note = document.querySelector("[data-note]"); if (note) note.focus(); },
  "/": () => { const field = document.querySelector("[data-search]"); if (field) { field.focus(); field.select(); } },
  "?": () => { if (help.open) help.close(); else help.showModal(); },
};

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = event.target.closest && event.target.closest("input:not([type=checkbox]), textarea, select");
  if (field) {
    if (event.key === "Escape") field.blur();
    return;
  }
  const action = actions[event.key];
  if (!action || (help.open && event.key !== "?")) return;
  event.preventDefault();
  action();
});

for (const button of document.querySelectorAll("[data-help]")) {
  button.hidden = false;
  button.addEventListener("click", actions["?"]);
}

// A link from elsewhere brings no cookie (SameSite=Strict); the same address asked for from this page does.
if (document.querySelector("[data-again]") && !new URLSearchParams(location.search).has("token")) {
  const key = `again ${location.href}`;
  if (!sessionStorage.getItem(key)) {
    sessionStorage.setItem(key, "1");
    location.replace(location.href);
  } else {
    sessionStorage.removeItem(key);
  }
}

complete(document);
