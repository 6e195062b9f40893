"""Reports: plots of a sweep and one HTML page. Needs Matplotlib once something is drawn."""

from noisegen.reports.checking import check
from noisegen.reports.page import table_names, write_report
from noisegen.reports.plots import plot_curves, plot_heatmap, plot_metric, plot_tuned

__all__ = [
    "check",
    "plot_curves",
    "plot_heatmap",
    "plot_metric",
    "plot_tuned",
    "table_names",
    "write_report",
]
