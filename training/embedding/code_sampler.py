"""Random W+ codes of an image generator, near and far from its own distribution, for learning to invert it."""

import torch

from networks.image_generator import ImageGenerator


class CodeSampler:
    """Draws W+ codes that cover W, its truncations, mixtures of styles, and a neighbourhood in W+.

    A code starts as w = f(z). Independently of each other, each with its own probability,

    * truncation: w <- w_avg + psi (w - w_avg), psi uniform in [0.3, 1];
    * interpolation: w <- (1 - t) w + t w', t uniform in [0, 1];
    * mixing: style layers from a random one on come from another w';
    * shuffling: every style layer has its own w';
    * spread: w_l <- w_l + s B n_l with n_l standard normal, B a root of the covariance of W, s uniform in [0, spread].
      Codes of real footage lie outside of W; this is what makes the encoder know codes there.

    Args:
        image_generator: Image generator with `mapping`, `num_ws`, `w_dim`, `z_dim`, `c_dim`.
        num_statistics: Samples of W for its average and covariance.
        seed: Of these samples.
        truncation, interpolation, mixing, shuffling, spreading: Probabilities.
        spread: Largest relative standard deviation of the spread.

    Attributes:
        w_avg: `[w_dim]`.
        covariance: `[w_dim, w_dim]`.
    """

    def __init__(
        self,
        image_generator: ImageGenerator,
        *,
        num_statistics: int = 16384,
        seed: int = 0,
        truncation: float = 0.5,
        interpolation: float = 0.25,
        mixing: float = 0.3,
        shuffling: float = 0.1,
        spreading: float = 0.5,
        spread: float = 1.0,
    ) -> None:
        self.image_generator = image_generator
        self.num_ws, self.w_dim = int(image_generator.num_ws), int(image_generator.w_dim)
        self.z_dim, self.c_dim = int(image_generator.z_dim), int(image_generator.c_dim)
        self.device = next(image_generator.parameters()).device
        self.truncation, self.interpolation, self.mixing = truncation, interpolation, mixing
        self.shuffling, self.spreading, self.spread = shuffling, spreading, spread
        generator = torch.Generator().manual_seed(seed)
        w = torch.cat(
            [self._map(min(1024, num_statistics - done), generator).double().cpu() for done in range(0, num_statistics, 1024)]
        )
        self.w_avg = w.mean(dim=0).float()
        self.covariance = torch.cov(w.T).float()
        variances, axes = torch.linalg.eigh(self.covariance.double())
        self._root = (axes * variances.clamp(min=0).sqrt()).float().to(self.device)

    @torch.no_grad()
    def _map(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """`[count, w_dim]`; random labels where the generator takes labels."""
        z = torch.randn([count, self.z_dim], generator=generator)
        c = torch.zeros([count, self.c_dim])
        if self.c_dim:
            c[torch.arange(count), torch.randint(self.c_dim, [count], generator=generator)] = 1
        return self.image_generator.mapping(z.to(self.device), c.to(self.device))[:, 0].to(torch.float32)

    @torch.no_grad()
    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Draw codes `[count, num_ws, w_dim]` with random numbers of a CPU generator only."""

        def chosen(probability: float) -> torch.Tensor:
            return (torch.rand([count, 1, 1], generator=generator) < probability).to(self.device)

        def uniform(low: float, high: float) -> torch.Tensor:
            return (torch.rand([count, 1, 1], generator=generator) * (high - low) + low).to(self.device)

        w_avg = self.w_avg.to(self.device)
        first, second = self._map(2 * count, generator).chunk(2)
        first, second = first[:, None], second[:, None]  # [N, 1, w_dim]
        first = torch.where(chosen(self.interpolation), torch.lerp(first, second, uniform(0, 1)), first)
        first = torch.where(chosen(self.truncation), torch.lerp(w_avg.expand_as(first), first, uniform(0.3, 1)), first)
        ws = first.repeat(1, self.num_ws, 1)  # [N, num_ws, w_dim]
        cut = torch.randint(1, max(self.num_ws, 2), [count, 1, 1], generator=generator).to(self.device)
        after = torch.arange(self.num_ws, device=self.device)[None, :, None] >= cut
        ws = torch.where(chosen(self.mixing) & after, second, ws)
        shuffled = chosen(self.shuffling)
        own = self._map(count * self.num_ws, generator).reshape(count, self.num_ws, self.w_dim)
        ws = torch.where(shuffled, own, ws)
        noise = torch.randn([count, self.num_ws, self.w_dim], generator=generator).to(self.device)
        strength = torch.where(chosen(self.spreading), uniform(0, self.spread), torch.zeros(1, device=self.device))
        return ws + strength * (noise @ self._root.T)
