"""Reports: tables and plots of a sweep, and one HTML page.

Matplotlib draws the plots. If Bokeh is installed, the page is explorable on screen, and the plots
are for print.
"""

from noisegen.reports.advice import advice_answers
from noisegen.reports.answers import Answer, make_answers
from noisegen.reports.checking import check
from noisegen.reports.evidence_tables import make_differences, make_evidence
from noisegen.reports.notebook import sweep_to_html
from noisegen.reports.plots import plot_curves, plot_heatmap, plot_metric, plot_tuned
from noisegen.reports.rendering import to_latex, to_markdown, to_text
from noisegen.reports.report import FORMATS, Report, load_report, write_report
from noisegen.reports.tables import make_table, to_csv
from noisegen.reports.target_plots import plot_steps_to_target

__all__ = [
    "FORMATS",
    "Answer",
    "Report",
    "advice_answers",
    "check",
    "load_report",
    "make_answers",
    "make_differences",
    "make_evidence",
    "make_table",
    "plot_curves",
    "plot_heatmap",
    "plot_metric",
    "plot_steps_to_target",
    "plot_tuned",
    "sweep_to_html",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_text",
    "write_report",
]
