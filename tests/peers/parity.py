#!/usr/bin/env python3
"""Writes reference values of PyTorch's RNN, GRU and LSTM for forecaster/tests/parity.rs.

usage: python3 tests/peers/parity.py SEED OUT.safetensors        (needs the package `torch`)

Each case holds the sizes, the parameters, the inputs (batch x steps x inputs), what the module returns
with batch_first=True from an all-zero state, the gradients of a scalar of the outputs (the sum of their
products with fixed factors), and those of the pinball loss of a linear head on the outputs. The tensors
of case n have `n.` before their names, and its sizes stand in the header's metadata under `n`.
"""
import json
import struct
import sys

import torch

LEVELS = [0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95]
# Layers, inputs, hidden units, batch, steps.
SIZES = [(1, 10, 20, 1, 5), (1, 3, 5, 4, 7), (2, 3, 5, 9, 4), (2, 2, 6, 3, 3)]


def module(cell, nonlinearity, inputs, hidden, layers):
    if cell == "rnn":
        return torch.nn.RNN(inputs, hidden, layers, nonlinearity=nonlinearity, batch_first=True)
    return {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](inputs, hidden, layers, batch_first=True)


def case(cell, nonlinearity, layers, inputs, hidden, batch, steps):
    rnn = module(cell, nonlinearity, inputs, hidden, layers)
    head = torch.nn.Linear(hidden, len(LEVELS))
    parameters = {f"rnn.{n}": p for n, p in rnn.named_parameters()}
    parameters |= {f"head.{n}": p for n, p in head.named_parameters()}
    x = torch.randn(batch, steps, inputs, requires_grad=True)

    def gradients(prefix, loss):
        wanted = {**parameters, "x": x}
        values = torch.autograd.grad(loss, wanted.values(), allow_unused=True)
        return {f"{prefix}.{n}": g for n, g in zip(wanted, values) if g is not None}

    outputs, last = rnn(x)
    h, c = last if cell == "lstm" else (last, None)
    factors = torch.randn(outputs.shape)
    tensors = {**parameters, "x": x, "outputs": outputs, "h": h, "factors": factors}
    if c is not None:
        tensors["c"] = c
    tensors |= gradients("gradient", (outputs * factors).sum())

    outputs, _ = rnn(x)
    quantiles = head(outputs)
    targets = torch.randn(batch, steps)
    levels = torch.tensor(LEVELS)
    error = targets[..., None] - quantiles
    loss = torch.maximum(levels * error, (levels - 1) * error).mean()
    tensors |= {"quantiles": quantiles, "targets": targets, "loss": loss}
    tensors |= gradients("loss_gradient", loss)
    about = {"cell": cell, "inputs": inputs, "hidden": hidden, "layers": layers, "batch": batch, "steps": steps}
    return about | ({"nonlinearity": nonlinearity} if nonlinearity else {}), tensors


def save(path, metadata, tensors):
    """A safetensors file: length of the header, header as JSON, data."""
    header, data = {"__metadata__": metadata}, b""
    for name, tensor in tensors.items():
        values = tensor.detach().flatten().tolist()
        start = len(data)
        data += struct.pack(f"<{len(values)}f", *values)
        shape, offsets = list(tensor.shape), [start, len(data)]
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + data)


def main():
    seed, out = int(sys.argv[1]), sys.argv[2]
    torch.manual_seed(seed)
    kinds = [("rnn", "tanh"), ("rnn", "relu"), ("gru", None), ("lstm", None)]
    metadata, tensors = {"torch": torch.__version__, "seed": str(seed)}, {}
    for n, (kind, sizes) in enumerate((kind, sizes) for kind in kinds for sizes in SIZES):
        about, values = case(*kind, *sizes)
        metadata[str(n)] = json.dumps(about)
        tensors |= {f"{n}.{name}": tensor for name, tensor in values.items()}
    save(out, metadata, tensors)


main()
