"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;
  const boards = all(".board");
  const filters = { rows: [], columns: [] };
  root.classList.add("js");

  // Tabs select a board, and with it everything that has the same settings.
  const fits = (element, settings) =>
    Object.keys(element.dataset).every((name) => element.dataset[name] === settings[name]);
  const show = (board) => {
    for (const element of all(".follows")) element.classList.toggle("on", fits(element, board.dataset));
    for (const button of all("[data-tab]"))
      button.setAttribute("aria-pressed", board.dataset[camel(button.dataset.tab)] === button.dataset.value);
  };
  const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
  let current = boards[0];
  for (const button of all("[data-tab]"))
    button.addEventListener("click", () => {
      const name = camel(button.dataset.tab);
      const likeness = (board) =>
        Object.keys(board.dataset).filter((key) => board.dataset[key] === current.dataset[key]).length;
      const having = boards.filter((board) => board.dataset[name] === button.dataset.value);
      current = having.reduce((best, board) => (likeness(board) > likeness(best) ? board : best));
      show(current);
    });

  // The switch between last and best epoch.
  for (const button of all("button[data-metric]"))
    button.addEventListener("click", () => {
      root.dataset.metric = button.dataset.metric;
      for (const each of all("button[data-metric]")) each.setAttribute("aria-pressed", each === button);
      for (const head of all("th[aria-sort$=ending]")) sort(head, head.getAttribute("aria-sort"));
    });

  // Sorting keeps the clean row first and the worst case last; rows without a number follow the others.
  const sort = (head, direction) => {
    const column = [...head.parentNode.children].indexOf(head);
    const body = head.closest("table").tBodies[0];
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => {
      if (!column) return row.dataset.name;
      const text = row.cells[column].dataset[root.dataset.metric];
      return text === "" ? null : Number(text);
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (column ? x - y : x.localeCompare(y));
    };
    const rows = all("tr.poison", body).sort(compare);
    const last = body.querySelector("tr.worst");
    for (const row of rows) body.insertBefore(row, last);
    for (const each of head.parentNode.children) each.setAttribute("aria-sort", each === head ? direction : "none");
  };
  for (const button of all(".sort"))
    button.addEventListener("click", () => {
      const head = button.closest("th");
      sort(head, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending");
    });

  // Filters keep the rows and columns whose names contain one of the words.
  const matches = (name, words) => !words.length || words.some((word) => name.toLowerCase().includes(word));
  const filter = () => {
    for (const row of all(".heat tr.poison, .heat tr.clean")) row.hidden = !matches(row.dataset.name, filters.rows);
    for (const table of all(".heat"))
      all("thead th", table).forEach((head, column) => {
        const hidden = head.classList.contains("defense") && !matches(head.dataset.name, filters.columns);
        for (const row of table.rows) row.cells[column].hidden = hidden;
      });
    const filtered = filters.rows.length + filters.columns.length;
    document.querySelector(".hint").textContent = filtered ? "Worst cases include hidden rows and columns." : "";
  };
  for (const input of all("[data-filter]"))
    input.addEventListener("input", () => {
      filters[input.dataset.filter] = input.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      filter();
    });

  // Records open by their address, so that each has a link; closing one returns to the previous position.
  let opened = false;
  const atRecord = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.classList.contains("record")) target.focus();
    else opened = false;
  };
  const close = (event) => {
    if (!document.querySelector(".record:target")) return;
    event.preventDefault();
    if (opened) history.back();
    else location.hash = "#leaderboard";
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#cell']");
    if (link) opened = true;
    if (event.target.closest(".close") || event.target.matches(".record")) close(event);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && close(event));
  addEventListener("hashchange", atRecord);

  show(current);
  atRecord();
})();
