"""The life of the temporal model: latent data sets, loss, loop, snapshots, inversion of footage."""
