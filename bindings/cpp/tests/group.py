"""Two processes with a gloo group, passed from Python to C++, give the result of one process, bit for bit (R26).

Arguments: the library built from group.cpp, a folder for files; the processes that it starts also get their rank.
"""

import os
import pathlib
import subprocess
import sys

RANKS = 2


def rank_main(library, folder, rank):
    import torch
    import torch.distributed as dist

    torch.ops.load_library(library)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    group = dist.group.WORLD.boxed()
    torch.ops.ols_test.train(group, rank, RANKS, f"{folder}/rank{rank}.ols")
    if rank == 0:
        torch.ops.ols_test.train(group, 0, 1, f"{folder}/alone.ols")
    dist.barrier()
    dist.destroy_process_group()


def main():
    library, folder = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
    if len(sys.argv) > 3:
        return rank_main(library, folder, int(sys.argv[3]))
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.iterdir():
        left_over.unlink()
    environment = dict(os.environ, GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    processes = [subprocess.Popen([sys.executable, __file__, library, folder, str(rank)], env=environment) for rank in range(RANKS)]
    codes = [process.wait(timeout=600) for process in processes]
    assert codes == [0] * RANKS, f"the processes ended with {codes}"
    alone = (folder / "alone.ols").read_bytes()
    for rank in range(RANKS):
        assert (folder / f"rank{rank}.ols").read_bytes() == alone, f"rank {rank} differs from one process"
    print(f"process group: {RANKS} ranks equal one process, {len(alone)} bytes")


if __name__ == "__main__":
    main()
