"""Report tables of measurements beyond predictions and maps on all images."""

from kdedge_export.candidates import TITLES, WORDS, Role
from kdedge_export.html.text import correlation, escape
from kdedge_export.metrics.sanity import Test
from kdedge_export.validation.page.html_table import correlation_cell, grid, percent_cell
from kdedge_export.validation.report import ValidationReport
from kdedge_export.validation.text_report import plain_speed

__all__ = ["studies"]

_BASELINES = {"centre": "Center prior", "random": "Random maps", "edges": "Edge maps (Sobel)"}
_TESTS: dict[Test, str] = {"class": "Another class", "picture": "Another image", "head": "A random head"}
_CLASSES_SHOWN = 12


def studies(report: ValidationReport) -> str:
    """Render all measurements as sections."""
    parts = (_maps(report), _sanity(report), _robustness(report), _calibration(report), _classes(report), _cost(report))
    return "".join(parts)


def _section(title: str, lead: str, table: str) -> str:
    return f'<section><h2>{title}</h2><p class="lead">{lead}</p>{table}</section>'


def _maps(report: ValidationReport) -> str:
    places, faith = report.localization, report.faithfulness
    if places is None and faith is None:
        return ""
    names = dict.fromkeys([*(places.rows if places else {}), *(faith.rows if faith else {})])
    heads, leads = [("Maps of", "model or baseline that produced the maps")], []
    if places is not None:
        heads += [
            ("On the object", "fraction of images whose map maximum lies on the object; a constant map scores chance"),
            ("Energy inside", "mean fraction of the map’s positive part that lies on the object"),
        ]
        whose = "target class" if report.labeled else f"{WORDS[report.origin]}’s prediction"
        leads.append(f"Object regions are known for {places.images:,} images. Maps explain the {whose}.")
    if faith is not None:
        heads += [
            ("Deletion ↓", "mean area under the probability curve while the most important pixels are painted over"),
            ("Insertion ↑", "mean area under the probability curve while the most important pixels are restored"),
            ("Margin over random", "insertion minus deletion, minus the same for a random map"),
        ]
        leads.append(
            f"Deletion and insertion on {faith.images} images: effect on the {WORDS[report.shipped]}’s prediction of "
            "removing or restoring pixels in the order of each map."
        )
    rows = []
    for name in names:
        row = [_BASELINES.get(name) or {str(role): title for role, title in TITLES.items()}[name]]
        if places is not None:
            place = places.rows.get(name)
            figures = (None, None) if place is None else (place.pointing, place.energy_inside)
            ends = (None, None) if place is None else (place.intervals["pointing"], place.intervals["energy_inside"])
            row += [percent_cell(figure, end) for figure, end in zip(figures, ends, strict=True)]
        if faith is not None:
            curves = faith.rows.get(name)
            row += [
                correlation(None) if curves is None else correlation_cell(getattr(curves, key), curves.intervals[key])
                for key in ("deletion", "insertion", "margin")
            ]
        rows.append(row)
    return _section("Localization and faithfulness of the maps", " ".join(leads), grid(heads, rows, "baselines"))


def _sanity(report: ValidationReport) -> str:
    if report.sanity is None:
        return ""
    found = {(row.role, row.test): row for row in report.sanity.rows}
    roles = dict.fromkeys(row.role for row in report.sanity.rows)
    heads = [("Maps of", "model that produced the maps")]
    tests = [test for test in _TESTS if any(row.test == test for row in report.sanity.rows)]
    for test in tests:
        heads.append(
            (
                f"{_TESTS[test]}:<br>alike",
                "mean similarity of the map’s shape before and after; 1 is the same map up to scale",
            )
        )
        heads.append(("Pearson", "mean correlation of the maps before and after"))
    rows = []
    for role in roles:
        positions = [TITLES[role]]
        for test in tests:
            row = found.get((role, test))
            positions += (
                [correlation(None)] * 2
                if row is None
                else [
                    correlation_cell(row.alike, row.intervals["alike"]),
                    correlation_cell(row.pearson, row.intervals["pearson"]),
                ]
            )
        rows.append(positions)
    lead = (
        f"A map must depend on the class, the image and the model. Each was changed on {report.sanity.images} images. "
        "A map that keeps its shape explains nothing, at any scale. The head can be changed in PyTorch only"
    )
    lead += "." if "student" in report.models else ", and there is no PyTorch model."
    return _section("Sanity checks of the maps", lead, grid(heads, rows))


def _robustness(report: ValidationReport) -> str:
    if report.robustness is None:
        return ""
    first, shown = WORDS[report.origin], [row for row in report.robustness.rows if row.role == report.shipped]
    heads = [
        ("Disturbance", "corruption of the images, at the model’s input size"),
        ("Top-1", "accuracy"),
        ("Own prediction kept", "fraction of images with the file’s own prediction for the clean image"),
        ("Own map kept", "mean correlation with the file’s own map of the clean image"),
    ]
    rows = [
        [
            row.disturbance,
            percent_cell(row.top1, row.intervals.get("top1")),
            percent_cell(row.prediction_kept, row.intervals["answer_kept"]),
            correlation_cell(row.map_kept, row.intervals.get("map_kept")),
        ]
        for row in shown
    ]
    lead = f"Results of the {WORDS[report.shipped]} on {report.robustness.images} images, each corrupted in eight ways."
    if report.shipped != report.origin:
        lead += f" Agreement and Pearson compare it with the {first} on the same corrupted image."
        heads[2:2] = [
            ("Agreement", f"fraction of images with the {first}’s prediction for the same corrupted image"),
            ("Pearson", f"mean correlation with the {first}’s map of the same corrupted image"),
        ]
        for positions, row in zip(rows, shown, strict=True):
            positions[2:2] = [
                percent_cell(row.agreement, row.intervals["agreement"]),
                correlation_cell(row.map_pearson, row.intervals.get("map_pearson")),
            ]
    return _section("Robustness to image corruptions", lead, grid(heads, rows))


