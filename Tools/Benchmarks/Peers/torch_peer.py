#!/usr/bin/env python3
"""Measures PyTorch's attention as a peer of think-compress.

A driver starts this program and steers it through standard input and output, one
command a line, each answered with one line, "ok ..." or "error TEXT". It ends with its
input.

  load CASE TOKENS  prepares a case and frees the one before: ok
  run               measures one round: ok MICROSECONDS for each layer
  check             compares the output with attention in float64 over the same cache:
                    ok RELATIVE_ERROR
  version           ok NAME, VERSION, AND COMPILER

Cases, both with the 4 query heads of a KV head as 4 rows of one product, which is many
times faster than leaving the grouping to PyTorch:

  matmul-bf16       matrix product, softmax, matrix product in bfloat16
  sdpa-bf16         scaled_dot_product_attention in bfloat16

The shape is a layer of Llama-3-8B, decoding one token: 32 query heads, 8 KV heads,
dimension 128. A KV head's tokens are contiguous.
"""

import argparse
import math
import os
import re
import sys
import time

QUERY_HEADS = 32
KV_HEADS = 8
GROUP = QUERY_HEADS // KV_HEADS
HEAD_DIMENSION = 128
SCALE = 1 / math.sqrt(HEAD_DIMENSION)
MOST_TOKENS = 1 << 20
MOST_THREADS = 256

# A round lasts at least this long, and layers take at least this much memory, so that a
# cache comes from DRAM.
ROUND_SECONDS = 0.06
ROTATING_BYTES = 256 << 20


class Refusal(Exception):
    """A command that cannot be done."""


class Attention:
    """Layers of one case; `attend` computes one of them into `output`."""

    def __init__(self, tokens):
        layer_bytes = 2 * 2 * KV_HEADS * HEAD_DIMENSION * tokens
        self.layers = max(2, -(-ROTATING_BYTES // layer_bytes))
        generator = torch.Generator().manual_seed(1)

        def random(*shape):
            return torch.randn(shape, generator=generator).to(torch.bfloat16)

        # Layers differ in their queries; that they have equal caches, in distinct
        # memory, saves time here.
        keys = random(KV_HEADS, tokens, HEAD_DIMENSION)
        values = random(KV_HEADS, tokens, HEAD_DIMENSION)
        self.keys = [keys.clone() for _ in range(self.layers)]
        self.values = [values.clone() for _ in range(self.layers)]
        self.queries = [random(KV_HEADS, GROUP, HEAD_DIMENSION) for _ in range(self.layers)]

    def attend(self, layer):
        raise NotImplementedError

    def run(self):
        """Microseconds for each layer, in one round."""
        # Not measured: waking the workers. The last layer's cache is out of the processor's
        # caches when its turn comes.
        self.attend(self.layers - 1)
        passes = 0
        start = time.perf_counter()
        while True:
            for layer in range(self.layers):
                self.attend(layer)
            passes += 1
            elapsed = time.perf_counter() - start
            if elapsed >= ROUND_SECONDS:
                break
        return elapsed * 1e6 / passes / self.layers

    def check(self):
        """The relative error, in L2 over all layers."""
        difference = norm = 0.0
        for layer in range(self.layers):
            output = self.attend(layer).double()
            queries, keys, values = (
                of[layer].double() for of in (self.queries, self.keys, self.values)
            )
            weights = torch.softmax(queries @ keys.transpose(1, 2) * SCALE, dim=-1)
            truth = weights @ values
            difference += (output.reshape(truth.shape) - truth).square().sum().item()
            norm += truth.square().sum().item()
        return math.sqrt(difference / norm)


class MatrixProducts(Attention):
    def __init__(self, tokens):
        super().__init__(tokens)
        self.scaled = torch.empty(KV_HEADS, GROUP, HEAD_DIMENSION, dtype=torch.bfloat16)
        self.scores = torch.empty(KV_HEADS, GROUP, tokens, dtype=torch.bfloat16)
        self.weights = torch.empty_like(self.scores)
        self.output = torch.empty_like(self.scaled)

    def attend(self, layer):
        torch.mul(self.queries[layer], SCALE, out=self.scaled)
        torch.bmm(self.scaled, self.keys[layer].transpose(1, 2), out=self.scores)
        torch.softmax(self.scores, dim=-1, out=self.weights)
        return torch.bmm(self.weights, self.values[layer], out=self.output)


class ScaledDotProduct(Attention):
    def attend(self, layer):
        return torch.nn.functional.scaled_dot_product_attention(
            self.queries[layer][None], self.keys[layer][None], self.values[layer][None]
        )


CASES = {"matmul-bf16": MatrixProducts, "sdpa-bf16": ScaledDotProduct}


class Peer:
    def __init__(self):
        self.case = None

    def answer(self, words):
        """What follows "ok"."""
        if not words:
            raise Refusal("no command")
        command, arguments = words[0], words[1:]
        if command == "load":
            return self.load(arguments)
        if command not in ("run", "check", "version"):
            raise Refusal(f"unknown command: {command}")
        if arguments:
            raise Refusal(f"{command} takes no arguments")
        if command == "version":
            compiler = re.search(r"GCC [\d.]+|clang version [\d.]+", torch.__config__.show())
            return f"PyTorch {torch.__version__}, {compiler[0] if compiler else 'compiler unknown'}"
        if self.case is None:
            raise Refusal("load a case first")
        return f"{self.case.run():.3f}" if command == "run" else f"{self.case.check():.3g}"

    def load(self, arguments):
        if len(arguments) != 2:
            raise Refusal("usage: load CASE TOKENS")
        name, tokens = arguments
        if not re.fullmatch(r"[0-9]{1,7}", tokens) or not 1 <= int(tokens) <= MOST_TOKENS:
            raise Refusal(f"TOKENS is a number from 1 to {MOST_TOKENS}")
        if name not in CASES:
            raise Refusal(f"unknown case: {name}")
        self.case = None
        case = CASES[name](int(tokens))
        for layer in range(case.layers):  # so that nothing is new in a measured round
            case.attend(layer)
        self.case = case
        return ""


def thread_count(text):
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= MOST_THREADS:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MOST_THREADS}")
    return int(text)


def main():
    global torch
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=thread_count, default=1, metavar="N")
    threads = parser.parse_args().threads

    os.environ["OMP_NUM_THREADS"] = str(threads)  # read while PyTorch is imported
    try:
        import torch
    except ImportError as error:
        sys.exit(f"torch_peer.py: {error}; Tools/Benchmarks/Peers/setup installs it")
    torch.set_num_threads(threads)

    peer = Peer()
    with torch.inference_mode():
        for line in sys.stdin:
            try:
                answer = f"ok {peer.answer(line.split())}".rstrip()
            except Refusal as refusal:
                answer = f"error {refusal}"
            except (RuntimeError, MemoryError) as error:
                answer = "error " + " ".join(str(error).split())
            # PyTorch's workers spin for some milliseconds before they sleep, and would take
            # time from whoever is measured next.
            time.sleep(0.02)
            print(answer, flush=True)


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
