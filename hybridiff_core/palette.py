"""The colours of a run: the live view (web/palette.js has the same), the report's figure.

Told apart without seeing colours by brightness and pattern: blue, orange and green of Okabe and Ito.
"""

INK, FAINT, PANEL, REASON = "#ececf0", "#b4b4be", "#1c1c20", "#f0b429"
STAGE_COLOURS = {None: "#9a9aa6", "warm-up": "#56b4e9", "parallelism": "#e69f00", "fully-connecting": "#6fd3b0"}
KINDS = {"compute": "#56b4e9", "transfer": "#e69f00", "wait": "#8a8a94"}
