"use strict";
(() => {
  const words = JSON.parse(document.getElementById("words").textContent);
  const say = (key, values) => words[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // Theme: as the system, light, dark. Nothing is stored: a file has no place of its own to store it in.
  const theme = document.getElementById("theme");
  const themes = ["auto", "light", "dark"];
  theme.hidden = false;
  theme.addEventListener("click", () => {
    const next = themes[(themes.indexOf(document.documentElement.dataset.theme || "auto") + 1) % themes.length];
    document.documentElement.dataset.theme = next;
    theme.textContent = words[`theme_${next}`];
  });

  // Commands are copied; where the browser does not allow it, they are marked, so that the keyboard can.
  for (const button of all("button.copy")) {
    const text = button.closest("figure").querySelector("pre");
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        getSelection().selectAllChildren(text);
        if (!document.execCommand("copy")) return;
      }
      button.textContent = words.copied;
    });
  }

  // Sorting. What has no figure comes last in both directions; NaN and inf are above every figure.
  const key = (cell) => {
    const text = cell.textContent.trim();
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    if (text === "-" || text === "") return null;
    if (text === "NaN") return Infinity;
    if (text === "inf") return Number.MAX_VALUE;
    const figure = cell.classList.contains("figure") ? Number(text.replace("%", "")) : NaN;
    return Number.isNaN(figure) ? text : figure;
  };
  const order = new Intl.Collator(undefined, { numeric: true });
  const compare = (a, b) => (typeof a === "number" && typeof b === "number"
    ? (a < b ? -1 : Number(a > b)) : order.compare(String(a), String(b)));
  // Of a long table no more than so many rows are drawn until all are asked for; sorting and filters see them all.
  const most = 500;
  const views = new Map();
  const draw = (table) => {
    const view = views.get(table);
    if (!view) return;
    let found = 0;
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const kept = view.keep(row) && (view.unfolded() || !["ok", "pass"].includes(row.dataset.mark));
      const drawn = kept && (view.all || found < most);
      found += kept;
      shown += drawn;
      if (row.hidden === drawn) row.hidden = !drawn;
    }
    view.count.textContent = say("rows_shown", { shown, total: table.tBodies[0].rows.length });
    view.more.hidden = shown === found;
    view.more.textContent = say("show_all", { count: found });
  };
  const sort = (table, heading, column) => {
    const down = heading.getAttribute("aria-sort") === "descending" ? false
      : heading.getAttribute("aria-sort") === "ascending" ? true : heading.classList.contains("figure");
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row.cells[column]), row]);
    rows.sort(([a], [b]) => (a === null || b === null ? Number(a === null) - Number(b === null)
      : down ? compare(b, a) : compare(a, b)));
    body.replaceChildren(...rows.map(([, row]) => row));
    draw(table);
  };
  for (const table of all("table[data-sort]")) {
    if (table.tBodies[0].rows.length < 2) continue;
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      button.title = say("sort_by", { name: heading.textContent });
      button.addEventListener("click", () => sort(table, heading, column));
      heading.replaceChildren(button);
      heading.setAttribute("aria-sort", "none");
    });
  }

  // Filters. A module is chosen with all that it holds; any other words in that field are looked for in the name.
  const inside = (module, wanted, known) => (known.has(wanted)
    ? module === wanted || module.startsWith(`${wanted}.`) || module.startsWith(`${wanted}#`)
    : module.toLowerCase().includes(wanted.toLowerCase()));
  for (const box of all(".controls")) {
    const table = document.getElementById(box.dataset.for);
    const texts = new Map();
    const known = new Set(all("datalist option", box).map((option) => option.value).concat("(root)"));
    const value = (name) => (box.querySelector(`[data-filter="${name}"]`) || { value: "" }).value;
    const words = (row) => {
      if (!texts.has(row)) texts.set(row, row.textContent.toLowerCase());
      return texts.get(row);
    };
    const fold = box.parentElement.querySelector(".unfold");
    const view = { all: false, count: box.querySelector(".count"), more: box.querySelector(".more"), keep: () => true,
      unfolded: () => !fold || fold.checked };
    views.set(table, view);
    const filter = () => {
      const [text, mark, module] = [value("text").toLowerCase(), value("mark"), value("module")];
      if (fold && (text || mark || module)) fold.checked = true;
      view.keep = (row) => (!mark || row.dataset.mark === mark) && (!text || words(row).includes(text))
        && (!module || inside(row.dataset.module || "", module, known));
      draw(table);
    };
    view.more.addEventListener("click", () => {
      view.all = true;
      draw(table);
    });
    let waiting = 0;
    box.addEventListener("input", () => {
      cancelAnimationFrame(waiting);
      waiting = requestAnimationFrame(filter);
    });
    if (fold) fold.addEventListener("change", () => draw(table));
    box.hidden = false;
    filter();
  }
  for (const link of all("a[data-choose]")) {
    link.addEventListener("click", () => {
      const box = document.querySelector(`.controls[data-for="${link.hash.slice(1)}"]`);
      const field = box && box.querySelector('[data-filter="module"]');
      if (!field) return;
      field.value = link.dataset.choose;
      field.dispatchEvent(new Event("input", { bubbles: true }));
      reveal(box);
    });
  }

  // The tree finds values by their names in the table of values, which has all of them.
  for (const tree of all(".tree")) {
    const [box, list] = [tree.querySelector(".find"), tree.querySelector(".found")];
    const table = document.getElementById(tree.dataset.table);
    const filter = table && document.querySelector(`.controls[data-for="${table.id}"] [data-filter="text"]`);
    if (!filter) continue;
    box.hidden = false;
    box.addEventListener("input", (event) => {
      const wanted = event.target.value.toLowerCase();
      const rows = wanted ? [...table.tBodies[0].rows].filter((row) => row.cells[2].textContent.toLowerCase().includes(wanted)) : [];
      list.replaceChildren(...rows.slice(0, 12).map((row) => {
        const [item, link] = [document.createElement("li"), document.createElement("a")];
        link.href = `#${table.id}`;
        link.textContent = [2, 4, 0, 5].map((column) => row.cells[column].textContent).join("  ·  ");
        link.addEventListener("click", () => {
          filter.value = row.cells[2].textContent;
          filter.dispatchEvent(new Event("input", { bubbles: true }));
          reveal(table);
        });
        item.append(link);
        return item;
      }));
      list.hidden = !wanted;
      if (wanted && rows.length !== list.children.length) list.append(say("rows_shown", { shown: list.children.length, total: rows.length }));
    });
  }

  // A link into closed details opens them.
  const reveal = (target) => {
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  };
  const follow = () => reveal(document.getElementById(location.hash.slice(1)));
  addEventListener("hashchange", follow);
  follow();

  // The chart of error along depth tells what lies under the pointer; the table has the same words.
  for (const figure of all("figure[data-table]")) {
    const [svg, readout] = [figure.querySelector(".scroll svg"), figure.querySelector(".readout")];
    const table = document.getElementById(figure.dataset.table);
    if (!table || !svg) continue;
    const cursor = svg.querySelector(".cursor");
    const headings = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    const rows = [...table.tBodies[0].rows].filter((row) => Number(row.dataset.depth) >= 0)
      .sort((a, b) => a.dataset.depth - b.dataset.depth);
    const depths = rows.map((row) => Number(row.dataset.depth));
    const [low, high, start, end] = ["low", "high", "start", "end"].map((name) => Number(svg.dataset[name]));
    readout.hidden = false;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const depth = low + (x - start) / (end - start) * (high - low);
      let [left, right] = [0, depths.length - 1];
      while (right - left > 1) {
        const middle = (left + right) >> 1;
        if (depths[middle] < depth) left = middle; else right = middle;
      }
      const nearest = Math.abs(depths[left] - depth) <= Math.abs(depths[right] - depth) ? left : right;
      if (nearest < 0) return;
      const cells = [...rows[nearest].cells].map((cell) => cell.textContent);
      const figures = cells.map((text, i) => [headings[i], text]).slice(5, 10).filter(([, text]) => text !== "-");
      readout.textContent = [say("readout", { depth: depths[nearest] }), cells[0], ...cells.slice(2, 5),
        ...figures.map(([name, text]) => `${name} ${text}`)].join("  ·  ");
      cursor.setAttribute("transform", `translate(${start + (depths[nearest] - low) / (high - low) * (end - start) - start} 0)`);
      cursor.style.visibility = "visible";
    });
  }

  // Two pictures, one over the other, with a boundary that the slider moves.
  for (const block of all(".case")) {
    const reference = block.querySelector('[data-role="reference"] img');
    const engines = all('[data-role="engine"]', block).filter((figure) => figure.querySelector("img"));
    if (!reference || !engines.length) continue;
    const make = (tag, name, parent) => {
      const made = document.createElement(tag);
      if (name) made.className = name;
      parent.append(made);
      return made;
    };
    const details = make("details", "compare", block);
    make("summary", "", details).textContent = words.compare;
    const label = make("label", "", details);
    label.append(`${words.engine} `);
    const choice = make("select", "", label);
    engines.forEach((figure, i) => choice.add(new Option(figure.closest(".set").dataset.name || figure.querySelector("figcaption").textContent, i)));
    const stack = make("div", "stack", details);
    const under = make("img", "under", stack);
    const over = make("img", "over", stack);
    make("div", "edge", stack);
    over.src = reference.src;
    over.alt = reference.alt;
    const slider = make("input", "", details);
    Object.assign(slider, { type: "range", min: 0, max: 100, value: 50 });
    slider.setAttribute("aria-label", words.compare_slider);
    const show = () => {
      const image = engines[choice.value].querySelector("img");
      under.src = image.src;
      under.alt = image.alt;
    };
    choice.addEventListener("change", show);
    slider.addEventListener("input", () => stack.style.setProperty("--cut", `${slider.value}%`));
    show();
  }

  // Printed, all details are open but those that are too long.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open]):not(.long):not(.compare)");
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
