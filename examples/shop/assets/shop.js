// Refreshes the box "This session". The page is complete without this.
"use strict";

const expiry = document.getElementById("session-expiry");

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
  const now = document.hidden ? null : await status();
  if (now?.expiry) expiry.textContent = now.expiry;
}

if (expiry) setInterval(refresh, 3000);
