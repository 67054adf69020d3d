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

(() => {
  // The page of what happens now, made anew every few seconds while it is looked at; that can be switched off.
  const live = document.getElementById("live");
  if (!live || !live.dataset.every) return;
  let wanted = sessionStorage.getItem("refresh") !== "off";
  function prepare() {
    const box = document.getElementById("refresh");
    if (!box) return;
    box.closest("label").hidden = false;
    box.checked = wanted;
    box.addEventListener("change", () => {
      wanted = box.checked;
      sessionStorage.setItem("refresh", wanted ? "on" : "off");
    });
  }
  prepare();
  const timer = setInterval(async () => {
    if (!wanted || document.hidden || live.contains(document.activeElement)) return;
    try {
      const answer = await fetch(location.href, { redirect: "error" });
      const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
      if (!answer.ok || !made || live.contains(document.activeElement)) return;
      live.replaceChildren(...made.childNodes);
      if (!made.dataset.every) clearInterval(timer);
      prepare();
    } catch {
      // the next time may do better; the page says of when it is
    }
  }, 1000 * live.dataset.every);
})();

(() => {
  // A threshold is moved on its picture: what it would come to is fetched as it moves.
  const form = document.getElementById("threshold");
  if (!form) return;
  const number = form.elements.z;
  const slide = form.querySelector("input[type=range]");
  slide.closest("label").hidden = false;
  let waiting = 0;
  let asked = 0;
  async function show() {
    const mine = ++asked;
    const address = `${form.action}?${new URLSearchParams(new FormData(form))}`;
    try {
      const answer = await fetch(address, { redirect: "error" });
      const made = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("chosen");
      if (mine !== asked || !answer.ok || !made) return;
      document.getElementById("chosen").replaceChildren(...made.childNodes);
      history.replaceState(null, "", address);
    } catch {
      form.requestSubmit();
    }
  }
  function later() {
    clearTimeout(waiting);
    if (number.checkValidity()) waiting = setTimeout(show, 120);
  }
  slide.addEventListener("input", () => {
    number.value = Number(slide.value).toFixed(2);
    later();
  });
  number.addEventListener("input", () => {
    slide.value = number.value;
    later();
  });
})();
