"""The native CPU attention beside PyTorch's scaled_dot_product_attention, in the same run and on the same threads.

    pip install torch==2.13.0 numpy
    python benchmarks/attention_native.py [--rounds 7] [--threads 2] [--check]

Builds native/bench/attention_bench.cc, then alternates between the two in every round, so that a busy machine slows both. Prints one line per shape: the median over rounds of each, the range, the ratio of the medians, and the ratio
of the best times, which other work on the machine disturbs least.
--check compares outputs and gradients with a float64 truth instead of measuring time.
"""
import argparse, json, math, os, statistics, subprocess, tempfile, time

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = [(2, 8, 4096, 4096, 40), (2, 8, 1024, 1024, 80), (2, 8, 256, 256, 160), (1, 8, 9216, 9216, 40), (1, 1, 4096, 4096, 512), (2, 8, 4096, 77, 40)]
BACKWARD = [(2, 8, 4096, 4096, 40), (2, 8, 1024, 1024, 80)]
TYPES = {"f32": torch.float32, "bf16": torch.bfloat16}
sdpa = torch.nn.functional.scaled_dot_product_attention


def build():
    subprocess.run(["node", os.path.join(HERE, "../scripts/build_native.mjs"), "--bench"], check=True, stdout=subprocess.DEVNULL)
    return os.path.join(HERE, "../build/cmake/attention_bench")


def native(binary, shape, kind, backward, threads, *more, isa=None):
    command = [binary, "--shape", ",".join(map(str, shape)), "--type", kind, "--threads", str(threads), "--layout", "tokens", *more]
    env = {**os.environ, **({"TFJS_DIFFUSERS_ISA": isa} if isa else {})}
    out = subprocess.run(command + (["--backward"] if backward else []), check=True, capture_output=True, text=True, env=env).stdout
    return json.loads(out)


def heads(batch, count, tokens, size, dtype):
    """[B,H,N,d] over packed tokens [B,N,H*d], as attention layers have it."""
    return torch.randn(batch, tokens, count * size).to(dtype).view(batch, tokens, count, size).transpose(1, 2)


def torch_seconds(shape, dtype, backward, runs):
    batch, count, queries, keys, size = shape
    q, k, v = (heads(batch, count, n, size, dtype).requires_grad_(backward) for n in (queries, keys, keys))
    dy = heads(batch, count, queries, size, dtype)
    seconds = []
    for i in range(runs + 1):
        with torch.set_grad_enabled(backward):
            start = time.perf_counter()
            out = sdpa(q, k, v)
            if backward:
                start = time.perf_counter()
                torch.autograd.grad(out, (q, k, v), dy)
        if i:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def measure(binary, shape, kind, backward, options):
    ours, theirs = [], []
    for _ in range(options.rounds):
        ours.append(native(binary, shape, kind, backward, options.threads, "--runs", "5")["median_s"])
        theirs.append(torch_seconds(shape, TYPES[kind], backward, 3))
    batch, count, queries, keys, size = shape
    flop = (10 if backward else 4) * batch * count * queries * keys * size
    mine, other = statistics.median(ours), statistics.median(theirs)
    print(json.dumps(dict(
        work="attention-backward" if backward else "attention", shape=shape, type=kind,
        native_ms=round(mine * 1e3, 3), native_range_ms=[round(min(ours) * 1e3, 3), round(max(ours) * 1e3, 3)], native_gflops=round(flop / mine / 1e9, 1),
        torch_ms=round(other * 1e3, 3), torch_range_ms=[round(min(theirs) * 1e3, 3), round(max(theirs) * 1e3, 3)], torch_gflops=round(flop / other / 1e9, 1),
        ratio=round(other / mine, 2), ratio_of_best=round(min(theirs) / min(ours), 2))), flush=True)


def relative(x, truth):
    return ((x.double() - truth).norm() / truth.norm()).item()


def check(binary, folder):
    """Relative L2 errors of the native kernels and of PyTorch against float64, over every instruction set."""
    torch.manual_seed(0)
    worst = 0.0
    for shape in ((2, 3, 77, 50, 40), (1, 2, 513, 1000, 80), (3, 1, 100, 77, 160), (1, 1, 300, 300, 512), (1, 2, 33, 65, 7)):
        batch, count, queries, keys, size = shape
        for kind, dtype in TYPES.items():
            made = {name: torch.randn(batch, count, n, size).to(dtype).float() for name, n in dict(q=queries, k=keys, v=keys, dy=queries).items()}
            for name, x in made.items():
                x.numpy().tofile(f"{folder}/{name}.bin")
            truth = [made[name].double().requires_grad_() for name in "qkv"]
            out = torch.softmax(truth[0] @ truth[1].transpose(-1, -2) / math.sqrt(size), -1) @ truth[2]
            out.backward(made["dy"].double())
            half = [made[name].to(dtype).requires_grad_() for name in "qkv"]
            half_out = sdpa(*half)
            half_out.backward(made["dy"].to(dtype))
            expected = dict(zip(("out", "dq", "dk", "dv"), (out.detach(), *(x.grad for x in truth))))
            peer = dict(zip(("out", "dq", "dk", "dv"), (half_out.detach(), *(x.grad for x in half))))
            for isa in ("base", "avx2", "avx512", None):
                native(binary, shape, kind, True, 2, "--runs", "1", "--directory", folder, isa=isa)
                for name, x in expected.items():
                    mine = relative(torch.from_numpy(np.fromfile(f"{folder}/{name}.bin", dtype=np.float32)).view(x.shape), x)
                    other = relative(peer[name], x)
                    worst = max(worst, mine / other)
                    print(json.dumps(dict(shape=shape, type=kind, isa=isa or "best", tensor=name, native=float(f"{mine:.3g}"), torch=float(f"{other:.3g}"))))
    print(json.dumps(dict(worst_ratio=round(worst, 2))))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        binary = build()
        if options.check:
            return check(binary, folder)
        for kind in TYPES:
            for shape in SHAPES:
                measure(binary, shape, kind, False, options)
            for shape in BACKWARD:
                measure(binary, shape, kind, True, options)


if __name__ == "__main__":
    main()
