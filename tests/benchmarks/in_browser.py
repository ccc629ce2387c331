"""Compare a model in Chromium with the same model in Python, on the same preprocessed samples.

```
make web-assets                                # once; and apt install chromium
python tests/benchmarks/in_browser.py lite0.onnx PHOTOS
python tests/benchmarks/in_browser.py digits.onnx DIGITS
```

Prints the largest difference of logits and of map values over the files, with the largest value of each, and the median
milliseconds of preprocessing and inference. Of a sound that is longer than the window, the first window counts.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from browser import browser, open_page  # type: ignore[import-not-found]

from kdedge_runtime.model import Model
from kdedge_runtime.server import AccessPolicy, Address
from kdedge_runtime.server.browser.page_server import WebServer

LATEST = """async () => {
    const { latest } = await import("/app.js");
    return latest && { ms: latest.ms, input: Array.from(latest.input), logits: Array.from(latest.logits),
                       map: Array.from(latest.map.data) };
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("samples", type=Path, help="folder of images or sounds")
    parser.add_argument("--count", type=int, default=20, help="number of files, evenly spread over the folder")
    options = parser.parse_args()
    model = Model.load(options.model)
    spec = model.metadata.input
    files = sorted(path for path in options.samples.rglob("*") if path.is_file())
    server = WebServer(AccessPolicy.at(Address("127.0.0.1", 0)), model)
    server.start("web")
    figures = {"logits error": 0.0, "map error": 0.0, "largest logit": 0.0, "largest cell": 0.0}
    times: dict[str, list[float]] = {"preprocess": [], "inference": []}
    try:
        with browser() as chromium:
            page = open_page(chromium, server.url)
            page.wait_for_selector("#live:enabled")
            last = None
            for file in files[:: max(len(files) // options.count, 1)][: options.count]:
                with page.expect_file_chooser() as chooser:
                    page.click("#file")
                chooser.value.set_files(file)
                while (found := page.evaluate(LATEST)) is None or found["ms"] == last:
                    page.wait_for_timeout(50)
                last = found["ms"]
                for stage, measured in times.items():
                    measured.append(last[stage])
                expected = model.predict(np.array(found["input"], spec.dtype).reshape(1, *spec.shape))
                assert expected.saliency_map is not None, f"{options.model} has no map"
                for name, key, here in (
                    ("logits error", "logits", expected.logits),
                    ("map error", "map", expected.saliency_map),
                ):
                    difference = np.abs(np.array(found[key]) - here.ravel()).max()
                    figures[name] = max(figures[name], float(difference))
                figures["largest logit"] = max(figures["largest logit"], float(np.abs(expected.logits).max()))
                figures["largest cell"] = max(figures["largest cell"], float(np.abs(expected.saliency_map).max()))
    finally:
        server.close()
    figures |= {f"{stage} ms": median(measured) for stage, measured in times.items()}
    print(json.dumps({name: float(f"{value:.2g}") for name, value in figures.items()}))


if __name__ == "__main__":
    main()
