"""The critic's scores, gradients and gradient penalty, with the derivatives that a training step needs."""
