"use strict";
// The graph: arrays by node, and what follows from them.
const began = performance.now();
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const TYPES = { int32: Int32Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, float32: Float32Array };
const a = {};
function unpacked(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const s = atob(text), bytes = new Uint8Array(s.length);
  for (let i = 0; i < s.length; i++) bytes[i] = s.charCodeAt(i);
  return bytes;
}
for (const [name, [type, text]] of Object.entries(data.arrays)) a[name] = new TYPES[type](unpacked(text).buffer);
$("data").remove();
const N = a.parent.length;
const S = Object.fromEntries(data.statuses.map((name, i) => [name, i]));
const SIGNS = { frontier: "○", expanded: "●", leaf_end: "◆", leaf_stop: "◆", leaf_length: "◇", leaf_dead: "✗", pruned: "⊘", merged: "⇢", stem: "≈" };
const WORDS = { frontier: "live", expanded: "expanded", leaf_end: "finished", leaf_stop: "finished", leaf_length: "out of room", leaf_dead: "dead", pruned: "pruned", merged: "merged", stem: "held back" };
const winner = new Map();
for (let i = 0; i < a.merges.length; i += 2) winner.set(a.merges[i], a.merges[i + 1]);

// Children as one array with offsets. Ids rise from parents to children.
const offset = new Int32Array(N + 1), child = new Int32Array(N), depth = new Int32Array(N);
for (let i = 0; i < N; i++) {
  depth[i] = a.parent[i] < 0 ? 0 : depth[a.parent[i]] + 1;
  if (a.parent[i] >= 0) offset[a.parent[i] + 1]++;
}
for (let i = 0; i < N; i++) offset[i + 1] += offset[i];
const fill = offset.slice();
for (let i = 0; i < N; i++) if (a.parent[i] >= 0) child[fill[a.parent[i]]++] = i;
const roots = [];
for (let i = 0; i < N && a.parent[i] < 0; i++) roots.push(i);
const path = (i) => { const found = []; for (; i >= 0; i = a.parent[i]) found.push(i); return found.reverse(); };
const best = data.best;
const onBest = new Set(best < 0 ? [] : path(best));

// The search at another time, as `history.at_round` tells it: what was born later is not there, what was stopped later
// is live. A node is expanded once it has children with tokens: a stem below it is there before.
let round = data.rounds;
const hasTokens = (i) => a.stop[i] > a.start[i];
const isExpanded = new Uint8Array(N); // at the end
for (let i = 0; i < N; i++) if (a.parent[i] >= 0 && hasTokens(i)) isExpanded[a.parent[i]] = 1;
const status = new Uint8Array(N), fate = new Uint8Array(N); // how a node stands, how the ends below it stand
const size = new Int32Array(N), tokens = new Float64Array(N), worth = new Float32Array(N), bestBelow = new Float32Array(N);
const OPEN = 1, FAILED = 2, DEAD = 4, PRUNED = 8, MERGED = 16;
const isThere = (i) => a.born[i] <= round || a.parent[i] < 0;
const hasPassed = (i) => a.passed[i] === 1;
function goToRound(number) {
  round = number;
  const isInner = new Uint8Array(N), grew = new Uint8Array(N);
  for (let i = 0; i < N; i++) if (a.parent[i] >= 0 && isThere(i)) { isInner[a.parent[i]] = 1; if (hasTokens(i)) grew[a.parent[i]] = 1; }
  fate.fill(0); size.fill(0); tokens.fill(0); bestBelow.fill(NaN);
  for (let i = N - 1; i >= 0; i--) {
    if (!isThere(i)) continue;
    let s = a.status[i];
    const later = a.died[i] > round && (s === S.leaf_dead || s === S.pruned || s === S.merged);
    if (later || (s === S.expanded && !grew[i] && isExpanded[i]))
      s = grew[i] ? S.expanded : hasTokens(i) || a.parent[i] < 0 ? S.frontier : S.stem;
    status[i] = s;
    worth[i] = Number.isNaN(a.score[i]) || (later && a.status[i] === S.leaf_dead) ? a.value[i] : a.score[i];
    if (!(s === S.expanded && isInner[i]))
      fate[i] |= s === S.leaf_dead ? DEAD : s === S.pruned ? PRUNED : s === S.merged ? MERGED
        : s >= S.leaf_end && s < S.leaf_dead && data.threshold !== null && !hasPassed(i) ? FAILED : OPEN;
    size[i] += 1;
    if (!(bestBelow[i] >= worth[i]) && !Number.isNaN(worth[i])) bestBelow[i] = worth[i];
    const up = a.parent[i];
    if (up < 0) continue;
    tokens[i] += a.stop[i] - a.start[i];
    size[up] += size[i];
    tokens[up] += tokens[i];
    fate[up] |= fate[i];
    if (!(bestBelow[up] >= bestBelow[i]) && !Number.isNaN(bestBelow[i])) bestBelow[up] = bestBelow[i];
  }
}
goToRound(round);

const text = (i) => {
  const own = data.texts[i];
  if (own !== undefined) return own;
  let s = "";
  for (let t = a.start[i]; t < a.stop[i]; t++) s += data.pieces[a.tokens[t]];
  return s;
};
const lines = (s) => s.replaceAll("⏎", "⏎\n");
const share = (x) => (Number.isNaN(x) ? "" : x.toFixed(2));
const shade = (x) => (Number.isNaN(x) ? "" : x >= 2 / 3 ? "hi" : x >= 1 / 3 ? "mid" : "");
const figure = (n) => n.toLocaleString("en-US");
const kind = (i) => (hasPassed(i) ? "passed" : data.statuses[status[i]]);
const sign = (i) => (hasPassed(i) ? "★" : SIGNS[data.statuses[status[i]]]);
const isOver = (i) => !(fate[i] & OPEN);
const ENDS = [[DEAD, "dead", "leaf_dead"], [PRUNED, "pruned", "pruned"], [FAILED, "failed", "leaf_end"], [MERGED, "merged", "merged"]];
// What became of a node in few words, and the class that colours them.
function what(i) {
  const name = data.statuses[status[i]];
  if (hasPassed(i)) return ["passed", "passed"];
  if (status[i] === S.merged && winner.has(i)) return ["→ #" + winner.get(i), "merged"];
  if (status[i] === S.pruned && a.gate[i]) return [data.gates[a.gate[i]] + " gate", "pruned"];
  if (status[i] === S.expanded) {
    const ends = isOver(i) ? ENDS.filter(([bit]) => fate[i] & bit) : [];
    return [ends.length > 2 ? "all stopped" : ends.length === 1 ? "all " + ends[0][1] : ends.map((e) => e[1]).join(", "), ends.length ? ends[0][2] : ""];
  }
  if (status[i] === S.frontier) return [round < data.rounds && a.born[i] === round ? "new" : "", "frontier"];
  if ((status[i] === S.leaf_end || status[i] === S.leaf_stop) && data.threshold !== null) return ["failed", name];
  return [WORDS[name], name];
}
