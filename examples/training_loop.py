"""A training loop of your own around the network of a genotype.

    python examples/training_loop.py

The clips here are made up, two classes that only the order of their frames tells apart: a brightness that grows, or
shrinks. Take clips of yours, float tensors (N, 3, T, H, W), and a genotype that a search has found.
"""

import pvnas  # before torch: it sets how threads wait for each other  # isort: skip
import torch
import torch.nn.functional as F

FRAMES, SIDE, BATCH, STEPS = 8, 32, 8, 30


def draw_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Return clips (N, 3, T, H, W) and their labels (N,)."""
    labels_N = torch.randint(2, (BATCH,))
    ramp_T = torch.linspace(-1, 1, FRAMES)
    signs_N = (2 * labels_N - 1).view(-1, 1, 1, 1, 1)
    noise_NCTHW = 0.3 * torch.randn(BATCH, 3, FRAMES, SIDE, SIDE)
    return noise_NCTHW + signs_N * ramp_T.view(1, 1, -1, 1, 1), labels_N


def main() -> float:
    torch.manual_seed(0)
    genotype = pvnas.random_genotype(seed=0)  # or pvnas.Genotype.load("RUN/genotype.json")
    network = pvnas.create_model("pvnas_l", genotype=genotype, num_classes=2, width=4, stem="stride2")
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    network.train()
    for step in range(STEPS):
        clips_NCTHW, labels_N = draw_batch()
        loss = F.cross_entropy(network(clips_NCTHW), labels_N)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 9:
            print(f"step {step + 1}: loss {loss.item():.3f}")

    fast = pvnas.for_inference(network)  # the scores of network.eval(), from fewer and larger kernels
    clips_NCTHW, labels_N = draw_batch()
    with torch.no_grad():
        accuracy = (fast(clips_NCTHW).argmax(1) == labels_N).float().mean().item()
    print(f"accuracy on new clips: {accuracy:.0%}")
    return accuracy


if __name__ == "__main__":
    main()
