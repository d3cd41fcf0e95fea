"""A static page in which the browser itself runs a model.

runtime   ONNX Runtime Web, from npm, at a pinned version
page      index.html, model.js and runtime.js in a folder
web       the page's own HTML, CSS and JavaScript
"""
