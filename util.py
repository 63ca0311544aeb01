"""The names that users of the original import from `util`."""

from checkpoints.checkpoint import load_model
from cluster.pickles import Logger
from cluster.sampler import UnifLabelSampler
from evaluation.linear_run import learning_rate_decay
from training.state import AverageMeter

__all__ = ["AverageMeter", "Logger", "UnifLabelSampler", "learning_rate_decay", "load_model"]
