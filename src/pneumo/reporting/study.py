"""The results of the study.

Source: B. Montalico, J. C. Herrera, Classification and Detection of Pneumonia in X-Ray Images Using Deep Learning
Techniques.
"""

from typing import NamedTuple

TESTED = 624  # images
MAJORITY = 0.625  # share of the larger class of these images, which a collapsed run reaches


class Published(NamedTuple):
    """One cell of the study's table: accuracies, and the time of training on a laptop's GPU."""

    train_accuracy: float
    test_accuracy: float
    train_seconds: int


# By conf/model's and conf/optimizer's names. The three pairs of 0.7429 and 0.6250 collapsed to one answer.
STUDY = {
    ("xraychestnet", "sgd"): Published(0.7429, 0.6250, 62 * 60 + 37),
    ("xraychestnet", "adam"): Published(0.7429, 0.6250, 74 * 60 + 57),
    ("xraychestnet", "adagrad"): Published(0.8562, 0.7404, 71 * 60 + 49),
    ("vgg16", "sgd"): Published(0.9724, 0.8926, 119 * 60 + 50),
    ("vgg16", "adam"): Published(0.7429, 0.6250, 130 * 60 + 37),
    ("vgg16", "adagrad"): Published(0.9688, 0.8590, 119 * 60 + 3),
    ("resnext", "sgd"): Published(0.9722, 0.9503, 86 * 60 + 55),
    ("resnext", "adam"): Published(0.9074, 0.8125, 109 * 60 + 53),
    ("resnext", "adagrad"): Published(0.9711, 0.9551, 92 * 60 + 47),
    ("googlenet", "sgd"): Published(0.9563, 0.8926, 65 * 60 + 15),
    ("googlenet", "adam"): Published(0.9369, 0.8365, 72 * 60 + 44),
    ("googlenet", "adagrad"): Published(0.9536, 0.9375, 76 * 60 + 49),
}
