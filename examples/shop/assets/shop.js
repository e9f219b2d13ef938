// Refreshes the box "This session", tells when the session was ended elsewhere, and holds back second clicks. The page
// is complete without this.
"use strict";

const user = document.getElementById("user")?.textContent ?? null;
const expiry = document.getElementById("session-expiry");
const live = document.getElementById("live");
let source = null;

/** The session as the server sees it now, or `null` if the server did not answer. Does not move the deadline. */
async function status() {
  try {
    const response = await fetch("/status");
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

async function refresh() {
  if (document.hidden) return;
  const now = await status();
  if (now?.expiry) expiry.textContent = now.expiry;
  if (now && user !== null && now.user !== user) end();
}

function show(state, text) {
  live.dataset.state = state;
  live.textContent = text;
}

function connect() {
  if (source || document.hidden || live.dataset.state === "ended") return;
  source = new EventSource("/live");
  source.addEventListener("connected", () => show("open", "Connected"));
  source.onerror = () => {
    show("connecting", "Connecting…");
    // The browser connects again by itself, but not after an answer that was an error.
    if (source.readyState !== EventSource.CLOSED) return;
    disconnect();
    setTimeout(connect, 5000);
  };
  source.addEventListener("ended", async () => {
    disconnect();
    // After a login in another tab, the same user goes on in a new session.
    if ((await status())?.user === user) connect();
    else end();
  });
}

function disconnect() {
  source?.close();
  source = null;
}

function end() {
  if (live.dataset.state === "ended") return;
  disconnect();
  show("ended", "You were logged out elsewhere. ");
  const link = document.createElement("a");
  link.href = "/";
  link.textContent = "Log in again";
  live.append(link);
  expiry.textContent = "ended";
}

if (expiry) setInterval(refresh, 3000);
if (live) {
  live.hidden = false;
  // A browser has few connections to one server: only the page that is looked at keeps one open.
  document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
  connect();
}

// A button that is pressed twice sends its form once. (Without this, the second login would make a second session.)
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));
