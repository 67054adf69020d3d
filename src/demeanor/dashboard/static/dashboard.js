// What a page of the dashboard does beyond being read and sending forms; without it everything can still be done.
"use strict";

(() => {
  // Answers by single keys, while nothing is being written; they can be switched off, and stay so in this browser.
  const form = document.getElementById("answers");
  const keys = document.getElementById("keys");
  if (!form) return;
  const note = form.querySelector("details");
  keys.closest("label").hidden = false;
  keys.checked = localStorage.getItem("keys") !== "off";
  keys.addEventListener("change", () => localStorage.setItem("keys", keys.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    const writing = event.target.closest("textarea, select, input:not([type=checkbox])");
    if (!keys.checked || writing || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
    const key = event.key.toLowerCase();
    const button = [...form.querySelectorAll("button[data-key]")].find((each) => each.dataset.key === key);
    if (button) button.click();
    else if (key === "e") {
      note.open = true;
      note.querySelector("textarea").focus();
      event.preventDefault();
    }
  });
})();
