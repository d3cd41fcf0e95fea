"""A model for elsewhere: without this package, in ONNX Runtime, as a program of torch, in diffusers, in a browser.

table     a sampler as a table of linear steps, taken from core's own sampler
images    the denoiser of an image model as a module that can be traced
text      one step of the denoising of a block of text, likewise
folder    safetensors and JSON that a script of fifteen lines samples from
onnx_graph  the same as ONNX: the denoiser with its guidance, the whole sampler
check     samples of an export beside those of core, at the same noise
"""
