// The whole forest at once: every node as wide as the tokens that the search spent below it, by depth from top to bottom.
const left = new Float64Array(N), wide = new Float64Array(N);
let deepest = 1, zoom = -1; // the node that fills the map; none for all
{
  const weight = (i) => tokens[i] + size[i] * 1e-6; // nodes without tokens have a place too
  const total = roots.reduce((sum, r) => sum + weight(r), 0);
  let at = 0;
  for (const r of roots) { left[r] = at; wide[r] = weight(r) / total; at += wide[r]; }
  for (let i = 0; i < N; i++) {
    deepest = Math.max(deepest, depth[i] + 1);
    let x = left[i];
    for (let c = offset[i]; c < offset[i + 1]; c++) { const k = child[c]; left[k] = x; wide[k] = (wide[i] * weight(k)) / weight(i); x += wide[k]; }
  }
}
const LABEL = 56; // pixels from which on a box has room for its text
const canvas = $("map"), pen = canvas.getContext("2d");
const view = () => (zoom < 0 ? { from: 0, span: 1, top: 0 } : { from: left[zoom], span: wide[zoom], top: depth[zoom] });

function colours() {
  const probe = make("span");
  document.body.append(probe);
  const of = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color; };
  const found = { passed: of("green"), leaf_end: of("yellow"), leaf_stop: of("yellow"), leaf_length: of("yellow"), leaf_dead: of("red"), pruned: of("magenta"),
    merged: of("cyan"), frontier: of("cyan"), stem: of("quiet"), expanded: of("open"), over: of("over"), chosen: of("fg"), ground: of("bg"), best: of("green") };
  probe.remove();
  return found;
}

function drawMap() {
  const ratio = devicePixelRatio || 1, W = canvas.clientWidth, H = canvas.clientHeight;
  if (!W) return;
  if (canvas.width !== Math.round(W * ratio) || canvas.height !== Math.round(H * ratio)) { canvas.width = Math.round(W * ratio); canvas.height = Math.round(H * ratio); }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, W, H);
  const paint = colours(), { from, span, top } = view(), tall = H / Math.max(deepest - top, 1), edge = tall > 5 ? 1 : 0;
  const last = new Float64Array(deepest).fill(-1); // by depth, the right end of what is drawn: the rest of a pixel is left out
  const box = (i, colour, least) => {
    const x = ((left[i] - from) / span) * W, w = (wide[i] / span) * W, y = (depth[i] - top) * tall;
    pen.fillStyle = colour;
    pen.fillRect(x, y, Math.max(w - (w > 3 ? 1 : 0), least), tall - edge);
    return x + w;
  };
  const labels = [], stack = zoom < 0 ? roots.slice().reverse() : [zoom];
  while (stack.length) {
    const i = stack.pop(), x = ((left[i] - from) / span) * W, w = (wide[i] / span) * W;
    if (!isThere(i) || x + w < last[depth[i]] + 0.5) continue;
    pen.globalAlpha = status[i] === S.leaf_dead || status[i] === S.merged ? 0.6 : 1;
    last[depth[i]] = box(i, paint[status[i] === S.expanded ? (isOver(i) ? "over" : "expanded") : kind(i)], 0.5);
    if (w > LABEL && tall > 15) labels.push(i);
    for (let c = offset[i + 1] - 1; c >= offset[i]; c--) stack.push(child[c]);
  }
  for (const i of onBest) if (isThere(i)) { pen.globalAlpha = i === best ? 1 : 0.55; box(i, paint.best, 3); }
  pen.globalAlpha = 1;
  pen.font = `11px ${getComputedStyle(document.documentElement).getPropertyValue("--mono")}`;
  pen.textBaseline = "middle";
  for (const i of labels) {
    pen.fillStyle = status[i] === S.expanded || onBest.has(i) ? paint.chosen : paint.ground;
    const x = Math.max(((left[i] - from) / span) * W, 0), letters = Math.floor((Math.min((wide[i] / span) * W, W) - 12) / 6.7), said = text(i).slice(0, 200);
    pen.fillText([...said].length > letters ? [...said].slice(0, letters - 1).join("") + "…" : said, x + 6, (depth[i] - top + 0.5) * tall);
  }
  const x = ((left[chosen] - from) / span) * W, w = Math.max((wide[chosen] / span) * W, 4);
  pen.strokeStyle = paint.chosen;
  pen.lineWidth = 2;
  if (isThere(chosen)) pen.strokeRect(Math.max(x - 1, 1), (depth[chosen] - top) * tall + 1, Math.min(w, W - 2), Math.max(tall - 2 - edge, 2));
}

// The node at a place of the map, the deepest one that is there.
function under(event) {
  const area = canvas.getBoundingClientRect(), { from, span, top } = view();
  const x = from + ((event.clientX - area.left) / area.width) * span, d = top + Math.floor(((event.clientY - area.top) / area.height) * (deepest - top));
  let i = zoom < 0 ? roots.findLast((r) => left[r] <= x) : zoom;
  while (i !== undefined && depth[i] < d) {
    let low = offset[i], high = offset[i + 1] - 1;
    if (high < low) return -1;
    while (low < high) { const mid = (low + high + 1) >> 1; if (left[child[mid]] <= x) low = mid; else high = mid - 1; }
    i = child[low];
  }
  return i !== undefined && isThere(i) && x <= left[i] + wide[i] ? i : -1;
}

function tip(event) {
  const i = under(event), e = $("tip"), area = $("overview").getBoundingClientRect();
  e.hidden = i < 0;
  if (i < 0) return;
  const [word] = what(i);
  e.textContent = `${sign(i)} ${text(i).slice(0, 160)}\n${[word, share(worth[i]), figure(tokens[i]) + " tokens", "#" + i].filter(Boolean).join(" · ")}`;
  const x = event.clientX - area.left, y = event.clientY - area.top;
  e.style.left = Math.max(Math.min(x + 12, area.width - e.offsetWidth - 8), 4) + "px";
  e.style.top = y + 16 + "px";
}
canvas.addEventListener("mousemove", tip);
canvas.addEventListener("mouseleave", () => { $("tip").hidden = true; });
canvas.addEventListener("click", (e) => { const i = under(e); if (i >= 0) choose(i); });
canvas.addEventListener("dblclick", (e) => { const i = under(e); zoom = i === zoom || i < 0 || a.parent[i] < 0 ? -1 : i; drawMap(); });
