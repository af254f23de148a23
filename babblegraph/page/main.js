// Buttons, keys, the round, and where the address leads.
let only = "";
const ORDER = ["passed", "leaf_dead", "pruned", "merged", "leaf_end", "leaf_stop", "leaf_length", "frontier", "expanded", "stem"];

function kinds() {
  const counts = {};
  for (let i = 0; i < N; i++) if (isThere(i)) counts[kind(i)] = (counts[kind(i)] || 0) + 1;
  const chips = ORDER.filter((k) => counts[k] || k === only).map((k) => {
    const e = make("button", "kind"), name = k === "passed" ? "passed" : WORDS[k];
    e.append(make("span", k, (k === "passed" ? "★" : SIGNS[k]) + " "), make("b", "", figure(counts[k] || 0)), " " + (k.startsWith("leaf_") && k !== "leaf_dead" && data.threshold !== null ? name + ", failed" : name));
    e.dataset.kind = k;
    e.setAttribute("aria-pressed", String(k === only));
    e.onclick = () => { only = only === k ? "" : k; said(filter()); kinds(); };
    return e;
  });
  const focused = document.activeElement.dataset.kind; // of a keyboard, which goes on from there
  $("kinds").replaceChildren(...chips);
  chips.find((e) => e.dataset.kind === focused)?.focus();
}

function verdict() {
  const passed = a.passed.reduce((s, x) => s + x, 0), out = $("verdict"), score = best < 0 ? "" : share(a.score[best]);
  const solved = new Set(); for (let i = 0; i < N; i++) if (a.passed[i]) solved.add(path(i)[0]);
  const head = roots.length > 1 && data.threshold !== null ? `★ ${solved.size} of ${roots.length} prompts passed`
    : passed ? `★ passed with score ${score}` : best < 0 ? "no leaf is finished" : data.threshold === null ? `◆ best score ${score}` : `no leaf passes, the best has ${+a.score[best].toPrecision(3) < data.threshold ? score : a.score[best]}`;
  out.replaceChildren(make("b", passed ? "passed" : data.threshold === null ? "" : "leaf_dead", head));
  const costs = [data.sampled !== null && [figure(data.sampled), `${data.budget ? "of " + figure(data.budget) + " " : ""}tokens`],
    [figure(N - roots.length), "nodes"], [figure(data.rounds), "rounds"], data.seconds && [data.seconds.toFixed(1), "s"]];
  for (const [n, unit] of costs.filter(Boolean)) { const e = make("span"); e.append(make("b", "", n), " " + unit); out.append(e); }
}

function said(n) {
  $("foot").textContent = (kept ? `${figure(n)} found   —   ` : "") +
    "arrows move and fold · / search · b best · n next found · [ ] rounds · click a box above to go there, twice to zoom";
}

function setRound(number) {
  goToRound(Math.min(Math.max(number, 0), data.rounds));
  $("round").value = round;
  $("when").textContent = `round ${round} of ${data.rounds}`;
  kinds();
  let i = chosen;
  while (!isThere(i)) i = a.parent[i];
  if (kept) said(filter()); else layout();
  if (!kept || kept[i] || !isThere(chosen)) choose(i, false);
}
let playing = 0;
function play() {
  if (playing) { clearInterval(playing); playing = 0; $("play").textContent = "▶"; return; }
  if (round >= data.rounds) setRound(0);
  const stride = Math.max(Math.round(data.rounds / 120), 1);
  $("play").textContent = "❚❚";
  playing = setInterval(() => { setRound(round + stride); if (round >= data.rounds) play(); }, Math.min(Math.max(12000 / Math.max(data.rounds, 1), 100), 500));
}

