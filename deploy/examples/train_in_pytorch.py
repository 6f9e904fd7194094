#!/usr/bin/env python3
"""Trains a recurrent network in PyTorch on a CSV and writes it as Vidente takes it.

    train_in_pytorch.py READINGS.csv MODEL.safetensors [--cell gru] [--hidden 32] [--epochs 20]
    vidente models import MODEL.safetensors --stream NAME

READINGS.csv has the columns series, timestamp and value, as `vidente backtest` reads them. What a network
sees of a reading is made by Vidente (`vidente models inputs`), so that it is the same here and in the
daemon. Needs the packages torch, numpy and safetensors, and `vidente` on the PATH or named by --vidente.

--inputs names those of the inputs that the network gets, in that order; Vidente ignores the others. So a
network can do with inputs that you compute yourself, where it is trained or also run without Vidente:

    --inputs elapsed,day_sin,day_cos,week_sin,week_cos

are functions of time alone (elapsed: the natural logarithm of the intervals since the reading before;
day_sin … week_cos: the phase of the next reading in the UTC day, and in the week from Thursday 00:00). The
others depend on what Vidente keeps of a series: difference for instance is the last one in units of the
series' scale, which is also the unit of the targets.
"""
import argparse
import subprocess
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

STEPS = 64       # that gradients reach back
BATCH = 64       # windows of an update
HELD_OUT = 0.15  # latest share of each series, learned from by nobody


class Net(torch.nn.Module):
    """The names of its parameters are those that Vidente expects: rnn.* and head.*."""

    def __init__(self, cell, nonlinearity, inputs, hidden, layers, outputs):
        super().__init__()
        kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell]
        options = {"nonlinearity": nonlinearity} if cell == "rnn" else {}
        self.rnn = kind(inputs, hidden, layers, batch_first=True, **options)
        self.head = torch.nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def inputs_of(vidente, csv):
    """Inputs, targets and times of every series, and the file's header."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inputs.safetensors"
        subprocess.run([vidente, "models", "inputs", "--input", csv, "--output", path], check=True)
        with safe_open(path, "pt") as file:
            count = sum(name.endswith(".inputs") for name in file.keys())
            series = [tuple(file.get_tensor(f"series.{i}.{part}") for part in ("inputs", "targets", "time"))
                      for i in range(count)]
            return series, file.metadata()


def columns(wanted, all_names):
    """Where the wanted inputs stand among all."""
    unknown = [name for name in wanted if name not in all_names]
    if unknown:
        raise SystemExit(f"no such input: {', '.join(unknown)}; there are {', '.join(all_names)}")
    return [all_names.index(name) for name in wanted]


def windows(series):
    """Windows of STEPS readings that follow each other."""
    for inputs, targets, _ in series:
        for start in range(0, max(1, len(targets) - STEPS + 1), STEPS // 2):
            x, y = inputs[start:start + STEPS], targets[start:start + STEPS]
            if len(y) == STEPS:
                yield x, y


def pinball(quantiles, target, levels):
    """Mean pinball loss where there is a target."""
    error = target.unsqueeze(-1) - quantiles
    loss = torch.maximum(levels * error, (levels - 1) * error).mean(-1)
    known = ~target.isnan()
    return loss[known].mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readings")
    parser.add_argument("model")
    parser.add_argument("--cell", choices=["lstm", "gru", "rnn"], default="lstm")
    parser.add_argument("--nonlinearity", choices=["tanh", "relu"], default="tanh", help="of an rnn")
    parser.add_argument("--inputs", metavar="NAME,…", help="the inputs to use (default: all)")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vidente", default="vidente")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    series, header = inputs_of(args.vidente, args.readings)
    levels = torch.tensor([float(level) for level in header["levels"].split(",")])
    names = header["inputs"].split(",")
    if args.inputs:
        wanted = [name.strip() for name in args.inputs.split(",")]
        used = columns(wanted, names)
        series, names = [(inputs[:, used], targets, time) for inputs, targets, time in series], wanted
    learned = [[part[:len(s[1]) - int(HELD_OUT * len(s[1]))] for part in s] for s in series]
    held_out = [[part[len(s[1]) - int(HELD_OUT * len(s[1])):] for part in s] for s in series]
    pairs = list(windows(learned))
    if not pairs:
        raise SystemExit(f"no series has {STEPS} readings to learn from")
    x, y = (torch.stack(part) for part in zip(*pairs))

    net = Net(args.cell, args.nonlinearity, x.shape[-1], args.hidden, args.layers, len(levels))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    for epoch in range(1, args.epochs + 1):
        total = 0.0
        order = torch.randperm(len(x))
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            loss = pinball(net(x[batch]), y[batch], levels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            total += loss.item() * len(batch)
        with torch.no_grad():
            losses = [pinball(net(i.unsqueeze(0)), t.unsqueeze(0), levels) for i, t, _ in held_out
                      if (~t.isnan()).any()]
        print(f"epoch {epoch}: loss {total / len(x):.4f}, held out {torch.stack(losses).mean():.4f}")

    # Everything that Vidente must know of the weights; see the README.
    metadata = {
        "cell": args.cell,
        "hidden": str(args.hidden),
        "layers": str(args.layers),
        "inputs": ",".join(names),
        "scaling": header["scaling"],
        "trained_until": str(max(int(time[-1]) for _, _, time in learned)),
    }
    if args.cell == "rnn":
        metadata["nonlinearity"] = args.nonlinearity
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, args.model, metadata)
    print(f"written to {args.model}; next: vidente models import {args.model} --stream NAME")


if __name__ == "__main__":
    main()
