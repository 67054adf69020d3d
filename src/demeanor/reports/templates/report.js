// What a report does beyond being read: search, filters, order, links to a reply, unfolding, and a sheet to label of what is shown.
// Without it the page is whole; the form that it serves is then hidden.
"use strict";

(() => {
  const form = document.getElementById("filters");
  const list = document.getElementById("cards");

  // Before printing, everything is unfolded, and afterwards as it was.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const details of folded) details.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const details of folded) details.open = false;
  });

  // A link to something that is folded or filtered away shows it.
  function reveal() {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    if (target.hidden && form) form.reset();
    for (let at = target.parentElement; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView();
  }
  window.addEventListener("hashchange", reveal);

  if (form && list) {
    const cards = [...list.children];
    const texts = cards.map((card) => card.textContent.toLowerCase());
    const selects = [...form.querySelectorAll("select")].filter((select) => select.name !== "order");

    const fits = (card, i) =>
      texts[i].includes(form.elements.search.value.trim().toLowerCase()) &&
      selects.every((select) => !select.value || (card.dataset[select.name] || "").split(" ").includes(select.value));

    const orders = {
      worst: () => 0,
      place: (a, b) => a.dataset.place - b.dataset.place,
      date: (a, b) => (a.dataset.date || "9999").localeCompare(b.dataset.date || "9999") || a.dataset.place - b.dataset.place,
    };

    function filter() {
      let shown = 0;
      cards.forEach((card, i) => {
        card.hidden = !fits(card, i);
        shown += !card.hidden;
      });
      document.getElementById("found").textContent = `${shown} of ${cards.length}`;
      document.getElementById("none").hidden = shown > 0;
      const save = form.elements.export;
      if (save) save.disabled = !wanted().length;
    }

    function arrange() {
      list.append(...[...cards].sort(orders[form.elements.order.value]));
    }

    // The rows of the sheet whose card is shown; where one trait is chosen, those that ask about it.
    function wanted() {
      const shown = new Set(cards.filter((card) => !card.hidden).map((card) => card.id));
      const trait = form.elements.trait ? form.elements.trait.value : "";
      return sheet.rows.filter(([card, of]) => shown.has(card) && (!trait || of === trait));
    }

    const held = document.getElementById("sheet");
    const sheet = held ? JSON.parse(held.textContent) : { columns: [], rows: [], name: "" };
    const cell = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);

    function save() {
      const lines = [sheet.columns, ...wanted().map(([, , cells]) => cells)].map((cells) => cells.map(cell).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", lines.join("\n"), "\n"], { type: "text/csv;charset=utf-8" }));
      link.download = sheet.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    }

    form.hidden = false;
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("input", filter);
    form.elements.order.addEventListener("change", arrange);
    form.addEventListener("reset", () => {
      setTimeout(() => {
        filter();
        arrange();
        if (location.hash) reveal();
      });
    });
    form.elements.unfold.addEventListener("click", ({ target }) => {
      const open = target.getAttribute("aria-expanded") === "false";
      for (const details of list.querySelectorAll("details")) details.open = open;
      target.setAttribute("aria-expanded", open);
      target.textContent = open ? "Fold all" : "Unfold all";
    });
    if (form.elements.export) form.elements.export.addEventListener("click", save);
    filter();
  }
  if (location.hash) reveal();
})();