const actions = {
  ArrowDown: (r) => choose(rows[Math.min(r + 1, rows.length - 1)], false),
  ArrowUp: (r) => choose(rows[Math.max(r - 1, 0)], false),
  PageDown: (r) => choose(rows[Math.min(r + 20, rows.length - 1)], false),
  PageUp: (r) => choose(rows[Math.max(r - 20, 0)], false),
  Home: () => choose(rows[0], false),
  End: () => choose(rows[rows.length - 1], false),
  ArrowRight: (r) => { const i = rows[r]; if (size[i] < 2) return; if (!isOpen[i]) { isOpen[i] = 1; layout(); } else if (r + 1 < rows.length && a.parent[rows[r + 1]] === i) choose(rows[r + 1], false); },
  ArrowLeft: (r) => { const i = rows[r]; if (isOpen[i] && size[i] > 1) { isOpen[i] = 0; layout(); } else if (a.parent[i] >= 0) choose(a.parent[i], false); },
  Enter: (r) => { isOpen[rows[r]] ^= 1; layout(); },
  b: () => best >= 0 && (setRound(data.rounds), choose(best)),
  n: () => { const all = inOrder(() => true), r = all.indexOf(chosen); for (let k = 1; found && k <= all.length; k++) { const i = all[(r + k) % all.length]; if (found[i]) return choose(i); } },
  "/": () => $("search").focus(),
  "[": () => setRound(round - 1),
  "]": () => setRound(round + 1),
};
$("tree").addEventListener("keydown", (e) => {
  if (e.ctrlKey || e.metaKey || e.altKey || !actions[e.key]) return;
  e.preventDefault();
  if (!rows.length && e.key.length > 1) return; // a filter left no line to go to or to fold
  actions[e.key](Math.max(rows.indexOf(chosen), 0));
});
$("tree").addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
addEventListener("resize", () => requestAnimationFrame(() => { draw(); drawMap(); }));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
$("rows").addEventListener("click", (e) => {
  const row = e.target.closest(".row");
  if (!row) return;
  const i = +row.dataset.node;
  if (e.target.classList.contains("fold")) { isOpen[i] ^= 1; layout(); }
  choose(i, false);
  $("tree").focus();
});
$("rows").addEventListener("dblclick", (e) => { const row = e.target.closest(".row"); if (row && !e.target.classList.contains("fold")) { isOpen[+row.dataset.node] ^= 1; layout(); } });
let typing = 0;
for (const id of ["search", "least"]) $(id).addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(() => said(filter()), 120); });
$("search").addEventListener("keydown", (e) => { if (e.key === "Enter" || e.key === "Escape") { if (e.key === "Escape") { $("search").value = ""; said(filter()); } $("tree").focus(); } });
$("open").onclick = () => { isOpen.fill(1); layout(); };
$("close").onclick = () => { isOpen.fill(0); layout(); if (rows.length) choose(rows[0], false); };
$("round").oninput = () => setRound(+$("round").value);
$("play").onclick = play;
$("theme").onclick = () => {
  const dark = document.documentElement.style.colorScheme ? document.documentElement.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.style.colorScheme = dark ? "light" : "dark";
  drawMap();
};

$("title").textContent = document.title.replace(/^babblegraph · /, "");
$("round").max = data.rounds;
$("time").hidden = data.rounds < 1;
for (const r of roots.slice(0, 1)) isOpen[r] = 1;
verdict();
kinds();

// "#node=7" opens a node, "#search=text" searches, "#round=9" goes back: so that others can be sent to a place.
function fromAddress() {
  const wish = new URLSearchParams(location.hash.slice(1));
  setRound(wish.has("round") ? parseInt(wish.get("round"), 10) || 0 : data.rounds);
  if (wish.has("search")) { $("search").value = wish.get("search"); said(filter()); }
  if (wish.has("open")) $("open").click();
  const i = parseInt(wish.get("node"), 10);
  if (i >= 0 && i < N && isThere(i)) choose(i); else if (!wish.has("search")) choose(chosen);
}
addEventListener("hashchange", fromAddress);
said(0);
fromAddress();
if (self === top) $("tree").focus({ preventScroll: true }); // in a notebook the keys stay with its cells
document.documentElement.dataset.ready = Math.round(performance.now() - began);
document.documentElement.dataset.rows = rows.length;
