"""The temporal model: options, latent space, loss, trainer, loop, snapshots. The rooms below hold footage, codes and videos."""
