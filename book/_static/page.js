// What the theme leaves without a name for screen readers.
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  for (const toggle of document.querySelectorAll("nav.bd-links summary")) {
    const chapter = toggle.closest("li").querySelector("a").innerText.trim();
    toggle.setAttribute("aria-label", `Pages of ${chapter}`);
  }
});