def _calibration(report: ValidationReport) -> str:
    if not report.calibration:
        return ""
    heads = (
        ("Model", ""),
        ("Temperature", "softmax temperature: divides the logits"),
        ("ECE at 1", "expected calibration error of the softmax at temperature 1"),
        ("ECE", "expected calibration error at the file’s temperature, as used on the device"),
        ("By chance", "expected calibration error of a perfectly calibrated model on as many images"),
        ("NLL at 1", "mean negative log-likelihood of the target class, in nats"),
        ("NLL", "negative log-likelihood at the file’s temperature"),
    )
    rows = [
        [
            TITLES[role],
            f"{found.temperature:.3g}",
            percent_cell(found.ece_before, found.intervals["ece_before"]),
            percent_cell(found.ece, found.intervals["ece"]),
            percent_cell(found.ece_by_chance, None),
            correlation_cell(found.nll_before, found.intervals["nll_before"]),
            correlation_cell(found.nll, found.intervals["nll"]),
        ]
        for role, found in report.calibration.items()
    ]
    images = next(iter(report.calibration.values())).n
    others = (
        f"; the other {report.images - images:,} were used to fit the temperature" if images < report.images else ""
    )
    lead = (
        f"Expected calibration error over bins of equally many images, debiased, on {images:,} images{others}. In a "
        "calibrated model, predictions with a probability of 80 % are correct in 8 of 10 cases. With few images even "
        "a calibrated model has a nonzero error by chance."
    )
    return _section("Calibration", lead, grid(heads, rows))


def _classes(report: ValidationReport) -> str:
    if len(report.classes) < 2:
        return ""
    first = WORDS[report.origin]
    tops: list[Role] = [role for role in report.models if role in report.classes[0].top1]
    files: list[Role] = [role for role in report.comparisons if role != "student"]
    heads = [("Class", "worst first"), ("Images", "")]
    heads += [(f"Top-1<br>{WORDS[role]}", f"accuracy of the {WORDS[role]}") for role in tops]
    heads += [(f"Agreement<br>{WORDS[role]}", f"fraction of images with the {first}’s prediction") for role in files]
    heads += [
        (f"Pearson<br>{WORDS[role]}", "mean correlation with the reference’s maps") for role in report.comparisons
    ]
    rows = [
        [escape(row.label), f"{row.n:,}"]
        + [percent_cell(row.top1[role], row.intervals["top1"][role], 0) for role in tops]
        + [percent_cell(row.agreement[role], row.intervals["agreement"][role], 0) for role in files]
        + [
            correlation_cell(row.map_pearson.get(role), row.intervals["map_pearson"].get(role))
            for role in report.comparisons
        ]
        for row in report.classes
    ]
    table = grid(heads, rows[:_CLASSES_SHOWN])
    if len(rows) > _CLASSES_SHOWN:
        more = f"{len(rows) - _CLASSES_SHOWN} more classes"
        table += f"<details><summary>{more}</summary>{grid(heads, rows[_CLASSES_SHOWN:])}</details>"
    what = "" if report.labeled else f" The images have no labels: classes are the {first}’s predictions."
    return _section("Results by class", f"Worst first, by the {WORDS[report.shipped]}.{what}", table)


def _cost(report: ValidationReport) -> str:
    if not report.footprints:
        return ""
    heads = (
        ("File", ""),
        ("Parameters", "parameters of the network"),
        ("Size", "file size"),
        ("One image", "median latency, measured on this machine"),
        (
            "Peak memory",
            "peak memory of a process that loads the runtime and the file and predicts once, measured on this machine",
        ),
    )
    rows = [
        [
            TITLES[role],
            f"{found.parameters:,}",
            f"{found.file_mb:.2f} MB",
            f"{found.latency_ms:.2f} ms",
            correlation(None) if found.peak_memory_mb is None else f"{found.peak_memory_mb:.0f} MB",
        ]
        for role, found in report.footprints.items()
    ]
    threads = next(iter(report.footprints.values())).threads
    lead = (
        f"Measured on the validating machine ({escape(report.versions['machine'])}) with {threads} "
        f"thread{'' if threads == 1 else 's'}, not on the device. {escape(' '.join(_speeds(report)))}"
    )
    if report.device is not None:
        lead += f" Budgets are those of the device {escape(report.device)}."
    return _section("Size, latency and memory", lead, grid(heads, rows))


def _speeds(report: ValidationReport) -> list[str]:
    """Describe the int8 speedup on this machine, and at export if the file records it."""
    if not {"fp32", "int8"} <= report.footprints.keys():
        return []
    fp32, int8 = report.footprints["fp32"], report.footprints["int8"]
    found = [plain_speed(fp32.latency_ms, int8.latency_ms, "here")]
    noted = (report.models["int8"].quantization or {}).get("latency_ms")
    if isinstance(noted, dict) and {"fp32", "int8"} <= noted.keys():
        where = f"at export, on {noted['machine']}" if "machine" in noted else "at export"
        found.append(plain_speed(float(noted["fp32"]), float(noted["int8"]), where))
    return found
