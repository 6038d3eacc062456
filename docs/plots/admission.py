"""Draws docs/img/policies/admission.svg. Run: PYTHONPATH=. python docs/plots/admission.py."""

# ruff: noqa: INP001 - a script
import matplotlib as mpl

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "tidegate"
from matplotlib import pyplot as plt  # noqa: E402 - the backend comes first

from policies.fairqueue import AdmissionOptions  # noqa: E402
from tests.simulation.crowds import quantile  # noqa: E402
from tests.simulation.test_admission import TIERS, flooded, spike  # noqa: E402

STYLES = (("first come", None, "--"), ("admission", AdmissionOptions(), "-"))


def service(axes: plt.Axes) -> None:
    """What two tenants were served so far."""
    for name, options, style in STYLES:
        visits = sorted(flooded(options), key=lambda visit: visit.ended)
        for tenant, colour in (("flood", "tab:red"), ("light", "tab:blue")):
            own = [visit for visit in visits if visit.call.tenant == tenant]
            total, line = 0.0, []
            for visit in own:
                total += visit.served / 1000
                line.append(total)
            axes.plot(
                [v.ended for v in own][::10], line[::10], style, color=colour, label=f"{tenant}, {name}"
            )
    axes.set(xlabel="seconds", ylabel="service, 1,000 tokens", title="A flooding and a light tenant")
    axes.legend(fontsize=7)


def waits(axes: plt.Axes) -> None:
    """How long the top tier waits while the bottom one's demand is twelvefold."""
    for name, options, style in (STYLES[0], ("admission", AdmissionOptions(TIERS), "-")):
        _, visits = spike(options, returns=3)
        for tier, colour in (("pro", "tab:green"), ("free", "tab:orange")):
            own = [visit for visit in visits if visit.call.tier == tier]
            line = [
                quantile([v.waited for v in own if at <= v.started < at + 10], 0.95)
                for at in range(0, 300, 10)
            ]
            axes.plot(range(0, 300, 10), line, style, color=colour, label=f"{tier}, {name}")
    axes.axvspan(60, 180, color="0.92")
    axes.set(xlabel="seconds", ylabel="wait, p95, seconds", title="12 times the free tier's demand")
    axes.legend(fontsize=7)


def main() -> None:
    """Draw."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    service(left)
    waits(right)
    figure.tight_layout()
    figure.savefig("docs/img/policies/admission.svg", metadata={"Date": None})


main()
