// Everything about one node, and the way to it.
function goTo(i) { choose(i); $("tree").focus(); } // what was pressed is drawn anew: the keys go on in the tree
function link(i) { const e = make("button", "link", "#" + i); e.onclick = () => goTo(i); return e; }

function reason(i) {
  const name = data.statuses[status[i]], when = a.died[i] >= 0 ? ` in round ${a.died[i]}` : "";
  if (hasPassed(i)) return "passed the threshold" + when;
  if (name === "leaf_dead") return `dead${when}: provably worth 0`;
  if (name === "pruned") return `pruned by the ${a.gate[i] ? data.gates[a.gate[i]] + " gate" : "search"}${when}`;
  if (name === "merged") return `merged${when}: the same state as another node`;
  if (name === "expanded" && isOver(i)) return "expanded; its ends: " + ENDS.filter(([bit]) => fate[i] & bit).map((e) => e[1]).join(", ");
  return WORDS[name];
}

function detail(i) {
  const out = $("node");
  out.replaceChildren(make("h2", "", `Node ${i}`));
  const p = make("p", "why " + kind(i), `${sign(i)} ${reason(i)}`);
  if (winner.has(i)) p.append(" ", link(winner.get(i)));
  out.append(p, facts(i), siblings(i));
  out.append(make("h2", "", "Its tokens, the unlikely ones shaded"));
  const heat = make("div", "text");
  for (let t = a.start[i]; t < a.stop[i]; t++) {
    const nats = a.nats[t] / data.natSteps, e = make("span", "", lines(data.pieces[a.tokens[t]]));
    if (a.parent[i] >= 0) { e.style.background = `rgb(255 110 60 / ${Math.min(nats / 6, 1) * 0.75})`; e.title = `p = ${Math.exp(-nats).toPrecision(2)}`; }
    heat.append(e);
  }
  out.append(heat, make("h2", "", "The whole text"));
  const whole = make("div", "text");
  for (const s of path(i)) { const e = make("a", s === i ? kind(i) : a.parent[s] < 0 ? "quiet" : "", lines(text(s))); e.onclick = () => choose(s); whole.append(e); }
  out.append(whole);
}

function facts(i) {
  const list = make("dl"), flags = Object.entries(data.flags).filter(([, bit]) => a.flags[i] & bit).map(([name]) => name);
  const known = [["value", share(a.value[i])], ["connectivity", share(a.connectivity[i])], ["score", share(a.score[i])],
    [data.mass, a.parent[i] < 0 || Number.isNaN(a.mass[i]) ? "" : a.mass[i].toFixed(2)], ["draws", figure(a.count[i])], ["tokens", figure(a.stop[i] - a.start[i])],
    ["tokens below", size[i] > 1 ? figure(tokens[i]) : ""], ["nodes below", size[i] > 1 ? figure(size[i] - 1) : ""], ["best below", size[i] > 1 ? share(bestBelow[i]) : ""],
    ["born in round", a.born[i]], ["flags", flags.join(", ")]];
  for (const [name, said] of known) if (said !== "") list.append(make("dt", "", name), make("dd", "", said));
  return list;
}

function siblings(i) {
  const up = a.parent[i], p = make("p", "quiet");
  if (up < 0) return p;
  p.append("below ", link(up));
  const others = [...child.subarray(offset[up], offset[up + 1])].filter((s) => s !== i && isThere(s) && !Number.isNaN(worth[s]));
  if (others.length && !Number.isNaN(worth[i])) p.append(`, better than ${others.filter((s) => worth[s] < worth[i]).length} of ${others.length} siblings`);
  return p;
}

// The steps from the prompt to a node, as a row of buttons.
const MOST_STEPS = 9;
function way(i) {
  const steps = path(i), out = $("way"), cut = steps.length > MOST_STEPS;
  out.classList.toggle("won", hasPassed(i));
  out.replaceChildren();
  for (const s of cut ? [...steps.slice(0, 3), -1, ...steps.slice(4 - MOST_STEPS)] : steps) {
    if (out.childNodes.length) out.append("→");
    if (s < 0) { out.append(`… ${steps.length - MOST_STEPS + 1} more`); continue; }
    const e = make("button", "step", text(s).slice(0, 120));
    e.onclick = () => goTo(s);
    out.append(e);
  }
}
