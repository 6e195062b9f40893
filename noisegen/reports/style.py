"""How plots and page look: Matplotlib settings, colours that follow the theme, CSS, page frame."""

from noisegen.reports import plots

# In the SVG these colours are replaced by the page's variables, so that a dark page stays readable.
THEMED = {
    plots.INK: "--ink",
    plots.FAINT: "--faint",
    plots.COLORS[0]: "--blue",
    plots.COLORS[2]: "--green",
}

RC = {
    "font.size": 12,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",
    "text.usetex": False,
    "text.color": plots.INK,
    "axes.labelcolor": plots.INK,
    "axes.edgecolor": plots.FAINT,
    "axes.linewidth": 0.8,
    "xtick.color": plots.FAINT,
    "ytick.color": plots.FAINT,
    "xtick.labelcolor": plots.INK,
    "ytick.labelcolor": plots.INK,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 11,
}

CSS = """
:root { color-scheme: light dark; --ink: #22262b; --faint: #8d949c; --ground: #f6f7f8;
  --card: #ffffff; --line: #e3e6e9; --blue: #0072b2; --green: #009e73; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --faint: #8d949c; --ground: #14171b;
  --card: #1d2126; --line: #31363d; --blue: #4aa8e0; --green: #2fc79a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 3rem); max-width: 90rem; color: var(--ink);
  background: var(--ground);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: clamp(1.7rem, 3vw, 2.5rem); line-height: 1.2; margin: 0 0 .4rem;
  letter-spacing: -.02em; text-wrap: balance; }
h2 { font-size: 1.3rem; margin: 0 0 1rem; }
h3 { font-size: 1.08rem; margin: 0 0 .6rem; font-weight: 600; }
.lead { margin: 0 0 1.2rem; max-width: 50rem; font-size: 1.1rem; color: var(--faint);
  color: color-mix(in srgb, var(--ink) 72%, var(--ground)); }
.counts { display: flex; flex-wrap: wrap; gap: .4rem 2rem; margin-bottom: 1.8rem; }
.counts b { font-size: 1.5rem; font-variant-numeric: tabular-nums; }
.plots { display: grid; gap: 1.2rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
figure, section:not(.plots) { margin: 0; padding: 1.3rem 1.5rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 12px; }
section:not(.plots) { margin-top: 1.2rem; }
figure svg { display: block; width: 100%; height: auto; }
figure svg text { font-family: inherit !important; }
figcaption, .notes { font-size: .9rem; color: color-mix(in srgb, var(--ink) 72%, var(--card)); }
figcaption { margin-top: .5rem; }
.notes { margin-top: 1rem; max-width: 60rem; } .notes p { margin: .3rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem;
  font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .45rem .45rem; border-bottom: 1px solid var(--line); }
td { white-space: nowrap; }
th { font-weight: 600; font-size: .9rem; line-height: 1.3; vertical-align: bottom; }
th.group { text-align: center; font-size: 1rem; border-bottom: 2px solid var(--faint); }
th.group:first-child { border-bottom: none; }
sup { line-height: 0; } small { color: var(--faint); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.5rem; margin: 0; }
dt { color: color-mix(in srgb, var(--ink) 72%, var(--card)); }
dd { margin: 0; overflow-wrap: anywhere; }
pre { padding: .9rem 1.1rem; margin: 0 0 1rem; border-radius: 8px; background: var(--ground);
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .92rem; }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{css}</style>
</head>
<body>
{body}
</body>
</html>
"""
