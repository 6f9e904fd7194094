#!/usr/bin/env python3
"""Updates of a recurrent network in PyTorch on the CPU, timed for forecaster/benches/train.rs.

usage: train_speed.py CELL INPUTS HIDDEN STEPS BATCH THREADS FILE        (needs the package `torch`)

FILE holds 32-bit floats: the inputs (steps x batch x inputs), the targets (steps x batch), and the
initial parameters in PyTorch's order, the head's last. For each number that comes in on a line, it does so
many updates (forward, pinball loss, backward, clipping, Adam) and answers with the seconds they took and
the last loss.
"""
import array
import sys
import time

import torch

cell, (inputs, hidden, steps, batch, threads), path = sys.argv[1], map(int, sys.argv[2:7]), sys.argv[7]
torch.set_num_threads(threads)

values = array.array("f")
with open(path, "rb") as file:
    values.frombytes(file.read())
values, taken = torch.tensor(values), 0


def take(*shape):
    global taken
    count = torch.Size(shape).numel()
    taken += count
    return values[taken - count : taken].reshape(shape).clone()


x, target = take(steps, batch, inputs), take(steps, batch, 1)
kinds = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
rnn, head = kinds[cell](inputs, hidden), torch.nn.Linear(hidden, 7)
parameters = [*rnn.parameters(), *head.parameters()]
with torch.no_grad():
    for p in parameters:
        p.copy_(take(*p.shape))
levels = torch.tensor([0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95])
adam = torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.99))


def update():
    adam.zero_grad()
    error = target - head(rnn(x)[0])
    loss = torch.maximum(levels * error, (levels - 1) * error).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    adam.step()
    return loss


for line in sys.stdin:
    start = time.perf_counter()
    for _ in range(int(line)):
        loss = update()
    print(time.perf_counter() - start, loss.item(), flush=True)
