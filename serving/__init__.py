"""A model in use: an HTTP service whose samples are those of `textdiffusion generate`. Everything is imported lazily.

app      routes; protocols turn a body into asks and samples into a body
service  which model is served, and the change to a new champion
engine   the queue of one model, its batches and its worker
worker   the process that has torch and the network; it alone draws

export      the same model in other formats, for use without this package
playground  the same model in a page that the browser runs
"""
