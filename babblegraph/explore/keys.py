"""The keys of the explorer, and the page that explains them."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

from babblegraph.view.signs import QUIET, TITLE

KEYS = (
    ("↑ ↓  k j", "the line above, below"),
    ("← →  h l", "fold or go to the parent, unfold or go to the first child"),
    ("enter", "fold or unfold"),
    ("PgUp PgDn", "a screen up, down"),
    ("home end", "the first line, the last"),
    ("o  c", "unfold all below the node, fold everything"),
    ("b", "the best leaf"),
    ("e  E", "the next elite, the one before"),
    ("w", "the worst wrong kill: what should least have been pruned"),
    ("u", "the best live node that was never expanded"),
    ("p", "the node that stands for a merged one, else the parent"),
    ("space  m", "mark or unmark the node, go to the next mark"),
    ("/", "search the texts; an empty search ends it"),
    ("n  N", "the next node that was found, the one before"),
    ("f  g", "show one status only, one gate only; again for the next"),
    ("<  >", "show smaller, only larger values"),
    ("s", "sort siblings by age, value, best or tokens below, probability"),
    ("esc", "show everything again"),
    ("[  ]", "the search a round earlier, a round later"),
    ("{  }", "before the first round, after the last one"),
    ("r", "play the search again, pause"),
    ("a", "what can be done with the node; the right mouse button too"),
    ("y", "copy the node's whole text"),
    ("tab", "the whole text, to scroll; again to come back"),
    ("?  q", "this help, quit"),
)

# The arrows and those beside them belong to the tree; see `TreeView`.
BINDINGS: list[BindingType] = [
    Binding("j", "move(1)"),
    Binding("k", "move(-1)"),
    Binding("l", "unfold"),
    Binding("h", "fold"),
    Binding("enter", "toggle"),
    Binding("o", "open_below"),
    Binding("c", "close_all"),
    Binding("b", "best"),
    Binding("e", "elite(1)"),
    Binding("E", "elite(-1)"),
    Binding("w", "worst_kill"),
    Binding("u", "unexplored"),
    Binding("p", "parent"),
    Binding("space", "mark"),
    Binding("m", "next_mark"),
    Binding("slash", "search"),
    Binding("n", "found(1)"),
    Binding("N", "found(-1)"),
    Binding("f", "status_filter"),
    Binding("g", "gate_filter"),
    Binding("greater_than_sign", "least(0.1)"),
    Binding("less_than_sign", "least(-0.1)"),
    Binding("s", "sort"),
    Binding("escape", "show_all"),
    Binding("left_square_bracket", "step(-1)"),
    Binding("right_square_bracket", "step(1)"),
    Binding("left_curly_bracket", "first_round"),
    Binding("right_curly_bracket", "last_round"),
    Binding("r", "play"),
    Binding("a", "menu"),
    Binding("y", "copy"),
    Binding("tab", "other_side", priority=True),
    Binding("question_mark", "help"),
    Binding("q", "quit"),
]


class Help(ModalScreen[None]):
    """The keys, until another one is pressed."""

    CSS = """
    Help { align: center middle; }
    #help { width: 80; max-width: 100%; height: auto; max-height: 100%; border: solid gray; padding: 0 1; }
    """

    def compose(self) -> ComposeResult:
        """One line a key."""
        text = Text()
        for key, said in KEYS:
            text.append(f"{key:<11}", TITLE).append(f"{said}\n")
        text.append("\nthe mouse: click, twice or on ▸ to fold, right button for the menu\n", QUIET)
        with VerticalScroll(id="help"):
            yield Static(text.append("the arrows scroll, any other key closes this", QUIET), markup=False)

    def on_key(self, event: events.Key) -> None:
        """Any key closes it, but for those that scroll."""
        if event.key not in ("up", "down", "pageup", "pagedown", "home", "end"):
            self.dismiss()

    def on_click(self) -> None:
        """So does the mouse."""
        self.dismiss()
