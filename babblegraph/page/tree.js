// The tree as lines, of which only those on the screen are there.
const ROW = 22, INDENT = 18, DEEPEST = 40;
let rows = new Int32Array(0), chosen = best < 0 ? 0 : best, kept = null, found = null;
const isOpen = new Uint8Array(N);

function inOrder(goesInto) {
  const out = [], stack = roots.slice().reverse();
  while (stack.length) {
    const i = stack.pop();
    if (!isThere(i) || (kept && !kept[i])) continue;
    out.push(i);
    if (goesInto(i)) for (let c = offset[i + 1] - 1; c >= offset[i]; c--) stack.push(child[c]);
  }
  return Int32Array.from(out);
}

function layout() {
  rows = inOrder((i) => isOpen[i]);
  $("rows").style.height = rows.length * ROW + "px";
  draw();
}

function make(tag, kind, said) {
  const e = document.createElement(tag);
  if (kind) e.className = kind;
  if (said !== undefined) e.textContent = said; // never as HTML: generated text is untrusted
  return e;
}

function draw() {
  const box = $("tree"), first = Math.max(Math.floor(box.scrollTop / ROW) - 8, 0);
  const last = Math.min(first + Math.ceil(box.clientHeight / ROW) + 16, rows.length), part = document.createDocumentFragment();
  for (let r = first; r < last; r++) part.append(line(rows[r], r));
  $("rows").replaceChildren(part);
}

function line(i, r) {
  const names = ["row", i === chosen && "chosen", onBest.has(i) && "best", isOver(i) && "over", found && found[i] && "found"];
  const row = make("div", names.filter(Boolean).join(" ")), inside = Math.min(depth[i], DEEPEST) * INDENT, [word, colour] = what(i);
  row.style.cssText = `top:${r * ROW}px;padding-left:${8 + inside}px;--in:${inside}px`;
  row.dataset.node = i;
  row.setAttribute("role", "treeitem");
  row.setAttribute("aria-level", depth[i] + 1);
  row.setAttribute("aria-selected", String(i === chosen));
  if (size[i] > 1) row.setAttribute("aria-expanded", String(!!isOpen[i]));
  row.append(make("span", "fold", size[i] > 1 ? (isOpen[i] ? "▾" : "▸") : ""), make("span", kind(i), sign(i) + " "), make("span", "said", text(i).slice(0, 400)));
  const more = size[i] > 1 && !isOpen[i] ? `${figure(size[i] - 1)} below` + (Number.isNaN(bestBelow[i]) || isOver(i) ? "" : `, best ${share(bestBelow[i])}`) : "";
  const value = make("span", "val " + (isOver(i) ? "" : shade(worth[i])), share(worth[i]));
  if (worth[i] > 0) { const bar = make("i"); bar.style.setProperty("--v", Math.min(worth[i], 1)); value.append(bar); }
  row.append(make("span", "below", more), make("span", "what " + colour, word), value, make("span", "id", "#" + i));
  return row;
}

function choose(i, open = true) {
  chosen = i;
  if (open) { for (const p of path(i).slice(0, -1)) isOpen[p] = 1; layout(); }
  const r = rows.indexOf(i), box = $("tree");
  if (r >= 0 && (r * ROW < box.scrollTop || (r + 2) * ROW > box.scrollTop + box.clientHeight))
    box.scrollTop = Math.max(r * ROW - box.clientHeight / 3, 0);
  draw();
  detail(i);
  way(i);
  drawMap();
}

function filter() {
  const q = $("search").value.toLowerCase(), wish = only, least = Math.fround(parseFloat($("least").value)); // in the 32 bits of the values: else 0.9 were not at least 0.9
  if (!q && !wish && Number.isNaN(least)) { kept = found = null; layout(); return 0; }
  kept = new Uint8Array(N); found = new Uint8Array(N);
  let n = 0, first = -1;
  for (let i = 0; i < N; i++) {
    if (!isThere(i) || (wish && kind(i) !== wish) || (!Number.isNaN(least) && !(worth[i] >= least))) continue;
    if (q && !text(i).toLowerCase().includes(q)) continue;
    found[i] = 1; n++;
    if (first < 0) first = i;
    for (let up = i; up >= 0 && !kept[up]; up = a.parent[up]) { kept[up] = 1; if (up !== i) isOpen[up] = 1; }
    for (let up = a.parent[i]; up >= 0 && !isOpen[up]; up = a.parent[up]) isOpen[up] = 1;
  }
  layout();
  if (first >= 0) choose(first, false);
  return n;
}
