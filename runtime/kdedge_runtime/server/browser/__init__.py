"""Inference with explanations in the browser. This machine only serves the page and the model.

```
assets     onnxruntime-web, pinned by version and hash
server     page, model and its metadata
required   converts the model's optional input to a required one for browsers
tls        certificate, because browsers allow camera access only on encrypted pages
*.js       page: fit.js preprocessing, engine.js session, worker.js runs both in a worker thread, heat.js drawing,
           app.js user interface
```
"""
