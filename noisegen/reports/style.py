"""Colors, markers and Matplotlib settings of plots."""

INK, FAINT = "#22262b", "#8d949c"
COLORS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"),
    *("#5b3a1e", "#7f7f00"),  # for more than six series
)
MARKERS = "osD^vPX*<>"

# In the page's SVG these colors are replaced by CSS variables of page.html, so that a dark page
# stays readable.
THEMED = {INK: "--ink", FAINT: "--faint", COLORS[0]: "--blue", COLORS[2]: "--green"}

RC = {
    "font.size": 12,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "text.usetex": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 11,
}
