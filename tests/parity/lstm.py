#!/usr/bin/env python3
"""Prints the reference values of forecaster/tests/pytorch.rs, computed by PyTorch.

usage: python3 tests/parity/lstm.py        (needs the package `torch`; made with 2.15.0)

The weights come from a formula that the Rust test repeats, so that only results are stored:
parameter number n (counting through weight_ih, weight_hh, bias_ih, bias_hh of each layer, then the
head's weight and bias) is sin(n + 1).
"""
import torch

INPUTS, HIDDEN, LAYERS, STEPS, OUTPUTS = 3, 4, 2, 5, 7

rnn = torch.nn.LSTM(INPUTS, HIDDEN, LAYERS)
head = torch.nn.Linear(HIDDEN, OUTPUTS)
count = 0
with torch.no_grad():
    for p in [*rnn.parameters(), *head.parameters()]:
        values = torch.sin(torch.arange(count + 1, count + 1 + p.numel(), dtype=torch.float64))
        p.copy_(values.float().reshape(p.shape))
        count += p.numel()

x = torch.cos(torch.arange(STEPS * INPUTS, dtype=torch.float64)).float().reshape(STEPS, 1, INPUTS)
target = torch.sin(torch.arange(STEPS, dtype=torch.float64) / 2).float()
levels = torch.tensor([.05, .10, .25, .50, .75, .90, .95])


def show(name, tensor):
    print(name, "[" + ", ".join(f"{v:.9f}" for v in tensor.flatten().tolist()) + "]")


out, (h, c) = rnn(x)
quantiles = head(out)
error = target[:, None, None] - quantiles
loss = torch.maximum(levels * error, (levels - 1) * error).mean()
loss.backward()
show("outputs of the head, each step", quantiles)
show("hidden output of layer 0 after the last step", h[0])
show("hidden output of layer 1 after the last step", h[1])
print("loss", f"{loss.item():.9f}")
for name, p in [*rnn.named_parameters(), *head.named_parameters()]:
    g = p.grad.flatten()
    print("gradient", name, f"sum {g.sum():.9f} first {g[0]:.9f} last {g[-1]:.9f} norm {g.norm():.9f}")
