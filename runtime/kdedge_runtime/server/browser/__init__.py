"""Explained inference in the browser itself: this machine only serves the page and the model.

```
assets     onnxruntime-web, pinned by version and hash
server     the page, the model and what it has to know
required   the model with its optional input made one that a browser can feed
tls        a certificate, since browsers open cameras on encrypted pages only
*.js       the page: fit.js is the runtime's preprocessing, engine.js the session, worker.js runs both off the page's
           thread, heat.js draws, app.js is what one sees
```
"""
