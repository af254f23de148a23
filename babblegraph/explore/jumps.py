"""Going to nodes that matter, and to other rounds, in the explorer."""

from __future__ import annotations

from babblegraph.explore.filters import Filters
from babblegraph.explore.lines import Lines
from babblegraph.explore.outline import next_of
from babblegraph.explore.rounds import Rounds
from babblegraph.view.promise import best_leaf


class Jumps(Filters):
    """The part of the explorer that goes to elites, wrong kills, marks, and what was born in a round."""

    lines: Lines
    rounds: Rounds

    def action_best(self) -> None:
        """The best leaf of the tree that the chosen node is in."""
        self.go(
            best_leaf(self.graph, int(self.graph.root[self.pane.node])), "no leaf is finished in this tree"
        )

    def action_elite(self, by: int) -> None:
        """The next leaf that passes, or the one before."""
        self.go(next_of(self.outline.elites()[:: 1 if by > 0 else -1], self.pane.node), "no leaf passes")

    def action_worst_kill(self) -> None:
        """What should least have been pruned."""
        self.go(self.outline.worst_kill(), "nothing was pruned")

    def action_unexplored(self) -> None:
        """The best live node."""
        self.go(self.outline.best_unexplored(), "no node is live and unexplored")

    def action_parent(self) -> None:
        """The winner of a merged node, else the parent."""
        node = self.pane.node
        up = self.lines.winners.get(node, int(self.graph.parent[node]))
        self.go(up if up >= 0 else None, "a prompt has no parent")

    def action_mark(self) -> None:
        """Marks the node, or takes its mark away."""
        node, marked = self.pane.node, self.outline.marked
        if node in marked:
            marked.remove(node)
        else:
            marked.append(node)
        self.pane.lay_out(node)

    def action_next_mark(self) -> None:
        """The next marked node, in the order in which they were marked."""
        there = [node for node in self.outline.marked if node < self.graph.size]
        self.go(next_of(there, self.pane.node), "nothing is marked: space marks")

    def action_step(self, by: int) -> None:
        """A round later or earlier."""
        self.rounds.go(self.rounds.number + by)

    def action_first_round(self) -> None:
        """Before the first round."""
        self.rounds.go(0)

    def action_last_round(self) -> None:
        """The search as it ended."""
        self.rounds.go(self.rounds.last)

    def action_play(self) -> None:
        """Plays the search again, or pauses it."""
        self.rounds.play()

    def action_birth(self) -> None:
        """The round in which the node was born."""
        self.rounds.go(int(self.graph.born[self.pane.node]), self.pane.node)
