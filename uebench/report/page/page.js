"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const root = document.documentElement;
  const boards = all(".board");
  const rows = all(".heat tr.clean, .heat tr.poison");
  const columns = all(".heat th.defense");
  const tabs = [...new Set(all("[data-tab]").map((button) => button.dataset.tab))];
  const initialOrder = new Map(boards.map((board) => [board, all("tr", board.querySelector("tbody"))]));
  const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
  root.classList.add("js");

  // What is shown is in `view` alone. It is written to the address, so that a view can be linked.
  const initial = { metric: "last", attacks: "", defenses: "", sort: "", order: "", show: "" };
  const filters = { rows: "attacks", columns: "defenses" };
  let view = { ...initial };
  let current = boards[0];

  const nearest = (settings, among = boards) => {
    const likeness = (board) => Object.keys(settings).filter((key) => board.dataset[key] === settings[key]).length;
    return among.reduce((best, board) => (likeness(board) > likeness(best) ? board : best));
  };
  const query = () => {
    const parts = new URLSearchParams();
    if (current !== boards[0]) for (const tab of tabs) parts.set(tab, current.dataset[camel(tab)]);
    for (const [name, value] of Object.entries(view)) if (value !== initial[name]) parts.set(name, value);
    return parts.toString();
  };
  const read = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    view = { ...initial };
    for (const name of Object.keys(initial)) if (parts.has(name)) view[name] = parts.get(name);
    if (!["last", "best"].includes(view.metric)) view.metric = initial.metric;
    const settings = tabs.filter((tab) => parts.has(tab)).map((tab) => [camel(tab), parts.get(tab)]);
    current = nearest(Object.fromEntries(settings));
  };
  const change = (changes) => {
    Object.assign(view, changes);
    history.replaceState(null, "", query() ? `#${query()}` : location.pathname + location.search);
    render();
  };

  // A term that is the whole name of methods, or of their kind, selects them; any other selects what contains it.
  const names = ({ dataset: { method, spec, title, name, family } }) =>
    [method, spec, title, name, family].map((text) => text.toLowerCase());
  const selected = (elements, text) => {
    const terms = text.toLowerCase().split(/,(?![^[]*\])/).map((term) => term.trim()).filter(Boolean);
    const matches = terms.map((term) => {
      const exact = elements.filter((element) => names(element).includes(term));
      return exact.length ? exact : elements.filter((element) => names(element).some((name) => name.includes(term)));
    });
    const unknown = terms.filter((_, i) => !matches[i].length);
    return { unknown, elements: new Set(terms.length ? matches.flat() : elements) };
  };
  const filter = () => {
    const [attacks, defenses] = [selected(rows, view.attacks), selected(columns, view.defenses)];
    for (const row of rows) row.hidden = !attacks.elements.has(row);
    for (const column of columns) {
      const hidden = !defenses.elements.has(column);
      for (const row of column.closest("table").rows) row.cells[column.cellIndex].hidden = hidden;
    }
    for (const input of all("[data-filter]"))
      if (input !== document.activeElement) input.value = view[filters[input.dataset.filter]];
    const hints = [...attacks.unknown, ...defenses.unknown].map((term) => `Nothing is called ${term}.`);
    if (view.attacks.trim() || view.defenses.trim()) hints.push("Worst cases include hidden rows and columns.");
    for (const hint of all(".hint")) hint.textContent = hints.join(" ");
  };

  // Sorting keeps the clean row first and the worst case last; rows without a number follow the others.
  const sort = (board) => {
    const heads = all("thead th", board);
    const column = heads.findIndex((head) => (head.dataset.spec || head.dataset.title) === view.sort);
    const sign = view.order === "descending" ? -1 : 1;
    const value = (row) => {
      const text = column ? row.cells[column].dataset[view.metric] : row.dataset.name;
      return text === "" ? null : column ? Number(text) : text;
    };
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return sign * (column ? x - y : x.localeCompare(y));
    };
    const order = initialOrder.get(board);
    const poisons = order.filter((row) => row.classList.contains("poison"));
    if (column >= 0) poisons.sort(compare);
    const parts = ["clean", "worst"].map((part) => order.filter((row) => row.classList.contains(part)));
    board.querySelector("tbody").append(...parts[0], ...poisons, ...parts[1]);
    heads.forEach((head, i) => head.setAttribute("aria-sort", i === column ? view.order || "ascending" : "none"));
  };

  const fits = (element) =>
    Object.keys(element.dataset).every((name) => element.dataset[name] === current.dataset[name]);
  const press = (selector, pressed) => {
    for (const button of all(selector)) button.setAttribute("aria-pressed", pressed(button.dataset));
  };
  // Whether a board has the value of a tab, and what is chosen now in the tabs before it.
  const isNear = ({ tab, value }) => {
    const before = tabs.slice(0, tabs.indexOf(tab)).map(camel);
    return boards.some((board) => board.dataset[camel(tab)] === value
      && before.every((name) => board.dataset[name] === current.dataset[name]));
  };
  const shown = () => view.show.split(",").filter(Boolean);
  const render = () => {
    if (!current) return;
    root.dataset.metric = view.metric;
    root.dataset.show = shown().join(" ");
    for (const element of all(".follows")) element.classList.toggle("on", fits(element));
    press("[data-tab]", ({ tab, value }) => current.dataset[camel(tab)] === value);
    for (const button of all("[data-tab]")) button.classList.toggle("far", !isNear(button.dataset));
    press("button[data-metric]", ({ metric }) => metric === view.metric);
    press("button[data-show]", ({ show }) => shown().includes(show));
    filter();
    boards.forEach(sort);
  };

  // The table as it is shown, for other programs: names and texts are escaped for each of them.
  const textOf = (element, selector) => element.querySelector(selector)?.textContent.trim() ?? "";
  const visible = () => {
    const table = current.querySelector("table");
    const places = [...table.rows[0].cells].filter((cell) => !cell.hidden).map((cell) => cell.cellIndex);
    const lines = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const face = (cell) => {
      const part = (selector) => textOf(cell, `.of-${view.metric} ${selector}`);
      const bold = part("strong");
      const more = shown().map((name) => textOf(cell, `.aside.${name}`)).filter(Boolean);
      return { number: cell.dataset[view.metric], value: bold || part(".value"), bold: Boolean(bold),
        spread: part(".spread").replace("± ", ""), remark: [part(".by"), ...more].filter(Boolean).join("; ") };
    };
    return {
      part: lines.map((row) => row.className),
      heads: ["attack", ...places.slice(1).map((i) => table.rows[0].cells[i].dataset.name)],
      rows: lines.map((row) => [row.dataset.name, ...places.slice(1).map((i) => face(row.cells[i]))]),
      notes: all(".warning, .finding, .note", current).filter((note) => note.checkVisibility())
        .map((note) => note.innerText.trim()).filter(Boolean),
    };
  };
  const csv = ({ heads, rows }) => {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const spreads = heads.map((_, i) => i > 0 && rows.some((row) => row[i].spread));
    const remarks = heads.map((_, i) => i > 0 && shown().length > 0 && rows.some((row) => row[i].remark));
    const fields = (i, name) => [name, ...(spreads[i] ? [`${name} sd`] : []), ...(remarks[i] ? [`${name} remark`] : [])];
    const values = (i, cell) => [
      i ? cell.number && Number(cell.number).toFixed(2) : cell,
      ...(spreads[i] ? [cell.spread] : []), ...(remarks[i] ? [cell.remark] : [])];
    const lines = [heads.flatMap((head, i) => fields(i, head)), ...rows.map((row) => row.flatMap((cell, i) => values(i, cell)))];
    return lines.map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };
  const markdown = ({ heads, rows, notes }) => {
    const plain = (text) => text.replace(/[\\`*_{}[\]<>|~#]/g, "\\$&");
    const face = ({ value, bold, spread, remark }) =>
      (bold ? `**${plain(value)}**` : plain(value)) + (spread && ` ± ${spread}`) + (remark && ` (${plain(remark)})`);
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const body = rows.map(([name, ...cells]) => line([plain(name), ...cells.map(face)]));
    return [line(heads.map(plain)), line(heads.map((_, i) => (i ? "--:" : ":--"))), ...body, "", ...notes.flatMap((note) => [plain(note), ""])].join("\n");
  };
  const latex = ({ part, heads, rows, notes }) => {
    const escapes = JSON.parse(document.querySelector("[data-latex]").dataset.latex);
    const codePoint = (letter) => `U+${letter.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    const escape = (letter) => escapes[letter] ?? (/[ -~]/.test(letter) ? letter : codePoint(letter));
    const plain = (text) => [...text.normalize("NFC").replace(/\s+/g, " ")].map(escape).join("");
    const face = ({ value, bold, spread, remark }) =>
      (bold ? `\\textbf{${plain(value)}}` : plain(value)) + (spread && ` $\\pm$ ${spread}`)
      + (remark && ` {\\scriptsize (${plain(remark)})}`);
    const body = rows.flatMap(([name, ...cells], i) => [
      ...(part[i] === part[i - 1] ? [] : ["    \\midrule"]),
      `    ${[plain(name), ...cells.map(face)].join(" & ")} \\\\`]);
    return ["% Needs \\usepackage{booktabs}.", "\\begin{table}[tbp]", "  \\centering",
      "  \\caption{Test accuracy (\\%): attacks in rows, defenses in columns.}",
      `  \\begin{tabular}{l${"r".repeat(heads.length - 1)}}`, "    \\toprule",
      `    ${heads.map(plain).join(" & ")} \\\\`, ...body, "    \\bottomrule", "  \\end{tabular}",
      ...notes.map((note) => `  \\par\\smallskip{\\footnotesize ${plain(note)}\\par}`), "\\end{table}", ""].join("\n");
  };
  const formats = { csv, markdown, latex };
  const copy = (format) => {
    const dialog = document.querySelector(".copied");
    const area = dialog.querySelector("textarea");
    area.value = formats[format](visible());
    dialog.showModal();
    area.select();
    // The older command works on pages from the disk as well; the text stays selected either way.
    const copied = document.execCommand("copy");
    dialog.querySelector("p").textContent = copied ? "Copied:" : "Copy the selected text:";
  };

  for (const button of all("[data-tab]"))
    button.addEventListener("click", () => {
      const { tab, value } = button.dataset;
      current = nearest({ ...current.dataset }, boards.filter((board) => board.dataset[camel(tab)] === value));
      change({});
    });
  for (const button of all("button[data-metric]"))
    button.addEventListener("click", () => change({ metric: button.dataset.metric }));
  for (const button of all("button[data-show]"))
    button.addEventListener("click", () => {
      const { show } = button.dataset;
      const others = shown().filter((name) => name !== show);
      change({ show: (others.length < shown().length ? others : [...others, show]).join(",") });
    });
  for (const button of all(".sort"))
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const again = head.getAttribute("aria-sort") === "ascending";
      change({ sort: head.dataset.spec || head.dataset.title, order: again ? "descending" : "ascending" });
    });
  for (const input of all("[data-filter]"))
    input.addEventListener("input", () => change({ [filters[input.dataset.filter]]: input.value }));
  for (const button of all("[data-copy]")) button.addEventListener("click", () => copy(button.dataset.copy));
  for (const button of all(".copied button")) button.addEventListener("click", () => button.closest("dialog").close());

  // Records open by their address, so that each has a link; closing one returns to the view before.
  let opened = false;
  const follow = () => {
    const target = location.hash.length > 1 && document.getElementById(location.hash.slice(1));
    if (target && target.classList.contains("record")) return target.focus();
    opened = false;
    if (location.hash.includes("=")) {
      read();
      render();
    }
  };
  const close = (event) => {
    if (!document.querySelector(".record:target")) return;
    event.preventDefault();
    if (opened) history.back();
    else location.hash = query() || "leaderboard";
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (link?.hash.startsWith("#cell")) opened = true;
    if (link?.closest("nav") && query()) {
      event.preventDefault(); // the address keeps the view
      document.getElementById(link.hash.slice(1)).scrollIntoView();
    }
    if (event.target.closest(".close") || event.target.matches(".record")) close(event);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && close(event));
  addEventListener("hashchange", follow);

  render();
  follow();
})();
