"use strict";
(() => {
  // The data were written by `uebench site`; all of its texts become text nodes, never markup.
  const { boards, methods } = window.uebench;
  document.documentElement.classList.add("js");
  const all = (selector) => [...document.querySelectorAll(selector)];
  const sides = { attacks: "defenses", defenses: "attacks" };
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children.filter((child) => child !== null));
    return element;
  };
  const labels = (kind) => {
    const found = new Map();
    for (const board of boards) for (const each of board[kind]) if (!found.has(each.spec)) found.set(each.spec, each);
    return found;
  };
  const cellOf = (board, kind, own, other) => (kind === "attacks" ? board.cells[own][other] : board.cells[other][own]);

  const initial = { kind: "attacks", a: "", b: "", metric: "last" };
  let view = { ...initial };
  // Names that the data lack are replaced by the first that are there, so that old links still work.
  const complete = () => {
    if (!(view.kind in sides)) view.kind = "attacks";
    if (!["last", "best"].includes(view.metric)) view.metric = "last";
    const specs = [...labels(view.kind).keys()].filter((spec) => spec !== "none");
    const others = [...labels(view.kind).keys()];
    if (!others.includes(view.a)) view.a = specs.find((spec) => spec.split("[")[0] === view.a) ?? specs[0] ?? "";
    if (!others.includes(view.b) || view.b === view.a) view.b = specs.find((spec) => spec !== view.a) ?? "";
  };
  const read = () => {
    const parts = new URLSearchParams(location.hash.slice(1));
    view = { ...initial };
    for (const name of Object.keys(view)) if (parts.has(name)) view[name] = parts.get(name);
  };
  const change = (changes) => {
    Object.assign(view, changes);
    complete();
    history.replaceState(null, "", `#${new URLSearchParams(view)}`);
    render();
  };

  const facts = () => {
    const found = labels(view.kind);
    const pair = [view.a, view.b].map((spec) => found.get(spec)).filter(Boolean);
    const line = (name, of) => make("tr", {}, make("th", { scope: "row", textContent: name }), ...pair.map((each) => make("td", {}, of(methods[each.key] ?? {}, each))));
    const source = (method) => (method.link ? make("a", { href: method.link, rel: "noreferrer", textContent: method.source }) : method.source ?? "");
    const name = (method, each) => (method.page ? make("a", { href: method.page, textContent: each.label }) : each.label);
    return make("div", { className: "scroll" }, make("table", { className: "plain facts" }, make("tbody", {},
      line("method", name), line("what it does", (method) => method.summary ?? ""), line("source", source))));
  };

  const number = (cell) => {
    if (!cell || cell[view.metric].value === null) return make("td", { textContent: cell ? cell[view.metric].text : "—" });
    const { text, color, ink } = cell[view.metric];
    const td = make("td", { className: color ? "colored" : "" }, cell.href ? make("a", { href: cell.href, textContent: text }) : text);
    if (color) Object.assign(td.style, { background: color, color: ink });
    return td;
  };
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
  const table = (board) => {
    const [i, j] = [view.a, view.b].map((spec) => board[view.kind].findIndex((each) => each.spec === spec));
    if (i < 0 || j < 0) return null;
    const opponents = board[sides[view.kind]];
    const tied = board.ties[view.metric][view.kind];
    const isTie = (k) => tied.some(([x, y, opponent]) => opponent === k && x === Math.min(i, j) && y === Math.max(i, j));
    const value = (cell) => (cell ? cell[view.metric].value : null);
    const lines = opponents.map((other, k) => ({ other, k, a: cellOf(board, view.kind, i, k), b: cellOf(board, view.kind, j, k) }))
      .filter(({ a, b }) => [a, b].some((cell) => value(cell) !== null));
    if (!lines.length) return null;
    const both = lines.filter(({ a, b }) => value(a) !== null && value(b) !== null);
    const rows = lines.map(({ other, k, a, b }) => {
      const known = value(a) !== null && value(b) !== null;
      const difference = known ? signed(value(b) - value(a)) + (isTie(k) ? " (noise)" : "") : "";
      return make("tr", {}, make("td", { textContent: other.spec === "none" ? "clean" : other.label }), number(a), number(b), make("td", { textContent: difference }));
    });
    // Against an attack its best defense counts; for a defense, the attack that hurts it most.
    const poisoned = both.filter(({ other }) => other.spec !== "none");
    const extreme = (side) => (view.kind === "attacks" ? Math.max : Math.min)(...poisoned.map((line) => value(line[side])));
    if (poisoned.length > 1) {
      const [a, b] = [extreme("a"), extreme("b")];
      const name = view.kind === "attacks" ? "best of the defenses measured with both" : "worst of the attacks measured with both";
      rows.push(make("tr", { className: "worst" }, make("th", { scope: "row", textContent: name }),
        ...[a.toFixed(1), b.toFixed(1), signed(b - a)].map((text) => make("td", { textContent: text }))));
    }
    const heads = [sides[view.kind].slice(0, -1), board[view.kind][i].label, board[view.kind][j].label, "second − first"];
    return make("section", {}, make("h3", {}, make("a", { href: board.href, textContent: board.title })),
      make("div", { className: "scroll" }, make("table", { className: "plain compared" },
        make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", textContent: text })))),
        make("tbody", {}, ...rows))));
  };

  const render = () => {
    for (const button of all("[data-kind]")) button.setAttribute("aria-pressed", button.dataset.kind === view.kind);
    for (const button of all("button[data-metric]")) button.setAttribute("aria-pressed", button.dataset.metric === view.metric);
    for (const select of all("[data-side]")) {
      select.replaceChildren(...[...labels(view.kind).values()].map(({ spec, label }) => make("option", { value: spec, textContent: spec === "none" ? "clean" : label })));
      select.value = view[select.dataset.side];
    }
    document.querySelector("#facts").replaceChildren(facts());
    const tables = boards.map(table).filter(Boolean);
    const none = make("p", { className: "note", textContent: "No leaderboard has both." });
    document.querySelector("#compared").replaceChildren(...(tables.length ? tables : [none]));
  };
  for (const button of all("[data-kind]"))
    button.addEventListener("click", () => change({ kind: button.dataset.kind, a: "", b: "" }));
  for (const button of all("button[data-metric]"))
    button.addEventListener("click", () => change({ metric: button.dataset.metric }));
  for (const select of all("[data-side]"))
    select.addEventListener("change", () => change({ [select.dataset.side]: select.value }));
  addEventListener("hashchange", () => {
    read();
    complete();
    render();
  });
  read();
  complete();
  render();
})();
