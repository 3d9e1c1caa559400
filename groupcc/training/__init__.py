"""Training and evaluation of crosscoders."""

from groupcc.training.baseline import regress_decoder, train_sae
from groupcc.training.config import TrainConfig
from groupcc.training.evaluation import evaluate
from groupcc.training.metrics import read_metrics
from groupcc.training.trainer import TrainResult, train

__all__ = ["TrainConfig", "TrainResult", "evaluate", "read_metrics", "regress_decoder", "train", "train_sae"]
